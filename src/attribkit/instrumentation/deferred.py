"""Work that is made in one place and asks in another: like a coroutine, it is for whoever it was made for."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

from attribkit import faults
from attribkit.context import Scope, bound, carry, in_force, restored

__all__ = ["iterates", "streams", "streams_async", "when_entered"]

_STREAMS = (types.GeneratorType, types.AsyncGeneratorType)
_MANAGER: Any = contextlib._GeneratorContextManager


def _kept(made: Any) -> Any:
    """Bind a generator, or a context manager that is made of one, to what is in force."""
    try:
        inner = made.gen if isinstance(made, _MANAGER) else made
        if isinstance(inner, _STREAMS):
            here = in_force()
            if here.attribution:
                if inner is made:
                    return bound(made, here)
                made.gen = bound(inner, here)
    except Exception as fault:
        faults.note("deferred", fault)
    return made


def streams(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around a function whose result asks at its first step, or where it is entered."""
    return _kept(wrapped(*args, **kwargs))


async def streams_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same around a coroutine function."""
    return _kept(await wrapped(*args, **kwargs))


def when_entered(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around the `__init__` of a context manager whose first argument asks, and is called where it is entered."""
    try:
        here = in_force()
        if args and callable(args[0]) and here.attribution:
            args = (_asking(args[0], here), *args[1:])
    except Exception as fault:
        faults.note("deferred", fault)
    return wrapped(*args, **kwargs)


def _asking(ask: Callable[..., Any], made: Scope) -> Callable[..., Any]:
    """Return `ask` for the scope in which it was made, where another is in force."""
    if inspect.iscoroutinefunction(ask):
        asking: Callable[..., Any] = carry(ask)
        return asking

    @functools.wraps(ask)
    def where_it_is(*args: Any, **kwargs: Any) -> Any:
        if in_force().attribution == made.attribution:
            return ask(*args, **kwargs)
        with restored(Scope(made.attribution, "carried", None, None, made.since)):
            return ask(*args, **kwargs)

    return where_it_is


def iterates(attribute: str) -> Callable[..., Any]:
    """Around the `__init__` of an object that holds a generator in `attribute`."""

    def made(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wrapped(*args, **kwargs)
        setattr(instance, attribute, _kept(getattr(instance, attribute)))

    return made
