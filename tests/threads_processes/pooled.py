"""Process pools and processes, as a program of its own: `pooled.py BASE_URL METHOD PROGRAM`; prints the prompts.

Children that start from scratch import this file anew, and instrument themselves as it says at the top.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.context import BaseContext

from owners import TENANTS, post, scope  # beside this file

import attribkit

URL = os.environ["POOLED_BASE_URL"]
attribkit.instrument(gateways={URL: "portkey"}, ledger=None)


def call(prompt: str) -> str:
    return post(URL, prompt)


def who() -> str | None:
    return attribkit.current().tenant_id


def executor(context: BaseContext) -> list[str]:
    """The workers are brought to life by the first tenant."""
    futures = []
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        for tenant in TENANTS:
            with scope(tenant):
                futures.append(pool.submit(call, f"{tenant}: submit"))
                futures.append(pool.submit(call, prompt=f"{tenant}: by name"))
                mapped = pool.map(call, [f"{tenant}: m{n}" for n in range(3)], chunksize=2, timeout=60)
            assert len(list(mapped)) == 3
        with scope("acme"):
            names = pool.submit(dict, self=1, function=2, scope=3).result()
        assert names == {"self": 1, "function": 2, "scope": 3}
        futures.append(pool.submit(call, "nobody: submit"))
        assert all(future.result() for future in as_completed(futures))
        assert pool.submit(who).result() is None
    kinds = "submit", "by name", "m0", "m1", "m2"
    return ["nobody: submit", *(f"{tenant}: {kind}" for tenant in TENANTS for kind in kinds)]


def initializer(context: BaseContext) -> list[str]:
    with scope("acme"):
        pool = ProcessPoolExecutor(1, context, call, ("acme: warm up",))
        pool.submit(int).result()
    with pool, scope("globex"):
        pool.submit(call, "globex: q").result()
    return ["acme: warm up", "globex: q"]


def one_task_a_child(context: BaseContext) -> list[str]:
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for tenant in TENANTS:
            with scope(tenant):
                future = pool.submit(call, f"{tenant}: q")
            future.result()
        pool.submit(call, "nobody: q").result()
    return ["acme: q", "globex: q", "nobody: q"]


def process(context: BaseContext) -> list[str]:
    Process, started = getattr(context, "Process"), []  # noqa: B009
    for tenant in TENANTS:
        with scope(tenant):
            started.append(Process(target=call, args=(f"{tenant}: q",)))
            started[-1].start()
            started.append(WORKERS[context.get_start_method()](f"{tenant}: subclass"))
            started[-1].start()
            started.append(Process(target=call, args=(f"{tenant}: later",)))
    started.append(Process(target=call, args=("nobody: q",)))
    for each in started:
        if each.pid is None:
            each.start()
        each.join()
        assert each.exitcode == 0
    return ["nobody: q", *(f"{tenant}: {kind}" for tenant in TENANTS for kind in ("q", "subclass", "later"))]


class Prompted:
    def __init__(self, prompt: str) -> None:
        super().__init__()
        self.prompt = prompt

    def run(self) -> None:
        call(self.prompt)


class ForkWorker(Prompted, multiprocessing.get_context("fork").Process):  # type: ignore[misc,name-defined]
    pass


class SpawnWorker(Prompted, multiprocessing.get_context("spawn").Process):  # type: ignore[misc,name-defined]
    pass


class ForkServerWorker(Prompted, multiprocessing.get_context("forkserver").Process):  # type: ignore[misc,name-defined]
    pass


WORKERS = {"fork": ForkWorker, "spawn": SpawnWorker, "forkserver": ForkServerWorker}


def pool(context: BaseContext) -> list[str]:
    done = []
    with scope("acme"):
        workers = context.Pool(1, maxtasksperchild=6)
        workers.apply(int)
    results = []
    for tenant in TENANTS:
        with scope(tenant):
            workers.apply(call, (f"{tenant}: apply",))
            results += [
                workers.apply_async(call, (f"{tenant}: async",), callback=lambda _, t=tenant: done.append((t, who()))),
                workers.map_async(call, [f"{tenant}: m{n}" for n in range(2)]),
                workers.imap(call, iter([f"{tenant}: i{n}" for n in range(2)])),
                workers.imap_unordered(call, (f"{tenant}: u{n}" for n in range(2)), chunksize=2),
            ]
            workers.starmap(call, [(f"{tenant}: star",)])
    workers.apply(call, ("nobody: apply",))
    for result in results:
        assert result.get() if hasattr(result, "get") else list(result)
    assert workers.map(_who, range(2)) == [None, None]
    workers.close()
    workers.join()
    assert sorted(done) == [("acme", "acme"), ("globex", "globex")]
    kinds = ("apply", "async", "m0", "m1", "i0", "i1", "u0", "u1", "star")
    return ["nobody: apply", *(f"{tenant}: {kind}" for tenant in TENANTS for kind in kinds)]


def _who(_: int) -> str | None:
    return who()


def run_in_executor(context: BaseContext) -> list[str]:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, mp_context=context) as workers:
            jobs = []
            for tenant in TENANTS:
                with scope(tenant):
                    jobs.append(loop.run_in_executor(workers, call, f"{tenant}: q"))
            await asyncio.gather(*jobs)

    asyncio.run(main())
    return ["acme: q", "globex: q"]


def grandchildren(context: BaseContext) -> list[str]:
    with scope("acme"):
        child = context.Process(target=_pool_inside, args=(context.get_start_method(),))
        child.start()
    child.join()
    assert child.exitcode == 0
    return ["acme: inner", "globex: inner"]


def _pool_inside(method: str) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as inner:
        inner.submit(call, "acme: inner").result()
        with scope("globex"):
            inner.submit(call, "globex: inner").result()
        assert inner.submit(who).result() == "acme"


def failures(context: BaseContext) -> list[str]:
    """What cannot be pickled, and what the work raises, is what it was."""

    def texts(tenant: str | None) -> list[str]:
        found = []
        for work, argument in ((lambda: None, None), (int, "x"), (os.kill, "x"), (len, lambda: None)):
            for submit in (workers.submit, lambda *a: pooled.apply_async(a[0], a[1:])):
                with scope(tenant):
                    future = submit(work) if argument is None else submit(work, argument)
                try:
                    future.result() if hasattr(future, "result") else future.get()
                except Exception as error:
                    found.append(f"{type(error).__name__}: {error}".split(" at 0x")[0])
        return found

    with ProcessPoolExecutor(1, mp_context=context) as workers, context.Pool(1) as pooled:
        bare = texts(None)
        assert len(bare) == 8
        assert texts("acme") == bare
    return []


if __name__ == "__main__":
    for name in sys.argv[2:]:
        for prompt in globals()[name](multiprocessing.get_context(sys.argv[1])):
            print(prompt)
