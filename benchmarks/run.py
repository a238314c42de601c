"""Measures what attribkit adds to a model call, and prints it beside a bare run and, where installed, beside peers.

    python benchmarks/run.py                       start, memory, and instructions (CPU time where valgrind is missing)
    python benchmarks/run.py --time --rounds 7     CPU time, in fresh processes that take turns
    python benchmarks/run.py --hops                what hops add to programs that call no model: the least of 3 counts
    python benchmarks/run.py --workloads chat,chatopenai --subjects attribkit,otel-genai --json out.json

Instructions repeat to a fraction of a percent and can be gated on; CPU time differs from run to run by a third on a
shared machine. Both count every thread, with what was put off (exports, ledger rows) done before the count ends.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hops import HOPS
from subjects import SUBJECTS, installed
from workloads import WORKLOADS

HERE = Path(__file__).parent
MARK = "@@bench "
TITLES = {**WORKLOADS, **HOPS}

_SHIM = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void mark(void) { CALLGRIND_DUMP_STATS; }
void finish(void) { CALLGRIND_DUMP_STATS; CALLGRIND_STOP_INSTRUMENTATION; }
"""


class Failed(Exception):
    """A measuring process that came back without figures."""


def measure(mode: str, subject: str, workloads: list[str], *, under: tuple[str, ...] = (), **environment: str) -> Any:
    """Run meter.py in a fresh process and return its results."""
    environ = {**os.environ, "PYTHONHASHSEED": "0", "LANGSMITH_TRACING": "false", **environment}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users' code is compiled once, so ours is
    done = subprocess.run(
        [*under, sys.executable, str(HERE / "meter.py"), mode, subject, *workloads],
        capture_output=True,
        text=True,
        env=environ,
        timeout=1800,
    )
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            result = json.loads(line.removeprefix(MARK))
            if "error" in result:
                failure = Failed(f"{subject} {result.get('failed', '')}: {result['error']}\n{result['trace']}")
                if not result["results"]:
                    raise failure
                complain(failure)
            return result["results"]
    raise Failed(f"{subject}: {(done.stderr or done.stdout)[-1000:]}")


# -- instructions -----------------------------------------------------------------------------------------------------


def shim(folder: Path) -> Path:
    """Compile what switches callgrind on and off around a block."""
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(_SHIM)
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or "cc"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library


def totals(dump: Path) -> dict[int, int]:
    """Return the instructions of one dump by thread; 1 is the main thread, and all threads that are not kept apart."""
    counts = {}
    for file in [dump] if dump.exists() else dump.parent.glob(f"{dump.name}-*"):
        found = re.findall(r"^totals: (\d+)", file.read_text(), re.M)
        counts[1 if file == dump else int(file.name.rsplit("-", 1)[1])] = sum(map(int, found))
    return counts


def instructions(
    subject: str, workloads: list[str], folder: Path, library: Path, apart: bool = True
) -> dict[str, dict[str, float]]:
    """Count the instructions of each workload, in millions a unit: all, and those of the calling thread.

    A dump of threads that are kept `apart` has the calling thread only: where others work too they have to be together.
    """
    dumps = folder / subject
    results = measure(
        "instructions",
        subject,
        workloads,
        under=(
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--separate-threads={'yes' if apart else 'no'}",
            f"--callgrind-out-file={dumps}",
        ),
        ATTRIBKIT_BENCH_SHIM=str(library),
    )
    figures = {}
    for number, workload in enumerate(name for name in workloads if name in results):
        units = results[workload]["units"]
        call, later = (totals(dumps.with_name(f"{dumps.name}.{2 * number + part}")) for part in (1, 2))
        figures[workload] = {
            "minstr": (sum(call.values()) + sum(later.values())) / units / 1e6,
            "minstr_caller": call.get(1, 0) / units / 1e6,
        }
    return figures


def by_instructions(subjects: list[str], workloads: list[str], apart: bool = True) -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="attribkit-bench-"))
    library = shim(folder)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for subject in ["bare", *subjects]:
        progress(f"counting {subject}")
        try:
            figures[subject] = instructions(subject, workloads, folder, library, apart)
        except Failed as failure:
            complain(failure)
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    for subject in subjects:
        for workload in workloads:
            if workload not in figures.get("bare", ()) or workload not in figures.get(subject, ()):
                continue
            bare, with_it = figures["bare"][workload], figures[subject][workload]
            rows.append(
                {
                    "subject": subject,
                    "workload": workload,
                    "unit": TITLES[workload].unit,
                    "bare_minstr": bare["minstr"],
                    "minstr": with_it["minstr"],
                    "added_minstr": with_it["minstr"] - bare["minstr"],
                    "added_minstr_caller": with_it["minstr_caller"] - bare["minstr_caller"],
                    "ratio": with_it["minstr"] / bare["minstr"],
                }
            )
    return rows


