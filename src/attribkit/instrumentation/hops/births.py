"""Which coroutines and async generators were made lately, and in which scope: a look at the garbage collector's
youngest objects.

CPython appends an object to the youngest generation when it is made. So marks among them, each put there by the thread
in which another scope comes in force, tell what was made before that from what was made after it. A garbage collection
moves all of them on: what it moves is listed as it starts, with the scopes that are in force, without a moment between
the list and the move.
"""

from __future__ import annotations

import dis
import functools
import gc
import operator
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, compress, takewhile
from typing import Any, Literal, NamedTuple

from attribkit import faults

__all__ = ["Births", "Mark", "State", "Watch", "frame_of", "frames_recorded", "unstarted"]

_DEFERRALS = 10
"""Looks through the older generations that a process may owe itself."""
_ROOM = 64
"""Allocations that looking for objects may take."""
_RETURN_GENERATOR = dis.opmap["RETURN_GENERATOR"]
_HALF_MADE = sys.version_info < (3, 12)
"""Python 3.11 collects garbage in the middle of making a coroutine, which has no frame then, and whose origin must not
be asked for."""
_AGEN_SAYS = hasattr(types.AsyncGeneratorType, "ag_suspended")  # 3.12 and later
_OLDEST = 2
_IN_TURN = sys.version_info < (3, 14)
"""Later versions collect in increments, which may move an object into any of the older generations."""


class Mark(NamedTuple):
    """Stands among the youngest objects: what the thread of this number makes from here on, it makes as `what`.

    A tuple is filled before another thread can see it: one that stood there without its number would be passed over.
    """

    number: int
    what: Any


class _Look:
    """Stands among the youngest objects where they were looked at last."""

    __slots__ = ("edge", "state")

    def __init__(self, edge: list[None]) -> None:
        self.edge = edge
        """The object before it: who comes from the youngest one and meets this has met all that are new."""
        self.state: State | None = None
        """What was in force there."""


State = dict[int, Mark | None]
"""The latest mark of each thread, by its number. None: another is about to be made."""

Watch = Literal["nothing", "work", "later"]
"""What to list when a garbage collection starts. `later`: no mark will be made for long, so look in the older
generations when somebody asks. That takes a look at all objects, and so it is done a few times only: it pays for a
program that runs in one scope, not for each of a server's requests."""


# -- the youngest objects ---------------------------------------------------------------------------------------------

_wanted = functools.partial(map, frozenset((types.CoroutineType, types.AsyncGeneratorType, Mark, _Look)).__contains__)
_types = functools.partial(map, type)
_held: dict[str, list[Any]] = {}
_KEY = ("objects",)


def frame_of(work: Any) -> types.FrameType | None:
    """Return the frame of a coroutine or an async generator, None when it has ended."""
    return work.cr_frame if type(work) is types.CoroutineType else work.ag_frame


def frames_recorded(work: Any) -> int:
    """Return how many frames were recorded when a coroutine was made."""
    origin = work.cr_origin
    return 0 if origin is None else len(origin)


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


def _new(look: _Look) -> Iterable[list[Any]]:
    """Yield the youngest objects, the latest first, as far back as they were looked at."""
    back = functools.partial(takewhile, functools.partial(operator.is_not, look.edge))
    return map(list, map(back, map(reversed, map(gc.get_objects, (0,)))))


def _work(lists: Iterable[list[Any]]) -> Iterable[Any]:
    """Yield the work and the marks of lists of objects.

    None of the others may be held from one bytecode to the next: a tuple that another thread is making could not be
    finished (https://github.com/python/cpython/issues/59313). So all of it happens within one call of C, whoever draws
    from this: the list of objects is put aside, taken twice, and gone.
    """
    return chain.from_iterable(
        map(
            compress,
            map(_held.setdefault, _KEY, lists),
            map(_wanted, map(_types, map(_held.pop, _KEY))),
        )
    )


def _find(lists: Iterable[list[Any]]) -> list[Any]:
    """Return what `_work` yields. No garbage collection, which would run Python, comes between."""
    if _HALF_MADE and gc.isenabled():
        most = gc.get_threshold()[0]
        if most and most - gc.get_count()[0] < _ROOM:
            gc.collect(0)
    return list(_work(lists))


