"""Processes: pools and children, forked and spawned, and child programs that find their tenant in the environment."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from attribkit.context import attributed
from attribkit.verify.asking import answer, warm
from attribkit.verify.lab import Lab, NotHere
from attribkit.verify.probe import Group
from attribkit.verify.start import start

__all__ = ["GROUP"]

GROUP = Group(
    "processes",
    "processes",
    needs=("openai>=1.40",),
    extra="openai",
    relies=("openai",),
    remedy="put attribkit.inject({}) into what you hand over, and open attribkit.extract() of it in the child",
    prepare=warm,
)
_PROGRAM = """
import sys
from attribkit.verify.start import start
start()
from attribkit.verify.asking import answer
answer(sys.argv[1])
"""


def _started() -> None:
    """What an app's initializer does in a process that starts from nothing: attribkit.instrument(...)."""
    start()


def _asked_there(prompt: str) -> Any:
    """What an app's child does that starts from nothing."""
    start()
    return answer(prompt)


def _context(method: str) -> Any:
    if method not in multiprocessing.get_all_start_methods():
        raise NotHere(f"this system has no start method {method}")
    return multiprocessing.get_context(method)


@GROUP.probe("ProcessPoolExecutor, fork, made in a scope", soak=False)
def pool_fork(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields), ProcessPoolExecutor(1, mp_context=_context("fork")) as pool:
        list(pool.map(answer, [tenant.ask(), tenant.ask()]))


@GROUP.probe("ProcessPoolExecutor, fork, shared by tenants", relies=("processes",), soak=False)
def pool_fork_shared(lab: Lab) -> None:
    with ProcessPoolExecutor(1, mp_context=_context("fork")) as pool:
        futures = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                futures += [pool.submit(answer, tenant.ask()) for _ in range(2)]
        for future in futures:
            future.result()


@GROUP.probe("ProcessPoolExecutor, spawn, shared by tenants", relies=("processes",))
def pool_spawn(lab: Lab) -> None:
    with ProcessPoolExecutor(1, mp_context=_context("spawn"), initializer=_started) as pool:
        futures = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                futures.append(pool.submit(answer, tenant.ask()))
        for future in futures:
            future.result()


@GROUP.probe("ProcessPoolExecutor through run_in_executor", relies=("processes",), soak=False)
async def pool_in_executor(lab: Lab) -> None:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=_context("fork")) as pool:
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                await loop.run_in_executor(pool, answer, tenant.ask())


@GROUP.probe("multiprocessing.Pool, fork, shared by tenants", relies=("processes",), soak=False)
def multiprocessing_pool(lab: Lab) -> None:
    with _context("fork").Pool(1) as pool:
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                pool.map(answer, [tenant.ask()])
                pool.apply(answer, (tenant.ask(),))
        pool.close()
        pool.join()


@GROUP.probe("Process, fork", soak=False)
def process_fork(lab: Lab) -> None:
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            child = _context("fork").Process(target=answer, args=(tenant.ask(),))
            child.start()
        child.join()


@GROUP.probe("Process, spawn", relies=("processes",))
def process_spawn(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        child = _context("spawn").Process(target=_asked_there, args=(tenant.ask(),))
        child.start()
    child.join()


@GROUP.probe("Process, forkserver", relies=("processes",))
def process_forkserver(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        child = _context("forkserver").Process(target=_asked_there, args=(tenant.ask(),))
        child.start()
    child.join()


@GROUP.probe("a child Python program", relies=("processes",))
def program(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        subprocess.run([sys.executable, "-c", _PROGRAM, tenant.ask()], check=True)


@GROUP.probe("a child Python program, asyncio, with an environment of its own", relies=("processes",))
async def program_async(lab: Lab) -> None:
    import os

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, tenant.ask(), env={**os.environ, "APP_MODE": "batch"}
        )
    await child.wait()
