"""Run CPython's own test suites with attribkit on in every process, and hold them against a bare run.

    python tests/stdlib/run.py [SUITE ...] [--python PYTHON] [--modes on] [--jobs N]

A test that passes bare and does not pass with attribkit is printed, and the run fails. Suites that this Python has not
installed are listed (many builds leave some or all of `test` out). Each suite runs three times: bare, with attribkit
on, and with attribkit on in a scope that is open from the start of each process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = (
    "test_threading",
    "test_thread",
    "test_threading_local",
    "test_threadsignals",
    "test_threadedtempfile",
    "test_concurrent_futures",
    "test_multiprocessing_main_handling",
    "test_multiprocessing_fork",
    "test_multiprocessing_spawn",
    "test_multiprocessing_forkserver",
    "test_subprocess",
    "test_popen",
    "test_queue",
    "test_context",
    "test_contextlib_async",
    "test_coroutines",
    "test_asyncgen",
    "test_asyncio",
)
MODES = ("on", "in a scope")


def installed(python: str, suite: str) -> bool:
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('test.{suite}') is None)"
    return subprocess.run([python, "-c", found], capture_output=True).returncode == 0


def outcomes(python: str, suite: str, mode: str, timeout: float) -> dict[str, str]:
    """Return each test's outcome: passed, failed, skipped; and how the suite as a whole ended."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ATTRIBKIT_", "PYTEST_"))}
    environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "everywhere"), str(HERE.parents[1] / "src")])
    if mode != "bare":
        environ["ATTRIBKIT_STDLIB_MODE"] = mode
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [python, "-m", "test", "--junit-xml", str(report), "-u", "cpu", suite]
        try:
            ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return {suite: f"no end in {timeout:.0f} s"}
        if not report.exists():
            return {suite: f"no report: {(ran.stdout + ran.stderr)[-2000:]}"}
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):
            name = str(case.get("name"))
            kinds = {child.tag for child in case}
            found[name] = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            for child in case:
                if child.tag in ("failure", "error"):
                    found[name] += "\n" + (child.text or "")
        return found


def compared(python: str, suite: str, modes: list[str], timeout: float) -> tuple[str, bool]:
    """Return what is to be said of a suite, and whether attribkit changes nothing in it."""
    bare = outcomes(python, suite, "bare", timeout)
    passed = sum(outcome == "passed" for outcome in bare.values())
    lines, good = [f"{suite}: {passed} of {len(bare)} pass bare"], True
    for mode in modes:
        there = outcomes(python, suite, mode, timeout)
        worse = [name for name, outcome in bare.items() if outcome == "passed" and there.get(name) != "passed"]
        if worse:  # some tests of these suites depend on time: they get a second go
            again = outcomes(python, suite, mode, timeout)
            worse = [name for name in worse if again.get(name) != "passed"]
        extra = [name for name, outcome in there.items() if name not in bare and outcome.startswith(("fail", "no "))]
        good = good and not worse and not extra
        lines.append(f"    {mode}: {'as bare' if not worse + extra else f'{len(worse + extra)} do not pass'}")
        lines += [f"      {name}: {there.get(name, 'did not run')}" for name in worse + extra]
    return "\n".join(lines), good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", default=SUITES, metavar="SUITE")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has attribkit's dependencies")
    parser.add_argument("--modes", default=",".join(MODES), help="some of: " + ", ".join(MODES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="suites at once")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one run of a suite")
    options = parser.parse_args()
    modes = [mode.strip() for mode in options.modes.split(",") if mode.strip()]
    here = [suite for suite in options.suites if installed(options.python, suite)]
    missing = [suite for suite in options.suites if suite not in here]
    all_good = True
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for text, good in pool.map(lambda suite: compared(options.python, suite, modes, options.timeout), here):
            print(text, flush=True)
            all_good = all_good and good
    if missing:
        print(f"not installed here: {', '.join(missing)}")
    if not here:
        sys.exit(f"run.py: {options.python} has none of these suites installed")
    sys.exit(0 if all_good else 1)


if __name__ == "__main__":
    main()