class Births:
    """Finds work that was made and not started. Any thread may ask, one at a time."""

    def __init__(self, watched: Callable[[], Watch]) -> None:
        """`watched` says what to look for."""
        self._watched = watched
        self._now: State = {}
        """The latest mark of each thread."""
        self._kept: deque[Mark] = deque()
        """Marks that a look may need: one that is gone marks nothing."""
        self._dropped = 0
        """How many of those were dropped so far."""
        self._look = _Look([])
        """What was made before it has been looked at."""
        self._state: State = {}
        """What was in force when the oldest of the youngest objects was made."""
        self._listed: deque[list[Any]] = deque()
        """What each garbage collection has moved that nobody has dated yet, the latest first, after what was in force
        at its end. An empty one is about to be filled."""
        self._under_way: list[Any] | None = None
        self._passed: tuple[int, State] | None = None
        """The oldest generation into which work has gone without a list, and what was in force."""
        self._deferrals = _DEFERRALS
        self._noted: deque[tuple[State | Mark | None, weakref.ref[Any]]] = deque()
        """Work that has moved, and what it was made as."""
        self._most = 1_000
        self.asking = threading.RLock()
        """Held while work is taken and judged."""
        self._busy = False
        """True while what is listed is taken apart: a garbage collection may come between."""
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
        if gc.callbacks[-1] is not self._callback and self._under_way is None:
            gc.callbacks.append(self._callback)
            gc.callbacks.remove(self._callback)

    def forked(self, number: int) -> None:
        """In a child process nobody else asks, and only the thread of this number makes anything."""
        self.asking = threading.RLock()
        self._busy = False
        for other in [each for each in self._now if each != number]:
            del self._now[other]

    # -- marking ---------------------------------------------------------------------------------------------------

    def mark(self, number: int, what: Any) -> None:
        """From here on the thread of this number makes its work as `what`."""
        self._now[number] = None
        mark = Mark(number, what)
        self._kept.append(mark)
        self._now[number] = mark

    def unmark(self, number: int) -> None:
        """The number will be another thread's."""
        self._now.pop(number, None)

    def latest(self, number: int) -> Mark | None:
        """Return the mark under which the thread of this number makes its work."""
        return self._now.get(number)

    # -- asking ----------------------------------------------------------------------------------------------------

    def taken(self) -> list[tuple[State | Mark | None, Any]]:
        """Return the work that was made since this was asked last, and what is to be looked at again.

        Each comes with the mark under which its thread made it. Where nothing says which thread that was, it comes
        with the marks of all. Some of it was started.
        """
        self._busy = True
        try:
            passed, look = self._dropped + len(self._kept), _Look([])
            while True:
                self._date_listed()
                young = _find(_new(self._look))
                if not (self._listed and self._listed[0]):
                    break  # no garbage collection has come between
            found: list[tuple[State | Mark | None, Any]] = []
            if self._passed is not None:
                (oldest, state), self._passed = self._passed, None
                self._deferrals -= 1
                for generation in range(1, oldest + 1):
                    found += self._dated(_find(map(gc.get_objects, (generation,))), state)
            for _ in range(len(self._noted)):
                made, ref = self._noted.popleft()
                work = ref()
                if work is not None:
                    found.append((made, work))
            found += self._dated(young[::-1], self._state, look)
            self._look = look
            while self._dropped < passed:
                self._drop()
        finally:
            self._busy = False
        if _HALF_MADE:
            for made, work in found:
                if _is_half_made(work):
                    self._noted.append((made, weakref.ref(work)))
        return found

    def skip(self) -> None:
        """Never return what was made before this moment, in which no thread has a number."""
        with self.asking:
            look = _Look([])
            look.state = {}
            self._look = look

    def _dated(
        self, objects: list[Any], state: State, look: _Look | None = None
    ) -> list[tuple[State | Mark | None, Any]]:
        """Return the work that was not looked at yet, with what it was made as. `state`: what was in force before."""
        state, coroutine, half_made = dict(state), types.CoroutineType, _HALF_MADE
        found: list[tuple[State | Mark | None, Any]] = []
        for each in objects:
            kind = type(each)
            if kind is Mark:
                state[each.number] = each
            elif each is self._look:
                found.clear()
                state = dict(state if self._look.state is None else self._look.state)
            elif look is not None and each is look:
                look.state = dict(state)
            elif kind is coroutine and not (half_made and each.cr_frame is None):
                origin = each.cr_origin
                found.append((None if origin is None else state.get(len(origin)), each))
            elif kind is not _Look:
                found.append((dict(state), each))
        return found

    # -- garbage collections ---------------------------------------------------------------------------------------

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        """List what a garbage collection is about to move out of the youngest generation."""
        try:
            if phase != "start":
                if self._under_way is not None:
                    self._collected()
                return
            watch, passed = self._watched(), self._passed
            into = min(info["generation"] + 1, _OLDEST) if _IN_TURN else _OLDEST
            if passed is not None:
                if watch == "later" and into <= passed[0]:
                    return  # owed already, and what is in force has been listed
                self._passed = max(into, passed[0]), passed[1]
            found: Iterable[Any] = ()
            if watch == "work" or (watch == "later" and self._deferrals <= 0):
                found = _work(_new(self._look))
            elif watch == "later" and passed is None:
                self._passed = into, dict(self._now)
            moving: list[Any] = []
            found = chain(map(dict, (self._now,)), found)
            self._under_way = moving
            self._listed.append(moving)
        except Exception as error:
            faults.note("births.collecting", error)
            self._listed.append([{}])
            return
        moving[:] = found  # the last thing: nothing is made between this and the collection

    def _collected(self) -> None:
        """Date what the garbage collection that has ended has moved, and keep it from living longer."""
        moving, self._under_way = self._under_way, None
        if moving is not None and not moving:  # it could not be listed
            moving.append({})
        if self.asking.acquire(blocking=False):
            try:
                if not self._busy:
                    self._busy = True
                    try:
                        self._date_listed()
                        if len(self._noted) > self._most:
                            self._forget()
                    finally:
                        self._busy = False
            finally:
                self.asking.release()

    def _date_listed(self) -> None:
        """Note the work that garbage collections have moved."""
        while self._listed and self._listed[0]:
            moved = self._listed.popleft()
            self._noted.extend([(made, weakref.ref(work)) for made, work in self._dated(moved[:0:-1], self._state)])
            self._state, marks = moved[0], [each for each in moved if type(each) is Mark]
            for mark in marks:
                if self._state.get(mark.number, mark) is None:  # it was made, and not yet known to be in force
                    self._state[mark.number] = mark
            gone = set(map(id, marks))
            while self._kept and id(self._kept[0]) in gone:
                self._drop()

    def _drop(self) -> None:
        self._kept.popleft()
        self._dropped += 1

    def _forget(self) -> None:
        """Drop what is gone or was started of what was noted."""
        for _ in range(len(self._noted)):
            made, ref = self._noted.popleft()
            work = ref()
            if work is not None and (_is_half_made(work) or unstarted(work) is not None):
                self._noted.append((made, ref))
        self._most = 2 * len(self._noted) + 1_000
