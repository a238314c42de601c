"""The standard library's queues: their patch rows."""

from __future__ import annotations

import functools
import queue
import sys
from contextvars import Context
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.context import EMPTY
from attribkit.context import scope as in_variable
from attribkit.instrumentation.hops.queues.known import beside, creating, lasting, lent
from attribkit.instrumentation.hops.queues.notes import note_attempt, note_got, note_put
from attribkit.instrumentation.hops.queues.simple import SimpleQueue
from attribkit.instrumentation.patching import Patch, Standby
from attribkit.late import Late

if TYPE_CHECKING:
    from attribkit.instrumentation.hops.queues import claims, deliveries
else:
    claims, deliveries = Late(f"{__package__}.claims"), Late(f"{__package__}.deliveries")

__all__ = ["patches"]

_PATIENCE = 1_000
_idle = [0]
"""Tasks that were created with no item in force anywhere since the last one that was."""


def _put(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    item = args[0] if args else kwargs.get("item")
    there = note_put(instance, item)
    if there is None:
        return wrapped(*args, **kwargs)
    try:
        return wrapped(*args, **kwargs)
    except BaseException:
        there.undo(item)
        raise


def _get(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = in_variable()
    if here is not EMPTY:
        note_attempt(instance, False)
    item = wrapped(*args, **kwargs)
    if beside or lent or here is not EMPTY:
        return note_got(instance, item, here)
    return item


def _popped(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`LifoQueue._get`: what comes out."""
    item = wrapped(*args, **kwargs)
    try:
        claims.beside_of(instance).came_out(item)
    except Exception as fault:
        faults.note("queues.popped", fault)
    return item


def _get_later(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if in_variable() is not EMPTY:
        note_attempt(instance, True)
    return wrapped(*args, **kwargs)


def _begins(of: Context | None) -> None:
    """A task or a thread is about to begin in a copy of the context here, or in the context `of`."""
    try:
        deliveries.begins(of)
    except Exception as fault:
        faults.note("queues.begins", fault)


def _create_task(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A task copies what its creator has in force, after the last item of a consumer that has ended too."""
    if lasting:
        _idle[0] = 0
        _begins(kwargs.get("context"))
    else:
        _idle[0] += 1
        if _idle[0] > _PATIENCE:
            creating.rest(lambda: bool(lasting))
    return wrapped(*args, **kwargs)


def _in_executor(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`run_in_executor(None, queue.get)` and `to_thread(queue.get)`: the item goes to the task that awaits it."""
    function = args[1] if len(args) > 1 else kwargs.get("func")
    if lasting:
        runner = getattr(function, "func", None)
        of_work = getattr(runner, "__self__", None)
        _begins(of_work if type(of_work) is Context else None)
    of = _got_from(function)
    if of is None or function is None:
        return wrapped(*args, **kwargs)
    try:
        get, awaited = deliveries.for_waiter(of, function, instance)
    except Exception as fault:
        faults.note("queues.executor", fault)
        return wrapped(*args, **kwargs)
    future = wrapped(args[0], get, *args[2:], **kwargs) if len(args) > 1 else wrapped(*args, **{**kwargs, "func": get})
    awaited(future)
    return future


def _got_from(function: Any) -> Any:
    """Return the queue whose `get` is to be called, None for any other function."""
    while isinstance(function, functools.partial):
        inner = function.func
        carried = getattr(inner, "__name__", None) == "run" and type(getattr(inner, "__self__", None)) is Context
        function = function.args[0] if carried and function.args else inner
    if getattr(function, "__name__", None) in ("get", "get_nowait"):
        of = getattr(function, "__self__", None)
        of_processes = sys.modules.get("multiprocessing.queues")
        kinds = (of_processes.Queue, of_processes.SimpleQueue) if of_processes is not None else ()
        return of if isinstance(of, (queue.Queue, SimpleQueue, *kinds)) else None
    return None


def patches() -> tuple[Patch, ...]:
    """Return the rows of the standard library's queues."""

    def row(module: str, path: str, wrapper: Any, *, hot: bool = True, standby: Standby | None = None) -> Patch:
        return Patch(module, path, wrapper, "queues", module.partition(".")[0], hot=hot, standby=standby)

    return (
        row("queue", "Queue.put", _put),
        row("queue", "Queue.get", _get),
        row("queue", "LifoQueue._get", _popped),
        row("asyncio.queues", "LifoQueue._get", _popped),
        row("asyncio.base_events", "BaseEventLoop.run_in_executor", _in_executor),
        row("asyncio.queues", "Queue.put_nowait", _put),
        row("asyncio.base_events", "BaseEventLoop.create_task", _create_task, standby=creating),
        row("asyncio.queues", "Queue.get", _get_later, hot=False),  # it stays a coroutine function
        row("asyncio.queues", "Queue.get_nowait", _get),
    )
