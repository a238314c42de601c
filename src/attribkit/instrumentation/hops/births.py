"""Which coroutines and async generators were made lately, and when: a look at the garbage collector's youngest objects.

CPython appends an object to the youngest generation when it is made, so that marks among them tell what was made before
a moment from what was made after it. A garbage collection moves them on; what it moves is listed as it starts, without
a moment between the list and the move.
"""

from __future__ import annotations

import dis
import functools
import gc
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, compress
from typing import Any, Literal

from attribkit import faults

__all__ = ["NEVER", "Births", "Mark", "Watch", "When", "frame_of", "unstarted"]

When = tuple[int, int]
"""A moment: numbers that never fall."""
NEVER: When = (0, 0)

_DEFERRALS = 10
"""Looks through the older generations that a process may owe itself."""
_ROOM = 64
"""Allocations that looking for objects may take."""
_RETURN_GENERATOR = dis.opmap["RETURN_GENERATOR"]
_HALF_MADE = sys.version_info < (3, 12)
"""Python 3.11 collects garbage in the middle of making a coroutine, which has neither frame nor origin then."""
_AGEN_SAYS = hasattr(types.AsyncGeneratorType, "ag_suspended")  # 3.12 and later


class Mark:
    """Stands among the youngest objects: what was made before it is told from what was made after it."""

    __slots__ = ("when",)

    def __init__(self, when: When) -> None:
        self.when = when


Watch = Literal["nothing", "types", "work"] | When
"""What is looked for when a garbage collection starts. `types`: ask first whether any work is moved. A moment: look in
the older generations for what was made after it, when somebody asks. That takes a look at all objects, and so it is
done a few times only: it pays for a program that runs in one scope, not for each of a server's requests."""


# -- the youngest objects ---------------------------------------------------------------------------------------------

_WORK = frozenset((types.CoroutineType, types.AsyncGeneratorType))
_types = functools.partial(map, type)
_held: dict[str, list[Any]] = {}
_KEY = ("objects",)


def _young_types() -> Iterable[type[Any]]:
    """Yield the types of the youngest objects, in one call of C, in half the time that finding the work takes."""
    return map(type, chain.from_iterable(map(gc.get_objects, (0,))))


def frame_of(work: Any) -> types.FrameType | None:
    """Return the frame of a coroutine or an async generator, None when it has ended."""
    return work.cr_frame if type(work) is types.CoroutineType else work.ag_frame


def unstarted(work: Any) -> types.FrameType | None:
    """Return the frame of an object that was not started yet, None for any other."""
    if type(work) is types.CoroutineType:
        if work.cr_suspended or work.cr_running:
            return None
        return work.cr_frame
    frame: types.FrameType | None = work.ag_frame
    if frame is None or work.ag_running:
        return None
    if _AGEN_SAYS:
        return None if work.ag_suspended else frame
    code = frame.f_code.co_code
    at = frame.f_lasti
    return frame if at < 0 or code[at] == _RETURN_GENERATOR else None


def _is_half_made(work: Any) -> bool:
    return _HALF_MADE and frame_of(work) is None


def _moment_of(mark: Mark) -> When:
    """Return a mark's moment. Another thread may be making it just now."""
    return getattr(mark, "when", NEVER)