def by_hops(rounds: int) -> list[dict[str, Any]]:
    """Count the small programs. Threads take turns differently from run to run: the least of some counts is taken."""
    names = list(HOPS)
    counts = [by_instructions(["attribkit"], names, apart=False) for _ in range(rounds)]
    rows = []
    for name in names:
        found = [row for rows_ in counts for row in rows_ if row["workload"] == name]
        if found:
            bare, minstr = (min(row[key] for row in found) for key in ("bare_minstr", "minstr"))
            figures = {"bare_instr": bare * 1e6, "instr": minstr * 1e6, "ratio": minstr / bare}
            rows.append({"workload": name, "unit": HOPS[name].unit, **figures})
    return rows


# -- time -------------------------------------------------------------------------------------------------------------


def by_time(subjects: list[str], workloads: list[str], rounds: int) -> list[dict[str, Any]]:
    order = ["bare", *subjects]
    taken: dict[str, list[Any]] = {subject: [] for subject in order}
    for number in range(rounds):
        progress(f"timing, round {number + 1} of {rounds}")
        turn = order[number % len(order) :] + order[: number % len(order)]
        for subject in turn:
            try:
                taken[subject].append(measure("time", subject, workloads))
            except Failed as failure:
                taken[subject].append(None)
                if number == 0:
                    complain(failure)
    rows = []
    for subject in subjects:
        for workload in workloads:
            pairs = [
                (bare[workload]["cpu_us"], with_it[workload]["cpu_us"])
                for bare, with_it in zip(taken["bare"], taken[subject], strict=True)
                if bare is not None and with_it is not None and workload in bare and workload in with_it
            ]
            if pairs:
                rows.append(
                    {
                        "subject": subject,
                        "workload": workload,
                        "unit": TITLES[workload].unit,
                        "bare_us": statistics.median(bare for bare, _ in pairs),
                        "us": statistics.median(with_it for _, with_it in pairs),
                        "added_us": statistics.median(with_it - bare for bare, with_it in pairs),
                        "ratio": statistics.median(with_it / bare for bare, with_it in pairs),
                        "rounds": len(pairs),
                    }
                )
    return rows


# -- start-up, import, memory -----------------------------------------------------------------------------------------


def by_start(subjects: list[str], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for subject in subjects:
        progress(f"starting {subject}")
        try:
            runs = [measure("startup", subject, [])["startup"] for _ in range(rounds)]
        except Failed as failure:
            complain(failure)
            continue
        rows.append({"subject": subject, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}})
    return rows


_IMPORT = (
    "import time; t = time.process_time(); {}; print((time.process_time() - t) * 1e3, len(__import__('sys').modules))"
)


def by_import(rounds: int) -> dict[str, float]:
    """Measure `import attribkit` over a bare interpreter, in ms of CPU and modules."""
    progress("importing")
    times: dict[str, list[float]] = {"pass": [], "import attribkit": []}
    modules: dict[str, int] = {}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(rounds):
        for statement, taken in times.items():
            out = subprocess.run(
                [sys.executable, "-c", _IMPORT.format(statement)],
                capture_output=True,
                text=True,
                check=True,
                env=environ,
            ).stdout.split()
            taken.append(float(out[0]))
            modules[statement] = int(out[1])
    return {
        "import_ms": statistics.median(times["import attribkit"]) - statistics.median(times["pass"]),
        "modules": modules["import attribkit"] - modules["pass"],
    }


def by_memory(subjects: list[str]) -> list[dict[str, Any]]:
    rows = []
    for subject in ["bare", *subjects]:
        progress(f"10,000 calls with {subject}")
        try:
            rows.append({"subject": subject, **measure("memory", subject, [])["memory"]})
        except Failed as failure:
            complain(failure)
    return rows


# -- printing ---------------------------------------------------------------------------------------------------------


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text} ...", end="", file=sys.stderr, flush=True)


def complain(failure: Failed) -> None:
    print(f"\n{failure}", file=sys.stderr)


