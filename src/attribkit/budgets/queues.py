"""Calls of one process that wait for room in a counter: one of them asks the store for all."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable

from attribkit import faults

__all__ = ["Queue"]


class Queue:
    """Waiting calls, oldest first. Only the first asks the store now and then; the others sleep until it is their
    turn. So a process asks as often with a thousand waiting calls as with one, and calls get in by their age."""

    __slots__ = ("_jobs", "_lock", "_works", "waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waiting: deque[threading.Lock] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._works = False

    def later(self, job: Callable[[], None]) -> None:
        """Do `job`, which may wait here, in a thread of this queue: one after the other, so that however many async
        calls wait for room in one counter, they take one thread, and none from the calls of others."""
        with self._lock:
            self._jobs.append(job)
            if self._works:
                return
            self._works = True
        threading.Thread(target=self._working, name="attribkit-queue", daemon=True).start()

    def _working(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._works = False
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception as fault:
                faults.note("budgets.queue", fault)

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
