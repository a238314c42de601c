"""`queue.SimpleQueue`, whose methods nobody can wrap: a type that stands for it."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from typing import Any

from attribkit.context import EMPTY
from attribkit.context import scope as in_variable
from attribkit.instrumentation.hops.queues.known import beside, lent, term
from attribkit.instrumentation.hops.queues.notes import note_attempt, note_got, note_put

__all__ = ["SimpleQueue", "replace_simple_queue"]

_Simple = queue.SimpleQueue
_STDLIB = ("concurrent.futures", "multiprocessing", "logging")


class _AlsoOlder(type):
    """`isinstance` holds for the instances that were made before, and for those that the standard library makes."""

    def __instancecheck__(cls, instance: object) -> bool:
        return type.__instancecheck__(cls, instance) or (cls is SimpleQueue and isinstance(instance, _Simple))


class SimpleQueue(_Simple, metaclass=_AlsoOlder):  # type: ignore[type-arg]
    """The type that stands for `queue.SimpleQueue`, whose own methods, of a C type, nobody can wrap."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is SimpleQueue:
            module = sys._getframe(1).f_globals.get("__name__")
            if isinstance(module, str) and module.startswith(_STDLIB):
                return _Simple(*args, **kwargs)
        return _Simple.__new__(cls, *args, **kwargs)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if _simple_on:
            note_put(self, item)
        _Simple.put(self, item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        if _simple_on:
            note_put(self, item)
        _Simple.put_nowait(self, item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        here = in_variable()
        if here is not EMPTY and _simple_on:
            note_attempt(self, False)
        item = _Simple.get(self, block, timeout)
        if (beside or lent or here is not EMPTY) and _simple_on:
            note_got(self, item, here)
        return item

    def get_nowait(self) -> Any:
        here = in_variable()
        if here is not EMPTY and _simple_on:
            note_attempt(self, False)
        item = _Simple.get_nowait(self)
        if (beside or lent or here is not EMPTY) and _simple_on:
            note_got(self, item, here)
        return item


SimpleQueue.__name__ = SimpleQueue.__qualname__ = "SimpleQueue"
SimpleQueue.__module__ = "queue"
_simple_on: list[None] = []


def replace_simple_queue() -> Callable[[], None]:
    """Let `queue.SimpleQueue` be a type of ours for the queues that are made from now on. Return what ends that."""
    _simple_on[:] = [None]
    if queue.SimpleQueue is _Simple:
        queue.SimpleQueue = SimpleQueue  # type: ignore[misc]

    def end() -> None:
        _simple_on.clear()
        term[0] = object()
        if queue.SimpleQueue is SimpleQueue:
            queue.SimpleQueue = _Simple  # type: ignore[misc]

    return end
