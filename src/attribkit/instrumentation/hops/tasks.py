"""asyncio: the rows that run a coroutine in the scope in which it was made, and when they begin to find such ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt

from attribkit.instrumentation.patching import Patch, Standby

if TYPE_CHECKING:
    from attribkit.instrumentation.hops.coroutines import Coroutines

__all__ = ["find_origins", "patches"]

_on: list[Coroutines] = []
"""The one that is on, none before asyncio is imported."""
_creating = Standby()
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

            coroutines = Coroutines(_creating.wake)
            coroutines.start()
            _on.append(coroutines)

    def end() -> None:
        wanted.clear()
        while _on:
            _on.pop().stop()

    wrapt.register_post_import_hook(imported, "asyncio")
    return end


def _forked() -> None:
    _creating.forked()
    for coroutines in _on:
        coroutines.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _create_task(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not _on:
        return wrapped(*args, **kwargs)
    coroutines = _on[0]
    if coroutines.made:
        coroutines.idle = 0
        return coroutines.create_task(wrapped, instance, args, kwargs)
    coroutines.idle += 1
    if coroutines.idle > _PATIENCE:
        _creating.rest(lambda: bool(coroutines.made))
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
        Patch("asyncio", "to_thread", _to_thread, "asyncio", "asyncio"),
        Patch("anyio.to_thread", "run_sync", _to_thread, "asyncio", "anyio"),
    )
