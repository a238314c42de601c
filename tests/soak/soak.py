"""Two tenants over every hop at once, in one process: nothing wrong, a row for each request, memory that stays flat.

    python tests/soak/soak.py --seconds 60

Several threads and one event loop run the programs of `attribkit verify` over and over, all at the same time, for the
same two tenants (a few programs need a third). One JSON object says what came of it; the exit code is 1 when something
is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import inspect
import itertools
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from attribkit import faults
from attribkit.instrumentation.catalog import GROUPS
from attribkit.testing import Gateway
from attribkit.verify import probes, start
from attribkit.verify.judge import by_marker, judge
from attribkit.verify.lab import Lab
from attribkit.verify.notes import Note, Notebook
from attribkit.verify.probe import Probe, lacking
from attribkit.verify.run import chosen
from attribkit.verify.worker import run

TENANTS = ("acme", "globex")
GRACE = 60.0
GROWTH = 8.0
"""MB that the second half of a long run may take."""


class Book(Notebook):
    """Keeps what this process sees in memory; other processes write files, as they do for `attribkit verify`."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.owner = os.getpid()
        self.notes: collections.deque[Note] = collections.deque()

    def _write(self, note: Note) -> None:
        if os.getpid() == self.owner:
            self.notes.append(note)
        else:
            super()._write(note)


