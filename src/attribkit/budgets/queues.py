"""Calls of one process that wait for room in a counter: one of them asks the store for all."""

from __future__ import annotations

import random
import threading
import time
from collections import deque

__all__ = ["Queue"]


class Queue:
    """Waiting calls, oldest first. Only the first asks the store now and then; the others sleep until it is their
    turn. So a process asks as often with a thousand waiting calls as with one, and calls get in by their age."""

    __slots__ = ("_lock", "waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waiting: deque[threading.Lock] = deque()

    def join(self) -> threading.Lock:
        """Return a place in the queue, to be given to `wait` and, in the end, to `leave`."""
        place = threading.Lock()
        place.acquire()
        with self._lock:
            self.waiting.append(place)
        return place

    def wait(self, place: threading.Lock, pause: float, until: float) -> None:
        """Sleep until it is worth asking again: when this place has become the first, or for about `pause` seconds if
        it is; at the latest until `until` (monotonic)."""
        left = until - time.monotonic()
        if left > 0:
            first = self.waiting[0] is place
            place.acquire(timeout=min(left, pause * random.uniform(0.5, 1.5)) if first else left)

    def stir(self) -> None:
        """Let the first ask at once: there may be room."""
        with self._lock:
            if self.waiting:
                _wake(self.waiting[0])

    def leave(self, place: threading.Lock) -> None:
        with self._lock:
            first = self.waiting[0] is place
            self.waiting.remove(place)
            if first and self.waiting:
                _wake(self.waiting[0])


def _wake(place: threading.Lock) -> None:
    if place.locked():
        place.release()
