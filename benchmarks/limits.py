"""Hammers budgets: many processes and threads on one limit, on each store, and says whether it held.

    python benchmarks/limits.py                                          what a check costs, on each store
    python benchmarks/limits.py --hammer --processes 64 --threads 50     one budget, all at once
    python benchmarks/limits.py --hammer --kill 16                       some of the processes are killed meanwhile
    python benchmarks/limits.py --neighbour                              a tenant beside one that asks 100 times as much
    python benchmarks/limits.py --many 10000                             as many budgets at once

Stores: memory, sqlite, and redis and postgresql, whose servers are started where they are installed. `--json` prints
the rows. The exit code is 1 when a limit was passed, or a call was refused that could have been paid.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from attribkit.attribution import Attribution
from attribkit.budgets import account
from attribkit.budgets.guard import BudgetGuard
from attribkit.budgets.open import place_of
from attribkit.budgets.policy import Budget
from attribkit.budgets.reservations import Worst
from attribkit.errors import BudgetExceeded

STORES = ("memory", "sqlite", "redis", "postgresql")
WORST = 5 * 10**9
"""Pico-dollars that each call reserves; it costs between nothing and all of them."""


_WORST = Worst(WORST, 100)
_BLOCK = 16
"""Calls that are measured together, so that reading the clock does not count."""
_TURNS = 10


class Bounds:
    def worst_case(self, call: Any, who: Any = None, **_: Any) -> Worst:
        return _WORST

    def learn(self, call: Any, size: int, input_tokens: int, output_tokens: int) -> None:
        pass


class Call:
    """What a guard reads of a call."""

    model = "gpt-5-mini"


def made(url: str, *budgets: Budget) -> BudgetGuard:
    place = place_of(url)
    return BudgetGuard(budgets, store=place.open, journals=place.journals, bounds=Bounds())


@contextlib.contextmanager
def at(name: str) -> Iterator[str | None]:
    """Start what a store needs; its URL, None where it is not installed."""
    from budgets import servers

    with tempfile.TemporaryDirectory(prefix="attribkit-budgets-", ignore_cleanup_errors=True) as folder:
        if name == "memory":
            yield "memory://"
        elif name == "sqlite":
            yield f"sqlite:///{folder}/budgets.db"
        elif servers.found(name) is None:
            yield None
        else:
            server = servers.redis_server if name == "redis" else servers.postgresql_server
            with server(Path(folder)) as url:
                yield url


# -- the hammer -------------------------------------------------------------------------------------------------------


def budget_of(limit: str, patience: float) -> Budget:
    """The budget of all: a call without room waits for what others give back, and is refused when nothing comes."""
    queue = {"at": "100%", "action": "queue", "seconds": patience, "waiting": 10_000}
    return Budget("all", limit=limit, window="total", store_down="closed", thresholds=[queue])


def worker(url: str, limit: str, threads: int, patience: float, report: str, go: str) -> None:
    """Call in every thread until one call is refused."""
    guard = made(url, budget_of(limit, patience))
    who, call = Attribution.of({"tenant_id": "acme"}), Call()
    totals, times, wrong = [], [], []
    file = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work(seed: int) -> None:
        rng, calls, refused, spent, last = random.Random(seed), 0, 0, 0, 0.0
        while True:
            begun = time.perf_counter()
            try:
                held = guard.reserve(call, who, "operation")
            except BudgetExceeded as refusal:
                refused += 1
                if refusal.reason is not None:
                    wrong.append(refusal.reason)
                break
            times.append(time.perf_counter() - begun)
            if rng.random() < 0.5:
                time.sleep(rng.uniform(0, 0.002))
            actual = rng.randrange(WORST + 1)
            guard.settle(held, Decimal(actual).scaleb(-12))
            os.write(file, actual.to_bytes(8, "little"))
            calls, spent = calls + 1, spent + actual
            last = time.monotonic()
        totals.append((calls, refused, spent, last))

    guard.settle(guard.reserve(call, who, "first"), Decimal(0))  # the store is open before the clock starts
    Path(f"{report}.ready").touch()
    while not os.path.exists(go):
        time.sleep(0.01)
    cpu = time.process_time()
    running = [threading.Thread(target=work, args=(os.getpid() * 1000 + number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    guard.close()
    print(
        json.dumps(
            {
                "calls": sum(one[0] for one in totals),
                "refused": sum(one[1] for one in totals),
                "spent": sum(one[2] for one in totals),
                "cpu": time.process_time() - cpu,
                "times": random.sample(times, min(len(times), 500)),
                "wrong": sorted(set(wrong)),
                "last": max(one[3] for one in totals),
            }
        )
    )


def hammer(
    name: str, url: str, processes: int, threads: int, limit: str, kill: int, patience: float, folder: Path
) -> dict[str, Any]:
    go, whole = folder / "go", int(Decimal(limit) * 10**12)
    running = []
    for number in range(processes):
        words = ["worker", url, limit, str(threads), str(patience), str(folder / f"{number}.spent"), str(go)]
        running.append(
            subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    while len(list(folder.glob("*.ready"))) < processes and all(one.poll() is None for one in running):
        time.sleep(0.05)  # all are up before the first one begins
    begun = time.monotonic()
    go.touch()
    victims = random.sample(running, kill)
    reports = [folder / f"{number}.spent" for number in range(processes)]
    for number, victim in enumerate(victims):
        part = whole * (number + 1) // (2 * kill)  # in the middle: while the first half is spent
        while _spent(reports) < part and time.monotonic() - begun < 60:
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
    told, faults = [], []
    for one in running:
        out, error = one.communicate()
        if one.returncode == 0:
            told.append(json.loads(out))
        elif one not in victims:
            faults.append(error.decode(errors="replace")[-500:])
    seconds = max((part["last"] for part in told), default=time.monotonic()) - begun
    done = _spent(reports)
    left = whole - _balance(url).spent
    # Whoever comes next finds what the dead held given back, and spends it.
    last = made(url, Budget("all", limit=limit, window="total"))
    with contextlib.suppress(BudgetExceeded):
        for _ in range(10_000_000):
            held = last.reserve(Call(), Attribution(), "last")
            last.settle(held, Decimal(WORST).scaleb(-12))
            done += WORST
    last.flush()
    state = _balance(url)
    last.close()
    times = sorted(one for part in told for one in part["times"])
    calls = sum(part["calls"] for part in told)
    spent, refused = state.spent, sum(part["refused"] for part in told)
    return {
        "store": name,
        "processes": processes,
        "threads": threads,
        "killed": kill,
        "calls": calls,
        "refused": refused,
        # A refused call was right to be refused if, when all had settled, nothing was left to pay for it.
        "unjust": refused if left >= WORST else 0,
        "limit_usd": limit,
        "spent_usd": str(Decimal(spent).scaleb(-12)),
        "over_usd": str(Decimal(max(0, spent - whole)).scaleb(-12)),
        "left_usd": str(Decimal(whole - spent).scaleb(-12)),
        "reserved": state.reserved,
        # A killed process may have spent what it did not come to write down; nothing may be missing.
        "exact": spent == done if not kill else done <= spent <= whole,
        "held": spent <= whole and state.reserved == 0,
        "used_up": whole - spent < WORST,
        "calls_per_s": round(calls / seconds),
        "reserve_p50_us": round(times[len(times) // 2] * 1e6) if times else None,
        "reserve_p99_us": round(times[len(times) * 99 // 100] * 1e6) if times else None,
        "cpu_us": round(sum(part["cpu"] for part in told) / max(1, calls) * 1e6),
        "faults": faults + sorted({text for part in told for text in part["wrong"]}),
    }


def _spent(reports: list[Path]) -> int:
    """Return what the workers say that they have spent."""
    return sum(
        int.from_bytes(data[index : index + 8], "little")
        for data in (path.read_bytes() for path in reports if path.exists())
        for index in range(0, len(data) - 7, 8)
    )


def _balance(url: str) -> Any:
    store = place_of(url).open()
    (balance,) = store.balances("all")
    store.close()
    return balance.state


# -- what a check costs -----------------------------------------------------------------------------------------------


def locked(count: int) -> float:
    """Return the CPU microseconds of the least that a check can be: two sums under a lock."""
    lock, spent, reserved = threading.Lock(), 0, 0
    begun = time.process_time()
    for _ in range(count):
        with lock:
            if spent + reserved + WORST <= 10**30:
                reserved += WORST
        with lock:
            reserved -= WORST
            spent += 7
    return (time.process_time() - begun) / count * 1e6


def cost(name: str, url: str, *, near: bool, count: int) -> dict[str, Any]:
    """Measure reserve and settle of one thread, far from the limit and where each is decided at the store."""
    guard = made(url, Budget("far" if not near else "near", limit="9000000", window="total"))
    call, who, usd = Call(), Attribution.of({"tenant_id": "acme", "workflow": "w"}), Decimal("0.001")
    shares = account._SHARE_CALLS
    account._SHARE_CALLS = 0 if near else shares
    reserve = settle = 0.0
    wall = []
    try:
        for _ in range(50):
            guard.settle(guard.reserve(call, who, "operation"), usd)
        for _ in range(count // _BLOCK):
            begun = time.thread_time()
            held = [guard.reserve(call, who, "operation") for _ in range(_BLOCK)]
            middle = time.thread_time()
            for one in held:
                guard.settle(one, usd)
            settle += time.thread_time() - middle
            reserve += middle - begun
        for _ in range(count):
            begun = time.perf_counter()
            guard.settle(guard.reserve(call, who, "operation"), usd)
            wall.append(time.perf_counter() - begun)
        guard.flush()
    finally:
        account._SHARE_CALLS = shares
        guard.close()
    wall.sort()
    calls = count // _BLOCK * _BLOCK
    return {
        "store": name,
        "at": "the store" if near else "a share",
        "reserve_cpu_us": round(reserve / calls * 1e6, 1),
        "settle_cpu_us": round(settle / calls * 1e6, 1),
        "both_p50_us": round(wall[len(wall) // 2] * 1e6, 1),
        "both_p99_us": round(wall[len(wall) * 99 // 100] * 1e6, 1),
        "ratio_to_a_lock": round((reserve + settle) / calls * 1e6 / locked(100_000), 1),
    }


# -- many, and neighbours ---------------------------------------------------------------------------------------------


def many(name: str, url: str, count: int) -> dict[str, Any]:
    """Use `count` budgets, each declared by itself, and one more for each tenant, in one process."""
    import resource

    budgets = [Budget(f"b{n}", limit="9", window="month", match={"tenant_id": f"t{n}"}) for n in range(count)]
    begun = time.perf_counter()
    guard = made(url, *budgets, Budget("each", limit="9", per="tenant_id"))
    whos = [Attribution.of({"tenant_id": f"t{n}", "workflow_id": str(n)}) for n in range(count)]
    guard.settle(guard.reserve(Call(), whos[0], ""), Decimal(0))
    opened = time.perf_counter() - begun
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds = []
    for _ in range(2):
        begun = time.perf_counter()
        for who in whos:
            guard.settle(guard.reserve(Call(), who, ""), Decimal("0.001"))
        rounds.append((time.perf_counter() - begun) / count * 1e6)
    guard.flush()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    store = place_of(url).open() if name != "memory" else guard._account.store
    counted = sum(one.state.spent == 2 * 10**9 for one in store.balances())
    guard.close()
    return {
        "store": name,
        "budgets": 2 * count,
        "start_s": round(opened, 2),
        "first_us": round(rounds[0], 1),
        "then_us": round(rounds[1], 1),
        "memory_kb_each": round(memory / count / 2, 2),
        "held": counted == 2 * count,
    }


def neighbour(name: str, url: str, calls: int) -> dict[str, Any]:
    """Measure a quiet tenant alone, beside one whose 100 times as many calls are refused, and beside a thread of this
    process that does the same work against a budget in memory: what that changes is the interpreter's, not the store's.

    The three take turns, `_TURNS` times, so that what else the machine does meets all of them.
    """
    guard = made(url, Budget("each", limit="5", window="total", per="tenant_id"))
    apart = made("memory://", Budget("each", limit="5", window="total", per="tenant_id"))
    quiet, noisy = Attribution.of({"tenant_id": "quiet"}), Attribution.of({"tenant_id": "noisy"})
    accepted, refused = 0, 0
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "control": [], "beside": []}
    count = max(calls // _TURNS, 10)

    def noise(at: BudgetGuard, stop: threading.Event, asked: list[int]) -> None:
        while not stop.is_set():
            try:
                at.settle(at.reserve(Call(), noisy, ""), Decimal(WORST).scaleb(-12))
            except BudgetExceeded:
                asked[1] += 1
            if asked[1] > 100 * asked[0]:
                time.sleep(0.001)

    for at in (guard, apart):  # the noisy tenant has nothing left, the quiet one's windows are open
        at.settle(at.reserve(Call(), quiet, ""), Decimal(0))
        with contextlib.suppress(BudgetExceeded):
            while True:
                at.settle(at.reserve(Call(), noisy, ""), Decimal(WORST).scaleb(-12))
    for turn in range(3 * _TURNS):
        kind = ("alone", "control", "beside")[turn % 3]
        stop, asked, times = threading.Event(), [0, 0], []
        thread = threading.Thread(target=noise, args=(apart if kind == "control" else guard, stop, asked))
        if kind != "alone":
            thread.start()
        for _ in range(count):
            begun = time.perf_counter()
            held = guard.reserve(Call(), quiet, "")
            guard.settle(held, Decimal(0))
            times.append(time.perf_counter() - begun)
            asked[0] += 1
            time.sleep(0.002)
        stop.set()
        if kind != "alone":
            thread.join()
        times.sort()
        found[kind].append((times[count // 2] * 1e6, times[count * 99 // 100] * 1e6))
        accepted += asked[0]
        refused += asked[1] if kind == "beside" else 0
    guard.close()
    apart.close()
    row: dict[str, Any] = {"store": name, "quiet_calls": accepted, "refused_beside": refused}
    for kind, rounds in found.items():
        row[f"{kind}_p50_us"] = round(_middle(one[0] for one in rounds))
        row[f"{kind}_p99_us"] = round(_middle(one[1] for one in rounds))
    row["control_p99_to_us"] = round(max(one[1] for one in found["control"]))
    row["beyond_noise"] = row["beside_p99_us"] > row["control_p99_to_us"]
    row["held"] = accepted == 3 * _TURNS * count
    return row


def _middle(values: Iterable[float]) -> float:
    found = sorted(values)
    return found[len(found) // 2]


def table(rows: list[dict[str, Any]]) -> str:
    widths = {field: max(len(field), *(len(str(row[field])) for row in rows)) for field in rows[0]}
    lines = [{field: field for field in widths}, *rows]
    return "\n".join("  ".join(str(line[field]).rjust(width) for field, width in widths.items()) for line in lines)


def main() -> int:
    if sys.argv[1:2] == ["worker"]:
        url, limit, threads, patience, report, go = sys.argv[2:8]
        worker(url, limit, int(threads), float(patience), report, go)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--hammer", action="store_true")
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=50)
    parser.add_argument("--limit", default="50")
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds that a call waits for room")
    parser.add_argument("--neighbour", action="store_true")
    parser.add_argument("--many", type=int)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in given.stores.split(","):
        if given.hammer and name == "memory":
            continue
        with at(name) as url:
            if url is None:
                print(f"{name}: no server here", file=sys.stderr)
            elif given.hammer:
                with tempfile.TemporaryDirectory() as folder:
                    shape = given.processes, given.threads, given.limit, given.kill, given.patience
                    rows.append(hammer(name, url, *shape, Path(folder)))
            elif given.many:
                rows.append(many(name, url, given.many))
            elif given.neighbour:
                rows.append(neighbour(name, url, given.calls))
            else:
                rows += [cost(name, url, near=near, count=given.calls) for near in (False, True)]
    print(json.dumps(rows, indent=2) if given.json else table(rows))
    good = all(row.get("held", True) and row.get("used_up", True) and row.get("exact", True) for row in rows)
    good = good and not any(row.get("unjust") for row in rows)
    return 0 if good and not any(row.get("faults") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
