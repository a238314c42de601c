"""Threads: what is in force where a thread is started, or work is given to a pool, is in force around that work.

Pool threads themselves serve everybody, so they start with nothing in force, whoever's work brought them to life.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from attribkit import faults
from attribkit.context import EMPTY, Scope, bound, enter, reset, restored
from attribkit.instrumentation.hops import pools
from attribkit.instrumentation.hops.carried import captured, carried, remembers, started, unowned
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]


_SERVES_ALL = frozenset(
    {
        "concurrent.futures.thread._worker",
        "multiprocessing.pool.worker",
        "multiprocessing.pool.Pool._handle_workers",
        "multiprocessing.pool.Pool._handle_tasks",
        "multiprocessing.pool.Pool._handle_results",
        "multiprocessing.queues.Queue._feed",
    }
)
"""Targets of threads that pools and queues start for work of any owner."""

_SERVES_ALL_CLASSES = frozenset(
    {"concurrent.futures.process._ExecutorManagerThread", "anyio._backends._asyncio.WorkerThread"}
)


def _serves_all(thread: Any) -> bool:
    target = getattr(thread, "_target", None)
    kind = type(thread)
    return (
        f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}" in _SERVES_ALL
        or f"{kind.__module__}.{kind.__qualname__}" in _SERVES_ALL_CLASSES
    )


# -- threading.Thread -------------------------------------------------------------------------------------------------


def _start(wrapped: Any, thread: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        scope, shared = started(thread), _serves_all(thread)
    except Exception as fault:
        faults.note("threads.start", fault)
        return wrapped(*args, **kwargs)
    if shared:
        if getattr(sys.flags, "thread_inherit_context", 0):
            return unowned().run(wrapped, *args, **kwargs)
        return wrapped(*args, **kwargs)
    if scope is None:
        return wrapped(*args, **kwargs)
    if hasattr(thread, "_context"):
        return _start_in_context(wrapped, thread, scope)
    # Whatever the thread's class overrides, it begins in `_bootstrap`; a frame there is in none of its tracebacks.
    thread.__dict__["_bootstrap"] = functools.partial(_bootstrapped, scope, thread._bootstrap)
    try:
        return wrapped(*args, **kwargs)
    finally:
        thread.__dict__.pop("_bootstrap", None)


def _bootstrapped(scope: Scope, bootstrap: Callable[[], Any]) -> None:
    enter(scope)
    bootstrap()


def _start_in_context(wrapped: Any, thread: Any, scope: Scope) -> Any:
    """Start a thread of Python 3.14, which runs in a context that is its own, or that the app has given it."""
    given = thread._context
    if given is None:
        inherits = getattr(sys.flags, "thread_inherit_context", 0)
        thread._context = contextvars.copy_context() if inherits else contextvars.Context()
        thread._context.run(enter, scope)
    try:
        return wrapped()
    except BaseException:
        thread._context = given
        raise


def _start_new(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`_thread.start_new_thread` itself; `threading` has a name of its own for it."""
    scope = captured()
    if scope is not None and args:
        args = (carried(scope, args[0]), *args[1:])
    return wrapped(*args, **kwargs)


# -- sched.scheduler --------------------------------------------------------------------------------------------------


def _scheduled(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    scope = captured()
    if scope is not None:
        if len(args) > 2:
            args = (*args[:2], carried(scope, args[2]), *args[3:])
        elif "action" in kwargs:
            kwargs = {**kwargs, "action": carried(scope, kwargs["action"])}
    return wrapped(*args, **kwargs)


# -- concurrent.futures.ThreadPoolExecutor ----------------------------------------------------------------------------


_PLAIN = "self", "future", "fn", "args", "kwargs"


def _carrying(base: type[Any], switch: list[None]) -> type[Any]:
    """Return the work item that runs in the scope in which it was made.

    It stands in for the original, because a submit is cheap enough for a wrapper to show. The frame that enters the
    scope is below the one that catches what the work raises, so it is in no traceback.
    """

    class _WorkItem(base):  # type: ignore[misc]  # no slots: with them Python 3.13 gives it a dict apart
        def __init__(self, *args: Any) -> None:
            base.__init__(self, *args)
            self.scope = captured() if switch else None

        def run(self, *args: Any) -> None:
            scope = self.scope
            if scope is None:
                base.run(self, *args)
                return
            token = enter(scope)
            try:
                base.run(self, *args)
            finally:
                reset(token)

    class _PlainWorkItem(base):  # type: ignore[misc]
        """The same in fewer steps, for what a work item is until Python 3.13."""

        def __init__(self, future: Any, fn: Any, args: Any, kwargs: Any) -> None:
            self.future = future
            self.fn = fn
            self.args = args
            self.kwargs = kwargs
            self.scope = captured() if switch else None

        def run(self) -> None:
            scope = self.scope
            if scope is None:
                base.run(self)
                return
            token = enter(scope)
            try:
                base.run(self)
            finally:
                reset(token)

    plain = isinstance(base.__init__, types.FunctionType) and base.__init__.__code__.co_varnames == _PLAIN
    item = _PlainWorkItem if plain and base.run.__code__.co_argcount == 1 else _WorkItem
    item.__name__, item.__qualname__, item.__module__ = base.__name__, base.__qualname__, base.__module__
    return item


def _map(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Executor.map of Python 3.14 submits further work while its results are read, if it has a buffer size."""
    results = wrapped(*args, **kwargs)
    if kwargs.get("buffersize") is None:
        return results
    scope = captured()
    return results if scope is None else bound(results, scope)


def _add_done_callback(wrapped: Any, future: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) == 1 and not kwargs and callable(args[0]):
        args = (functools.partial(_called, captured() or EMPTY, args[0]),)
    return wrapped(*args, **kwargs)


def _called(scope: Scope, callback: Callable[[Any], object], future: Any) -> None:
    with restored(scope):
        callback(future)


def patches() -> tuple[Patch, ...]:
    """Return the rows of the group `threads`."""

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(module, path, wrapper, "threads", module.partition(".")[0])

    later = (row("concurrent.futures._base", "Executor.map", _map),) if sys.version_info >= (3, 14) else ()
    return (
        row("threading", "Thread.__init__", remembers("threads.made")),
        row("threading", "Thread.start", _start),
        row("_thread", "start_new_thread", _start_new),
        row("_thread", "start_new", _start_new),
        row("sched", "scheduler.enterabs", _scheduled),
        Patch("concurrent.futures.thread", "_WorkItem", _carrying, "threads", "concurrent", replaces=True),
        row("concurrent.futures.thread", "ThreadPoolExecutor.__init__", pools.executor),
        row("concurrent.futures._base", "Future.add_done_callback", _add_done_callback),
        *later,
        *pools.patches("ThreadPool", "threads"),
    )