class Births:
    """Finds work that was made and not started. Any thread may ask, one at a time."""

    def __init__(self, moment: Callable[[], When], watched: Callable[[], Watch], *marks: type[Mark]) -> None:
        """`moment` says what time it is, `watched` what to look for. `marks` are further classes of marks."""
        self._moment = moment
        self._watched = watched
        self._kinds = functools.partial(map, _WORK.union(marks, (Mark,)).__contains__)
        self._mark: Mark = Mark(NEVER)
        """What was made before it has been looked at."""
        self._since = NEVER
        """The latest garbage collection: what is young now was made after it."""
        self._under_way = -1
        """The generation that is being collected; -1: none."""
        self._begun = NEVER
        """When that began."""
        self._moving: tuple[When, list[Any]] = NEVER, []
        """When the collection before was, and the work that is moved."""
        self._types: list[type[Any]] = []
        """The types of what is moved, where that is asked first."""
        self._deferrals = _DEFERRALS
        self._passing: When | None = None
        """Since when there is something of which the collection under way has no list."""
        self._passed: tuple[int, When] | None = None
        """The oldest generation into which work has gone without a list, and since when it may be there."""
        self._likely = True
        """Whether there was work among what the latest collection has moved."""
        self._noted: deque[tuple[When, weakref.ref[Any]]] = deque()
        """Work that is to be looked at again, and when it was made."""
        self._most = 1_000
        self.asking = threading.RLock()
        """Held while work is taken and judged."""
        self._busy = False
        """True while what is noted is taken apart: a garbage collection may come between."""
        self._callback = self._collecting

    def start(self) -> None:
        """Begin to listen to garbage collections."""
        gc.callbacks.append(self._callback)

    def stop(self) -> None:
        """End it."""
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)

    def be_last(self) -> None:
        """Have no other callback between the list of what is moved and the move."""
        if gc.callbacks[-1] is not self._callback and self._under_way < 0:
            gc.callbacks.append(self._callback)
            gc.callbacks.remove(self._callback)

    def forked(self) -> None:
        """In a child process nobody else asks."""
        self.asking = threading.RLock()
        self._busy = False

    # -- asking ----------------------------------------------------------------------------------------------------

    def taken(self) -> list[tuple[When, Any]]:
        """Return the work that was made since this was asked last, and what is to be looked at again.

        Each comes with the latest moment at which it surely was not made yet; some of it was started.
        """
        mark, since = Mark(self._moment()), self._since
        young = self._find(0)
        if self._types:  # a garbage collection is under way
            self._note_all(min(self._under_way + 1, 2))
        if self._passing is not None:
            self._note_all(min(self._under_way + 1, 2), self._passing)
        while self._passed is not None:
            (oldest, made), self._passed = self._passed, None
            self._deferrals -= 1
            for generation in range(1, max(oldest, min(self._under_way + 1, 2)) + 1):
                self._note_all(generation, made)
        self._note_moved()
        found = self._dated(young, since)
        self._mark = mark
        self._busy = True
        for _ in range(len(self._noted)):
            when, ref = self._noted.popleft()
            work = ref()
            if work is not None:
                found.append((when, work))
        self._busy = False
        if _HALF_MADE:
            for when, work in found:
                if _is_half_made(work):
                    self.again(when, work)
        return found

    def again(self, when: When, work: Any) -> None:
        """Return this work again when `taken` is asked next."""
        self._noted.append((when, weakref.ref(work)))

    def skip(self, mark: Mark) -> None:
        """Never return what was made before `mark`."""
        self._mark = mark

    def _find(self, generation: int) -> list[Any]:
        """Return what `_objects` yields. No garbage collection, which would run Python, comes between."""
        if _HALF_MADE and gc.isenabled():
            most = gc.get_threshold()[0]
            if most and most - gc.get_count()[0] < _ROOM:
                gc.collect(0)
        return list(self._objects(generation))

    def _objects(self, generation: int) -> Iterable[Any]:
        """Yield the work and the marks of a generation of objects, in order of birth.

        None of the others may be held from one bytecode to the next: a tuple that another thread is making could not be
        finished (https://github.com/python/cpython/issues/59313). So all of it happens within one call of C, whoever
        draws from this: the list of objects is put aside, taken twice, and gone.
        """
        return chain.from_iterable(
            map(
                compress,
                map(_held.setdefault, _KEY, map(gc.get_objects, (generation,))),
                map(self._kinds, map(_types, map(_held.pop, _KEY))),
            )
        )

    def _dated(self, objects: list[Any], since: When) -> list[tuple[When, Any]]:
        """Return the work that was not looked at yet, with moments. What is not marked was made after `since`."""
        mark = self._mark
        found: list[tuple[When, Any]] = []
        when = since
        for each in objects:
            if not isinstance(each, Mark):
                found.append((when, each))
                continue
            if each is mark:
                found.clear()
            when = max(when, _moment_of(each))
        return found

    # -- garbage collections ---------------------------------------------------------------------------------------

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        """List what a garbage collection is about to move out of the youngest generation."""
        try:
            passed = self._passed
            if phase != "start":
                if passed is not None and passed[1] is self._passing and passed[0] == 2:
                    self._passing = None  # owed already, as it mostly is
                elif self._under_way >= 0:
                    self._collected(min(self._under_way + 1, 2))
                self._under_way = -1
                if self._begun is not self._since and self._begun > self._since:
                    self._since = self._begun
                return
            watch = self._watched()
            if type(watch) is tuple and self._deferrals > 0:
                self._under_way = info["generation"]
                self._passing = watch
                if (passed is None or passed[1] is not watch) and self._since < watch:
                    self._begun = self._moment()
                return
            self._begun = self._moment()
            if watch == "nothing" and self._passed is None:
                return
            self._under_way = info["generation"]
            moving: list[Any] = []
            found: Iterable[Any]
            if watch == "types" and not self._likely:
                self._types, found = moving, _young_types()
            else:
                self._moving, found = (self._since, moving), self._objects(0)
        except Exception as error:
            faults.note("births.collecting", error)
            return
        moving[:] = found  # the last thing: nothing is made between this and the collection

    def _collected(self, generation: int) -> None:
        """Note the work that a garbage collection has moved into a generation."""
        passed, passing = self._passed, self._passing
        if passed is None and passing is not None:
            self._passed = generation, passing
        elif passed is not None and passed[0] < generation:  # what had gone into a younger one has moved on
            self._passed = generation, passed[1]
        if passing is not None:
            self._passing = None
            return
        kinds = self._types
        if kinds:
            self._likely = not _WORK.isdisjoint(kinds)
        else:
            self._likely = any(type(each) in _WORK for each in self._moving[1])
        if (kinds and self._likely) or (self._moving[1] and gc.callbacks[-1] is not self._callback):
            self._note_all(generation)
        self._note_moved()
        self._types = []

    def _note_all(self, generation: int, when: When = NEVER) -> None:
        """Note what is in a generation. It is not known when it was made, unless it is said; a coroutine may be older
        too, and its origin tells.
        """
        for work in self._find(generation):
            if not isinstance(work, Mark):
                self.again(when if type(work) is types.CoroutineType else NEVER, work)

    def _note_moved(self) -> None:
        """Note the work that the latest garbage collection has moved."""
        listed = self._moving
        since, moving = listed
        if not moving:
            return
        self._noted.extend([(when, weakref.ref(work)) for when, work in self._dated(moving, since)])
        latest = max((_moment_of(each) for each in moving if isinstance(each, Mark)), default=since)
        if latest > self._since:  # marked while the collection began
            self._since = latest
        if self._moving is listed:
            self._moving = NEVER, []
        if len(self._noted) > self._most and self.asking.acquire(blocking=False):
            try:
                if not self._busy:
                    self._forget()
            finally:
                self.asking.release()

    def _forget(self) -> None:
        """Drop what is gone or was started of what was noted."""
        for _ in range(len(self._noted)):
            when, ref = self._noted.popleft()
            work = ref()
            if work is not None and (_is_half_made(work) or unstarted(work) is not None):
                self._noted.append((when, ref))
        self._most = 2 * len(self._noted) + 1_000