def table(header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def print_table(results: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(
        f"{results['machine']}; " + ", ".join(f"{name} {found}" for name, found in results["versions"].items()) + "\n"
    )
    titles = {name: entry.title for name, entry in SUBJECTS.items()}
    if rows := results.get("instructions"):
        print("Instructions, in millions, with background work; in brackets what the calling thread pays:\n")
        table(
            ["workload", "with", "bare", "added", "ratio"],
            [
                [
                    f"{WORKLOADS[row['workload']].title} ({row['unit']})",
                    titles[row["subject"]],
                    f"{row['bare_minstr']:.2f}",
                    f"+{row['added_minstr']:.3f} ({row['added_minstr_caller']:.3f})",
                    f"{row['ratio']:.3f}",
                ]
                for row in rows
            ],
        )
        print()
    if rows := results.get("hops"):
        print("Instructions of programs that call no model:\n")
        table(
            ["program", "with attribkit", "bare", "ratio"],
            [
                [
                    f"{HOPS[row['workload']].title} ({row['unit']})",
                    f"{row['instr']:,.0f}",
                    f"{row['bare_instr']:,.0f}",
                    f"{row['ratio']:.3f}",
                ]
                for row in rows
            ],
        )
        print()
    if rows := results.get("time"):
        print("CPU time, in microseconds, with background work:\n")
        table(
            ["workload", "with", "bare", "added", "ratio"],
            [
                [
                    f"{WORKLOADS[row['workload']].title} ({row['unit']})",
                    titles[row["subject"]],
                    f"{row['bare_us']:.0f}",
                    f"{row['added_us']:+.0f}",
                    f"{row['ratio']:.2f}",
                ]
                for row in rows
            ],
        )
        print()
    if rows := results.get("startup"):
        print("Start, after the app's own imports:\n")
        table(
            ["with", "CPU ms", "MB", "first call, CPU ms", "MB"],
            [
                [
                    titles[row["subject"]],
                    f"{row['start_ms']:.1f}",
                    f"{row['start_mb']:.2f}",
                    f"{row['first_call_ms']:.1f}",
                    f"{row['first_call_mb']:.2f}",
                ]
                for row in rows
            ],
        )
        print()
    if found := results.get("import"):
        print(
            f"import attribkit: {found['import_ms']:.1f} ms CPU over a bare interpreter, {found['modules']} modules\n"
        )
    if rows := results.get("memory"):
        print("Memory that 10,000 more calls leave, each of another workflow run:\n")
        table(
            ["with", "MB", "objects"],
            [[titles[row["subject"]], f"{row['grown_mb']:+.2f}", f"{row['grown_objects']:+d}"] for row in rows],
        )


def versions() -> dict[str, str]:
    found = {}
    for name in ("attribkit", "openai", "langchain-core", "langgraph", "opentelemetry-sdk", "wrapt"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def listed(names: str, known: Any, what: str) -> list[str]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            sys.exit(f"run.py: {name!r} is no {what}; there are {', '.join(known)}")
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instructions", action="store_true", help="count instructions under callgrind")
    parser.add_argument("--hops", action="store_true", help="count programs that call no model")
    parser.add_argument("--time", action="store_true", help="measure CPU time")
    parser.add_argument("--start", action="store_true", help="measure the start, the first call and the import")
    parser.add_argument("--memory", action="store_true", help="measure the memory that 10,000 calls leave")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help=f"some of {', '.join(WORKLOADS)}")
    parser.add_argument("--subjects", help=f"some of {', '.join(SUBJECTS)}; by default all that are installed")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each figure of time")
    parser.add_argument("--json", metavar="OUT", help="write the figures here too")
    parser.add_argument("--budgets", action="store_true", help="what holding a call against a budget costs")
    options = parser.parse_args()
    if options.budgets:
        sys.exit(subprocess.run([sys.executable, str(HERE / "limits.py")]).returncode)
    workloads = listed(options.workloads, WORKLOADS, "workload")
    asked = listed(options.subjects, SUBJECTS, "subject") if options.subjects else list(SUBJECTS)
    subjects = [name for name in asked if name != "bare" and installed(name)]
    if not (options.instructions or options.hops or options.time or options.start or options.memory):
        options.start = options.memory = True
        options.instructions = shutil.which("valgrind") is not None
        options.time = not options.instructions
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "versions": versions(),
    }
    if (options.instructions or options.hops) and shutil.which("valgrind") is None:
        sys.exit("run.py: --instructions and --hops need valgrind and a C compiler (apt install valgrind gcc)")
    if options.instructions:
        results["instructions"] = by_instructions(subjects, workloads)
    if options.hops:
        results["hops"] = by_hops(3)
    if options.time:
        results["time"] = by_time(subjects, workloads, options.rounds)
    if options.start:
        results["startup"] = by_start(subjects, options.rounds)
        results["import"] = by_import(max(options.rounds, 5))
    if options.memory:
        results["memory"] = by_memory([name for name in subjects if name.startswith("attribkit")])
    print_table(results)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
