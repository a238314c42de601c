"""asyncio: the rows that run a coroutine in the scope in which it was made, and when they begin to find such ones."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt

from attribkit import context
from attribkit.instrumentation.patching import Patch, Standby

if TYPE_CHECKING:
    from attribkit.instrumentation.hops.coroutines import Coroutines

__all__ = ["find_origins", "patches"]

_on: list[Coroutines] = []
"""The one that is on, none before asyncio is imported."""
_creating, _stepping = Standby(), Standby()
_PATIENCE = 1_000
"""Tasks that are created without a foreign coroutine in sight before the patch rests."""


def _tells() -> bool:
    """Return whether the youngest objects tell in which scope they were made: CPython's do, one thread at a time."""
    locked: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and locked() and "gevent" not in sys.modules


def find_origins() -> Callable[[], None]:
    """Find out where coroutines were made, from when asyncio is imported. Return what ends that."""
    wanted = [True]

    def imported(module: Any) -> None:
        if wanted and _tells():
            from attribkit.instrumentation.hops.coroutines import Coroutines

            coroutines = Coroutines(_creating.wake, _steps_seen)
            coroutines.start()
            _on.append(coroutines)

    def end() -> None:
        wanted.clear()
        while _on:
            _on.pop().stop()

    wrapt.register_post_import_hook(imported, "asyncio")
    return end


def _steps_seen() -> bool:
    """Have the steps of loops seen from the first scope on, and return whether they are."""
    if not _stepping.on:
        _stepping.wake()
    return _stepping.on


def _step(original: Callable[[Any], None], switch: list[None]) -> Callable[[Any], None]:
    """Say in which scope a loop goes on with the next callback, or the next step of a task."""
    scope_of = context.scope_of

    @functools.wraps(original)
    def run(handle: Any) -> None:
        try:
            thread = handle._loop._attribkit_thread
        except AttributeError:  # it was running before anything was patched, and no scope has been opened in it
            thread = None
        if thread is not None:
            thread.step += 1
            scope = scope_of(handle._context)
            if scope is not thread.scope and _on:
                _on[0].step(scope)
        return original(handle)

    return run


def _run_forever(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not _on:
        return wrapped(*args, **kwargs)
    coroutines = _on[0]
    instance._attribkit_thread = coroutines.thread()
    coroutines.begun()
    try:
        return wrapped(*args, **kwargs)
    finally:
        instance._attribkit_thread = None
        coroutines.ended()


def _forked() -> None:
    _creating.forked()
    _stepping.forked()
    for coroutines in _on:
        coroutines.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _create_task(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not _on:
        return wrapped(*args, **kwargs)
    coroutines = _on[0]
    if coroutines.made or coroutines.mixed() or kwargs.get("context") is not None:
        coroutines.idle = 0
        return coroutines.create_task(wrapped, instance, args, kwargs)
    coroutines.idle += 1
    if coroutines.idle > _PATIENCE:
        _creating.rest(lambda: bool(coroutines.made) or coroutines.mixed())
    return wrapped(*args, **kwargs)


def _to_thread(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _on and _on[0].made:
        return _on[0].run_in_thread(wrapped, instance, args, kwargs)
    return wrapped(*args, **kwargs)


def patches() -> tuple[Patch, ...]:
    """Return the rows of asyncio and anyio."""
    return (
        Patch(
            "asyncio", "base_events.BaseEventLoop.create_task", _create_task, "asyncio", "asyncio", standby=_creating
        ),
        Patch("asyncio", "events.Handle._run", _step, "asyncio", "asyncio", standby=_stepping, replaces=True),
        Patch("asyncio", "base_events.BaseEventLoop.run_forever", _run_forever, "asyncio", "asyncio"),
        Patch("asyncio", "to_thread", _to_thread, "asyncio", "asyncio"),
        Patch("anyio.to_thread", "run_sync", _to_thread, "asyncio", "anyio"),
    )
