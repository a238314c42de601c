"""Processes: a task takes along what is in force where it is given to a pool, a process where it is started.

Pool workers serve everybody: they start with nothing in force, although a fork would inherit what is.
"""

from __future__ import annotations

from typing import Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.context import Scope, enter
from attribkit.instrumentation.hops import pools, programs
from attribkit.instrumentation.hops.carried import captured, carried, remembers, started, unowned
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]


_SERVES_ALL = frozenset(
    {
        "concurrent.futures.process._process_worker",
        "multiprocessing.pool.worker",
        "multiprocessing.managers.BaseManager._run_server",
        "loky.process_executor._process_worker",
        "joblib.externals.loky.process_executor._process_worker",
    }
)
"""Targets of processes that are started for work of any owner."""


# -- multiprocessing.Process ------------------------------------------------------------------------------------------


class _Bootstrap:
    """Stands for a process's `_bootstrap`, where the child begins, and is pickled with it if need be."""

    __slots__ = ("fields", "process")

    def __init__(self, fields: tuple[tuple[str, str], ...], process: Any) -> None:
        self.fields = fields
        self.process = process

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.process.__dict__.pop("_bootstrap", None)
        enter(Scope(Attribution(self.fields), "carried"))
        return self.process._bootstrap(*args, **kwargs)


def _start(wrapped: Any, process: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        scope = started(process)
        target = getattr(process, "_target", None)
        shared = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}" in _SERVES_ALL
        everybodys = unowned() if shared else None
    except Exception as fault:
        faults.note("processes.start", fault)
        return wrapped(*args, **kwargs)
    if everybodys is not None:
        return everybodys.run(wrapped, *args, **kwargs)
    if scope is None:
        return wrapped(*args, **kwargs)
    process.__dict__["_bootstrap"] = _Bootstrap(scope.attribution.fields, process)
    try:
        return wrapped(*args, **kwargs)
    finally:
        process.__dict__.pop("_bootstrap", None)


# -- concurrent.futures.ProcessPoolExecutor ---------------------------------------------------------------------------


def _work_item(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        scope = captured()
        if scope is not None and len(args) > 1:
            args = (args[0], carried(scope, args[1]), *args[2:])
    except Exception as fault:
        faults.note("processes.submit", fault)
    return wrapped(*args, **kwargs)


async def _run_sync(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        scope = captured()
        if scope is not None and args:
            args = (carried(scope, args[0]), *args[1:])
    except Exception as fault:
        faults.note("processes.run_sync", fault)
    return await wrapped(*args, **kwargs)


def patches(key: bytes | None) -> tuple[Patch, ...]:
    """Return the rows of the group `processes`; `key` signs what child programs are told."""

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(module, path, wrapper, "processes", module.partition(".")[0])

    return (
        row("multiprocessing.process", "BaseProcess.__init__", remembers("processes.made")),
        row("multiprocessing.process", "BaseProcess.start", _start),
        row("concurrent.futures.process", "_WorkItem", _work_item),
        row("concurrent.futures.process", "ProcessPoolExecutor.__init__", pools.executor),
        *pools.patches("Pool", "processes"),
        row("anyio.to_process", "run_sync", _run_sync),
        *programs.patches(key),
    )
