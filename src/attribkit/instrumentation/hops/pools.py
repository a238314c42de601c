"""multiprocessing's pools, of threads and of processes: every task takes along what is in force where it is given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from attribkit import faults
from attribkit.context import Scope, bound
from attribkit.instrumentation.hops.carried import captured, carried
from attribkit.instrumentation.patching import Patch

__all__ = ["executor", "patches"]

Call = tuple[tuple[Any, ...], dict[str, Any]]
_NONE: dict[str, Any] = {}


def _apply_async(
    scope: Scope, func: Any, args: Any = (), kwds: Any = _NONE, callback: Any = None, error_callback: Any = None
) -> Call:
    return (carried(scope, func), args, kwds, carried(scope, callback), carried(scope, error_callback)), {}


def _map_async(
    scope: Scope,
    func: Any,
    iterable: Any,
    mapper: Any,
    chunksize: Any = None,
    callback: Any = None,
    error_callback: Any = None,
) -> Call:
    callbacks = carried(scope, callback), carried(scope, error_callback)
    return (carried(scope, func), iterable, mapper, chunksize, *callbacks), {}


def _imap(scope: Scope, func: Any, iterable: Any, *args: Any, **kwargs: Any) -> Call:
    # a thread of the pool draws from the iterable
    drawn = iterable if isinstance(iterable, (list, tuple, range)) else bound(_drawn(iterable), scope)
    return (carried(scope, func), drawn, *args), kwargs


def _drawn(iterable: Iterable[Any]) -> Iterator[Any]:
    yield from iterable


def _initialised(scope: Scope, position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return a pool's arguments with its initializer, the one at `position` or of that name, bound to `scope`."""
    if len(args) > position:
        return (*args[:position], carried(scope, args[position]), *args[position + 1 :]), kwargs
    if "initializer" in kwargs:
        return args, {**kwargs, "initializer": carried(scope, kwargs["initializer"])}
    return args, kwargs


def executor(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make an executor of concurrent.futures whose initializer belongs to where it is made."""
    try:
        scope = captured()
        if scope is not None:
            args, kwargs = _initialised(scope, 2, args, kwargs)
    except Exception as fault:
        faults.note("pools.executor", fault)
    return wrapped(*args, **kwargs)


def patches(pool: Literal["ThreadPool", "Pool"], group: str) -> tuple[Patch, ...]:
    """Return the rows of one of the two classes. They share methods: a wrapper on `Pool` lets thread pools pass."""

    def row(method: str, rewritten: Callable[..., Call]) -> Patch:
        def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            try:
                of_threads = isinstance(instance, sys.modules["multiprocessing.pool"].ThreadPool)
                scope = captured() if of_threads == (pool == "ThreadPool") else None
                call = (args, kwargs) if scope is None else rewritten(scope, *args, **kwargs)
            except TypeError:  # a wrong call: it is told so by the pool
                call = args, kwargs
            except Exception as fault:
                faults.note(f"pools.{method}", fault)
                call = args, kwargs
            return wrapped(*call[0], **call[1])

        return Patch("multiprocessing.pool", f"{pool}.{method}", wrapper, group, "multiprocessing")

    def made(scope: Scope, *args: Any, **kwargs: Any) -> Call:
        return _initialised(scope, 1, args, kwargs)

    return (
        row("__init__", made),
        row("apply_async", _apply_async),
        row("_map_async", _map_async),
        row("imap", _imap),
        row("imap_unordered", _imap),
    )
