"""asyncio: the rows that run a coroutine in the scope in which it was made, and when they begin to find such ones."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt

from attribkit import context, faults
from attribkit.context import EMPTY, Scope
from attribkit.instrumentation.hops.scoped_threads import DEPTHS, Local, ScopedThread
from attribkit.instrumentation.patching import Patch, Standby
from attribkit.late import Late

if TYPE_CHECKING:
    from attribkit.instrumentation.hops import coroutines as rooms
    from attribkit.instrumentation.hops.coroutines import Coroutines
else:
    rooms = Late(f"{__package__}.coroutines")

__all__ = ["find_origins", "patches"]

_on: list[_Origins] = []
"""The one that is on, none before asyncio is imported."""
_awake: list[Coroutines] = []
"""What it has woken."""
_creating, _stepping = Standby(), Standby()
_PATIENCE = 1_000
"""Tasks that are created without a foreign coroutine in sight before the patch rests."""


def _tells() -> bool:
    """Return whether the youngest objects tell in which scope they were made: CPython's do, one thread at a time."""
    locked: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and locked() and "gevent" not in sys.modules


class _Origins:
    """What `context` asks in which scope coroutines were made, until the first scope comes in force: in none.

    Only then is the room loaded that finds it out. It is told of the threads in which loops have begun before.
    """

    def __init__(self, running_loop: Callable[[], object]) -> None:
        self._running_loop = running_loop
        self._here = Local()
        self._free = list(DEPTHS)
        self._waking = threading.RLock()
        self._ended = False
        self.awake: Coroutines | None = None

    def end(self) -> None:
        with self._waking:
            self._ended = True
        context.remember_origins(None)
        if self.awake is not None:
            self.awake.stop()

    def forked(self) -> None:
        self._waking = threading.RLock()

    def thread(self) -> ScopedThread:
        """Return the running thread."""
        if self.awake is not None:
            return self.awake.thread()
        thread = self._here.own
        if thread is None:
            thread = self._here.own = ScopedThread(self._free)
        return thread

    def _wake(self) -> Coroutines:
        room = rooms.Coroutines  # loaded while no lock is held that who loads it as well could wait for
        with self._waking:
            if self.awake is None:
                coroutines = room(_creating.wake, _steps_seen, self._here, self._free)
                if self.awake is None:  # a signal handler may have come between
                    self.awake = coroutines
                    if not self._ended:
                        _awake.append(coroutines)
                        coroutines.start()
            return self.awake

    def entered_loop(self) -> None:
        """A scope goes into a loop from another thread."""
        try:
            self._wake()
            _steps_seen()
        except Exception as fault:
            faults.note("coroutines.entered_loop", fault)

    def opened(self, scope: Scope, at_once: bool = False) -> object:
        try:
            return self._wake().opened(scope, at_once, sys._getframe(1))
        except Exception as fault:
            faults.note("coroutines.opened", fault)
            return None

    def closed(self, opening: Any) -> None:
        if self.awake is not None:
            self.awake.closed(opening)

    def moved(self) -> None:
        if self.awake is None and (self._here.own is None or context.scope() is EMPTY or self._running_loop() is None):
            return
        try:
            self._wake().moved()
        except Exception as fault:
            faults.note("coroutines.moved", fault)

    def resolved(self, here: Scope) -> Scope:
        if self.awake is not None:
            return self.awake.resolved(here)
        if self._running_loop() is not None:
            self.thread()
        return here

    def placed(self, scope: Scope) -> Scope:
        return scope if self.awake is None else self.awake.placed(scope)

    def settled(self, work: object) -> None:
        if self.awake is not None:
            self.awake.settled(work)


def find_origins() -> Callable[[], None]:
    """Find out where coroutines were made, from when asyncio is imported. Return what ends that."""
    wanted = [True]

    def imported(module: Any) -> None:
        if wanted and _tells():
            origins = _Origins(module._get_running_loop)
            context.remember_origins(origins)
            _on.append(origins)

    def end() -> None:
        wanted.clear()
        _awake.clear()
        while _on:
            _on.pop().end()

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
            if scope is not thread.scope and _awake:
                _awake[0].step(scope)
        return original(handle)

    return run


def _run_forever(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not _on:
        return wrapped(*args, **kwargs)
    origins = _on[0]
    instance._attribkit_thread = origins.thread()
    if origins.awake is not None:
        origins.awake.begun()
    try:
        return wrapped(*args, **kwargs)
    finally:
        instance._attribkit_thread = None
        if origins.awake is not None:
            origins.awake.ended()


def _from_thread(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A thread hands something to a loop of another: a scope can come in that was not opened in any loop."""
    if not _stepping.on and _on and getattr(args[0] if args else None, "__module__", "") != "asyncio.futures":
        given = kwargs.get("context")
        scope = context.scope() if given is None else context.scope_of(given)
        if scope is not EMPTY:
            _on[0].entered_loop()
    return wrapped(*args, **kwargs)


def _forked() -> None:
    _creating.forked()
    _stepping.forked()
    for origins in _on:
        origins.forked()
    for coroutines in _awake:
        coroutines.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _create_task(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not _awake:
        return wrapped(*args, **kwargs)
    coroutines = _awake[0]
    if coroutines.made or coroutines.mixed() or kwargs.get("context") is not None:
        coroutines.idle = 0
        return coroutines.create_task(wrapped, instance, args, kwargs)
    coroutines.idle += 1
    if coroutines.idle > _PATIENCE:
        _creating.rest(lambda: bool(coroutines.made) or coroutines.mixed())
    return wrapped(*args, **kwargs)


def _to_thread(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _awake and _awake[0].made:
        return _awake[0].run_in_thread(wrapped, instance, args, kwargs)
    return wrapped(*args, **kwargs)


def patches() -> tuple[Patch, ...]:
    """Return the rows of asyncio and anyio."""
    return (
        Patch(
            "asyncio", "base_events.BaseEventLoop.create_task", _create_task, "asyncio", "asyncio", standby=_creating
        ),
        Patch("asyncio", "events.Handle._run", _step, "asyncio", "asyncio", standby=_stepping, replaces=True),
        Patch("asyncio", "base_events.BaseEventLoop.run_forever", _run_forever, "asyncio", "asyncio"),
        Patch(
            "asyncio", "base_events.BaseEventLoop.call_soon_threadsafe", _from_thread, "asyncio", "asyncio", hot=True
        ),
        Patch("asyncio", "to_thread", _to_thread, "asyncio", "asyncio"),
        Patch("anyio.to_thread", "run_sync", _to_thread, "asyncio", "anyio"),
    )
