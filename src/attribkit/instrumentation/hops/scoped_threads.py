"""The threads in which scopes are open and loops run, and the numbers by which what they make is told apart."""

from __future__ import annotations

import threading
from heapq import heappush
from typing import Any

from attribkit.context import EMPTY, Scope

__all__ = ["DEPTHS", "Local", "ScopedThread"]

DEPTHS = (*range(1, 10), *range(11, 25))
"""Frames recorded for a coroutine that is made in a scope: a number for each thread in which one is open, where the
stack has as many frames. asyncio's debug mode records 10."""


class ScopedThread:
    """One thread in which scopes have been open."""

    __slots__ = ("blind", "first", "free", "looked", "mixed", "number", "numbered", "opened", "scope", "step", "unseen")

    def __init__(self, free: list[int]) -> None:
        self.free = free
        """The numbers that no thread has."""
        self.first: object = None
        """The tenant of the first scope in which it went on after it looked at what was made."""
        self.mixed = False
        """True if it has been in another's since."""
        self.looked = False
        """True if it looked at what was made when it asked last, in a loop, in which scope it was."""
        self.scope: Scope = EMPTY
        """The one that it was seen in last."""
        self.step = 0
        """Counts the steps of its loop."""
        self.number = 0
        """How many frames are recorded in it. 0: it has no number."""
        self.numbered = 0
        """`context.opened_so_far()` when it got that number."""
        self.opened = 0
        """How many scopes are open that were opened in it."""
        self.blind = 0
        """How many of those in which nothing is recorded."""
        self.unseen: list[Any] = []
        """Those that were opened in the step under way of a loop whose steps are not seen."""

    def __del__(self) -> None:
        if self.number:
            heappush(self.free, self.number)


class Local(threading.local):
    """What is the running thread's own."""

    own: ScopedThread | None = None