class Soak:
    def __init__(self, gateway: Gateway, book: Book, wanted: list[Probe], seconds: float, seed: int) -> None:
        self.gateway, self.book, self.wanted, self.random = gateway, book, wanted, random.Random(seed)
        self.until = time.monotonic() + seconds
        self.ended: collections.deque[tuple[Probe, Lab, str | None]] = collections.deque()
        self.problems: list[str] = []
        self.runs: collections.Counter[str] = collections.Counter()
        self.totals: collections.Counter[str] = collections.Counter()
        self.requests: dict[str, list[Any]] = {}
        self.by_id: dict[str, list[Note]] = {}
        self.by_workflow: dict[str | None, list[Note]] = {}
        self.seen = 0
        self.read: dict[Path, int] = {}

    # -- the work -----------------------------------------------------------------------------------------------------

    def turns(self, mine: list[Probe]) -> Any:
        """Yield programs in an order that differs in each round, each with a fresh lab, until the time is over."""
        while True:
            for probe in self.random.sample(mine, len(mine)):
                if time.monotonic() > self.until:
                    return
                yield probe, Lab(self.gateway.url, TENANTS)

    def in_a_thread(self, mine: list[Probe]) -> None:
        for probe, lab in self.turns(mine):
            error, _ = run(probe, lab)
            self.ended.append((probe, lab, error))

    def in_one_loop(self, mine: list[Probe], at_once: int) -> None:
        """Run asynchronous programs side by side in one loop."""

        async def one(turns: Any) -> None:
            for probe, lab in turns:
                error = None
                try:
                    await probe.run(lab)
                except Exception as raised:
                    error = f"{type(raised).__name__}: {raised}"
                self.ended.append((probe, lab, error))

        async def everything() -> None:
            await asyncio.gather(*(one(self.turns(mine)) for _ in range(at_once)))

        asyncio.run(everything())

    # -- the judgement ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Judge the programs that have ended, and forget what was theirs."""
        ended = [self.ended.popleft() for _ in range(len(self.ended))]
        new = self.gateway.requests(since=self.seen)
        if new:
            self.seen = new[-1].seq
        for marker, requests in by_marker(new).items():
            self.requests.setdefault(marker, []).extend(requests)
        for _ in range(len(self.book.notes)):
            self.sort(self.book.notes.popleft())
        for path in Path(self.book.directory).glob("*.jsonl"):  # of other processes
            written = path.read_text()
            whole = written.rfind("\n") + 1
            for line in written[self.read.get(path, 0) : whole].splitlines():
                self.sort(Note(*json.loads(line)))
            self.read[path] = whole
        for probe, lab, error in ended:
            self.runs[probe.group] += 1
            if error is not None:
                self.problems.append(f"{probe.id}: {error}")
            mine = {one.marker: self.requests.pop(one.marker, []) for one in lab.expected}
            notes = []
            for request in itertools.chain.from_iterable(mine.values()):
                notes += self.by_id.pop(request.response_id or "", [])
            for workflow in {one.workflow_id for one in lab.expected} - {None}:
                notes += self.by_workflow.pop(workflow, [])
            verdict = judge(lab.expected, mine, notes, spans=True)
            for name, column in (("requests", verdict.wire), ("spans", verdict.span), ("rows", verdict.row)):
                if column is None or verdict.row is None:
                    continue
                self.totals[name] += column.expected - column.missing + column.extra
                self.totals["wrong"] += column.wrong
                self.totals["leaked"] += column.leaked if "asyncio" not in probe.relies else 0
                # Where several loops open scopes at once, a plain coroutine's origin can be uncertain: then nobody's.
                allowed = column.leaked if "asyncio" in probe.relies else 0
                self.totals["withheld"] += allowed
                if not column._replace(leaked=0, right=column.right + allowed).good:
                    self.problems.append(f"{probe.id}: {name}: {column}")

    def sort(self, note: Note) -> None:
        if note.response_id is not None:
            self.by_id.setdefault(note.response_id, []).append(note)
        else:
            self.by_workflow.setdefault(note.workflow_id, []).append(note)


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def programs(names: str, off: list[str]) -> list[Probe]:
    """Return the programs whose patches there are, and that can run beside others in one process."""
    return [
        probe
        for probe in chosen(names.split(","))
        if probe.soak
        and set(probe.relies) <= set(GROUPS) - set(off)
        and lacking(probe.needs, probes.load(probe.group).extra) is None
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hops", default="", help="only these groups or programs, with commas")
    parser.add_argument("--off", default="", help="patch groups to turn off, with commas")
    parser.add_argument("--without", default="", help="programs to leave out, with commas")
    options = parser.parse_args()
    off = [name for name in options.off.split(",") if name]
    wanted = [probe for probe in programs(options.hops, off) if probe.id not in options.without.split(",")]
    with Gateway() as gateway, tempfile.TemporaryDirectory(prefix="attribkit-soak-") as directory:
        os.environ.update(start.environment(gateway.url, dict.fromkeys(off, False)))
        for group in dict.fromkeys(probe.group for probe in wanted):
            probes.load(group).prepare()
        book = Book(directory)
        start.note_in(book, directory)
        start.start(book)
        soak = Soak(gateway, book, wanted, options.seconds, options.seed)
        far = [probe for probe in wanted if probe.group == "processes"]
        loops = [probe for probe in wanted if probe not in far and inspect.iscoroutinefunction(probe.run)]
        # langchain-openai keeps one async HTTP client for the process, which one event loop at a time can use.
        near = [probe for probe in wanted if probe not in far and (probe not in loops or "lang" not in probe.group)]
        work = [threading.Thread(target=soak.in_a_thread, args=(near,)) for _ in range(options.threads)]
        work.append(threading.Thread(target=soak.in_one_loop, args=(loops, 4)))
        if far:
            work.append(threading.Thread(target=soak.in_a_thread, args=(far,)))
        begun = time.monotonic()
        for thread in work:
            thread.daemon = True
            thread.start()
        memory = []
        while any(thread.is_alive() for thread in work):
            time.sleep(0.25)
            soak.settle()
            gc.collect()
            memory.append((round(time.monotonic() - begun, 1), round(resident(), 1)))
            if time.monotonic() > soak.until + GRACE:
                stuck = [thread.name for thread in work if thread.is_alive()]
                soak.problems.append(f"still at work {GRACE:g} seconds after the end: {stuck}")
                break
        soak.settle()
        left = sum(map(len, soak.by_id.values())) + sum(map(len, soak.by_workflow.values()))
        if left:
            soak.problems.append(f"{left} rows or spans belong to no program")
        flat = memory[-1][1] - memory[len(memory) // 2][1]
        if options.seconds >= 30 and flat > GROWTH:
            soak.problems.append(f"{flat:.1f} MB more in the second half")
        if faults.counts():
            soak.problems.append(f"attribkit's own faults: {faults.counts()}")
        told = {
            "seconds": round(time.monotonic() - begun, 1),
            "programs": len(wanted),
            "runs": dict(soak.runs),
            **{name: soak.totals[name] for name in ("requests", "rows", "spans", "wrong", "leaked", "withheld")},
            "memory_mb": [memory[at] for at in sorted({len(memory) // 3, len(memory) // 2, -1 % len(memory)})],
            "problems": soak.problems[:20],
        }
        print(json.dumps(told, indent=2))
        sys.stdout.flush()
        with contextlib.suppress(Exception):
            gateway.close()
        return 1 if soak.problems or soak.totals["requests"] != soak.totals["rows"] else 0


if __name__ == "__main__":
    sys.exit(main())
