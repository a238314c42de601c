"""One fresh process that measures one subject: `python meter.py MODE SUBJECT [WORKLOAD ...]`, one JSON line on stdout.

Modes: time, instructions (under callgrind only), startup, memory. Started by run.py.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import sys
import time
from contextlib import nullcontext
from typing import Any

MARK = "@@bench "
_BLOCKS = 5


def resident() -> int:
    """Return the bytes of memory that this process holds now (its most so far, where /proc is missing)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def timed(subject: Any, workload: Any) -> dict[str, float]:
    block, units = workload.prepare(subject), workload.timed
    taken = []
    with subject.scope() if workload.scoped else nullcontext():
        block(units)
        for _ in range(_BLOCKS):
            subject.settle()
            gc.collect()
            before = time.process_time()
            block(units)
            subject.settle()  # put-off work counts
            taken.append((time.process_time() - before) / units * 1e6)
    return {"cpu_us": statistics.median(taken), "cpu_us_least": min(taken)}


def counted(subject: Any, workload: Any, shim: Any) -> dict[str, float]:
    block, units = workload.prepare(subject), workload.counted
    with subject.scope() if workload.scoped else nullcontext():
        block(units)
        subject.settle()
        block(units)
        subject.settle()
        gc.collect()
        shim.begin()
        block(units)
        shim.mark()
        subject.settle()
        shim.finish()
    return {"units": units}


def startup(name: str) -> dict[str, float]:
    """Measure the start after the app's own imports, and what the first call loads."""
    import openai  # noqa: F401
    import subjects
    import workloads
    from langchain_openai import ChatOpenAI  # noqa: F401

    if name != "bare":
        subjects.tracer_provider()
        from opentelemetry import trace

        provider = trace.get_tracer_provider()
        subjects.tracer_provider = lambda: provider  # type: ignore[assignment]
    warm = workloads.WORKLOADS["chat"].prepare(subjects.Subject())
    warm(5)
    gc.collect()
    memory, before = resident(), time.process_time()
    subject = subjects.SUBJECTS[name].start()
    started = time.process_time()
    gc.collect()
    after = resident()
    block = workloads.WORKLOADS["chat"].prepare(subject)
    first = time.process_time()
    with subject.scope():
        block(1)
    called = time.process_time()
    gc.collect()
    return {
        "start_ms": (started - before) * 1e3,
        "start_mb": (after - memory) / 1e6,
        "first_call_ms": (called - first) * 1e3,
        "first_call_mb": (resident() - after) / 1e6,
    }


def memory(name: str) -> dict[str, float]:
    import subjects
    import workloads

    subject = subjects.SUBJECTS[name].start()
    block = workloads.WORKLOADS["chat"].prepare(subject)

    def calls(first: int, last: int) -> None:
        for number in range(first, last):
            with subject.scope(f"run-{number}"):
                block(1)
            if number % 1_000 == 0:
                subject.settle()
        subject.settle()
        gc.collect()

    calls(0, 5_000)  # until every cache is as large as it gets
    before, objects = resident(), len(gc.get_objects())
    calls(5_000, 15_000)
    return {"grown_mb": (resident() - before) / 1e6, "grown_objects": len(gc.get_objects()) - objects}


def main() -> None:
    mode, name, *wanted = sys.argv[1:]
    result: dict[str, Any] = {"subject": name, "mode": mode, "results": {}}
    try:
        if mode in ("startup", "memory"):
            result["results"][mode] = {"startup": startup, "memory": memory}[mode](name)
        else:
            import subjects
            from hops import HOPS
            from workloads import WORKLOADS

            table = {**WORKLOADS, **HOPS}

            subject = subjects.SUBJECTS[name].start()
            shim = ctypes.CDLL(os.environ["ATTRIBKIT_BENCH_SHIM"]) if mode == "instructions" else None
            for workload in [name for name in wanted if "failed" not in result]:
                result["failed"] = workload
                spans = subjects.EXPORTED.spans
                measured = timed(subject, table[workload]) if shim is None else counted(subject, table[workload], shim)
                subject.settle()
                result["results"][workload] = {**measured, "spans": subjects.EXPORTED.spans - spans}
                del result["failed"]
            result["rows"] = subject.written()
    except Exception as error:
        import traceback

        result["error"] = f"{type(error).__name__}: {error}"
        result["trace"] = traceback.format_exc()
    print(MARK + json.dumps(result), flush=True)
    os._exit(0)


main()
