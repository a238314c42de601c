"""asyncio: coroutine and async generator objects that are made in one scope and run in another.

Neither kind of object has a context of its own: a task copies the context of whoever creates the task, and a body that
is awaited or iterated runs in its consumer's. So a coroutine that was made in tenant A's scope and is gathered after it
runs for nobody, and gathered under tenant B runs for B. Here such an object is found when the scope in which it was
made closes, and its body runs in that scope wherever it is started.

Finding it has to be certain. While a scope is open its thread records where coroutines are made
(`sys.set_coroutine_origin_tracking_depth`), and the number of frames recorded is the scope's own, so that the origin
says in which open scope of which thread the object was made. A scope that was suspended meanwhile, so that other tasks
ran in its thread, cannot be told from those: what was made then is *unsure*. It runs in the scope in which it is
awaited if that one was already open when the object was made, and without a tenant, reported with the line that made
it, if it is a later one.
"""

from __future__ import annotations

import asyncio
import dis
import gc
import logging
import sys
import threading
import types
import weakref
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any

from attribkit import context, faults
from attribkit.context import Scope

__all__ = ["Coroutines"]

_UNSURE = 1
"""Frames recorded for a coroutine that is made while the open scopes of its thread are suspended."""
_DEPTHS = (*range(2, 10), *range(11, 25))
"""Frames recorded for a coroutine that is made in a scope: a number for each scope that is open at one time, where the
stack has as many frames. asyncio's debug mode records 10."""
_OURS = frozenset((_UNSURE, *_DEPTHS))
_RETURN_GENERATOR = dis.opmap["RETURN_GENERATOR"]
_LOOPS = frozenset({"run_forever", "run"})
_HALF_MADE = sys.version_info < (3, 12)
_AGEN_SAYS = hasattr(types.AsyncGeneratorType, "ag_suspended")  # 3.12 and later

_set_depth = sys.set_coroutine_origin_tracking_depth
_get_depth = sys.get_coroutine_origin_tracking_depth
_running_loop = events._get_running_loop


class _Thread:
    """The open scopes of one thread."""

    __slots__ = ("begun", "context", "ended", "fresh", "loop", "suspended")

    def __init__(self) -> None:
        self.context = Context()
        self.begun = self.ended = 0
        """Garbage collections that this thread has begun and ended."""
        self.fresh: list[_Opening] = []
        """Those that were not suspended since they opened; the innermost is the last."""
        self.suspended = 0
        self.loop: object = None
        """The loop that will say when the step under way has ended."""


class _Opening:
    """A scope while it is open. It is also the marker by which the youngest objects are told from older ones."""

    __slots__ = ("alone", "depth", "found", "fresh", "number", "quiet", "scope", "thread")

    def __init__(self, scope: Scope, thread: _Thread) -> None:
        self.scope = scope
        self.thread = thread
        self.depth = 0
        """How many frames are recorded in it: its number. 0: it has none, or another tool records already."""
        self.fresh = True
        self.number = 0
        self.quiet = 0
        """Collections that other threads had begun when it opened, -1 where one was under way."""
        self.alone = False
        """True where it stands so near to the bottom of the stack that there is no number for it, and no other scope is
        open with which it could be mistaken."""
        self.found: list[weakref.ref[Any]] = []
        """What a garbage collection has moved out of the youngest generation meanwhile."""


class _Made:
    """An object that was made in a scope which has closed before it was started."""

    __slots__ = ("frame", "kept", "line", "recorded", "scope", "work")

    def __init__(self, work: Any, frame: types.FrameType, scope: Scope | None, made: dict[int, _Made]) -> None:
        key = id(frame)
        self.frame = key
        self.scope = scope
        """None: unsure."""
        self.recorded = context.opened_so_far()
        self.kept = False
        """True for the root of a task that was created with a context of its creator's choice."""
        origin = getattr(work, "cr_origin", None)
        self.line = f"{origin[0][0]}:{origin[0][1]}" if origin else f"{frame.f_code.co_filename}:{frame.f_lineno}"

        def gone(_: Any) -> None:
            if made.get(key) is self:
                del made[key]

        self.work = weakref.ref(work, gone)


def _frame(work: Any) -> types.FrameType | None:
    return work.cr_frame if type(work) is types.CoroutineType else work.ag_frame


def _unstarted(work: Any) -> types.FrameType | None:
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


_KINDS = frozenset({types.CoroutineType, types.AsyncGeneratorType})


class Coroutines:
    """What `context.Origins` asks for. One an `instrument()`."""

    def __init__(self, found: Callable[[], None]) -> None:
        """`found` is called when there are such objects."""
        self._found = found
        self.made: dict[int, _Made] = {}
        """By the identity of the object's frame."""
        self.idle = 0
        self._threads = threading.local()
        self._free = list(_DEPTHS)
        self._fresh: dict[int, _Opening] = {}
        """The scopes of all threads that were not suspended since they opened."""
        self._suspended = 0
        self._openings = 0
        self._begun = self._ended = self._reached = 0
        """Garbage collections of all threads, and the oldest generation that one of the latest has gone through."""
        self._drifting: deque[weakref.ref[Any]] = deque()
        """Unsure objects of steps that are over."""
        self._stops = context.DRIVES | {id(events.Handle._run.__code__)}
        self._reported: set[str] = set()

    # -- on and off ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch scopes."""
        gc.callbacks.append(self._collecting)
        context.remember_origins(self)

    def stop(self) -> None:
        """End it. What is under way runs on in the context of its consumer."""
        context.remember_origins(None)
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)
        if _get_depth() in _OURS:
            _set_depth(0)
        self.made.clear()
        self._fresh.clear()

    # -- scopes open and close -------------------------------------------------------------------------------------

    def opened(self, scope: Scope) -> _Opening | None:
        """Number the scope, and have its thread record the coroutines that are made in it."""
        try:
            return self._open(scope)
        except Exception as error:
            faults.note("coroutines.opened", error)
            return None

    def _open(self, scope: Scope) -> _Opening:
        thread = self._thread()
        opening = _Opening(scope, thread)
        begun = self._begun - thread.begun
        opening.quiet = begun if begun == self._ended - thread.ended else -1
        self._openings = opening.number = self._openings + 1
        before = _get_depth()
        if not before or before in _OURS:
            depth = self._number(opening)
            if not depth:
                opening.alone = not (self._fresh or self._suspended)
                opening.fresh = opening.alone
            opening.depth = depth
            _set_depth(depth or _UNSURE)
        loop = _running_loop()
        if loop is not None and thread.loop is not loop:
            thread.loop = loop
            loop.call_soon(self._suspend, thread, context=thread.context)
        if opening.fresh:
            thread.fresh.append(opening)
            self._fresh[id(opening)] = opening
        else:
            thread.suspended += 1
            self._suspended += 1
        return opening

    def _number(self, opening: _Opening) -> int:
        """Return a number that no other open scope has and that the stack can hold, 0 when there is none."""
        try:
            depth: int = heappop(self._free)
        except IndexError:
            return 0
        try:
            sys._getframe(depth + 3)  # this method, `_open`, `opened` and `__enter__` stand above
        except ValueError:
            heappush(self._free, depth)
            return 0
        return depth

    def _thread(self) -> _Thread:
        thread: _Thread | None = getattr(self._threads, "own", None)
        if thread is None:
            thread = self._threads.own = _Thread()
        return thread

    def _suspend(self, thread: _Thread) -> None:
        """The step is over in which scopes were opened that are open still: from now on other tasks run meanwhile."""
        thread.loop = None
        for opening in thread.fresh:
            for work in self._young(opening):
                if self._belongs(work, opening) and _unstarted(work) is not None:
                    self._drifting.append(weakref.ref(work))
            self._drifting += opening.found
            opening.found = []
            opening.fresh = False
            self._retire(opening)
            thread.suspended += 1
            self._suspended += 1
        if thread.fresh:
            thread.fresh.clear()
            if _get_depth() in _OURS:
                _set_depth(_UNSURE)

    def _retire(self, opening: _Opening) -> None:
        self._fresh.pop(id(opening), None)
        if opening.depth:
            heappush(self._free, opening.depth)

    def closed(self, opening: _Opening) -> None:
        """Find what was made in the scope and not started."""
        try:
            self._close(opening)
        except Exception as error:
            faults.note("coroutines.closed", error)

    def _close(self, opening: _Opening) -> None:
        thread = opening.thread
        opening.alone = opening.alone and opening.number == self._openings
        found = self._young(opening)
        if opening.fresh:
            if opening.quiet != self._begun - thread.begun:
                found += self._moved(opening)
            if opening in thread.fresh:
                thread.fresh.remove(opening)
            self._retire(opening)
        else:
            thread.suspended -= 1
            self._suspended -= 1
        if thread is self._thread() and _get_depth() in _OURS:
            _set_depth((thread.fresh[-1].depth or _UNSURE) if thread.fresh else _UNSURE if thread.suspended else 0)
        if found or opening.found or self._drifting:
            self._settle(opening, found)

    # -- finding ---------------------------------------------------------------------------------------------------

    def _young(self, opening: _Opening) -> list[Any]:
        """Return the coroutines and async generators that were made since `opening` and are still young.

        CPython appends an object to the youngest generation when it is made, so the list is in order of birth.
        """
        young = gc.get_objects(generation=0)
        if _KINDS.isdisjoint(map(type, young)):  # mostly: a look at each in Python would show in work that makes none
            return []
        coroutine, agen = types.CoroutineType, types.AsyncGeneratorType
        found = []
        for each in reversed(young):
            kind = type(each)
            if kind is coroutine or kind is agen:
                found.append(each)
            elif each is opening:
                break
        return found

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        """Note the unstarted objects among the young before a garbage collection moves them on."""
        try:
            thread = self._thread()
            if phase != "start":
                if info["generation"] == 0 and self._suspended > thread.suspended:
                    self._drifting += self._moving(_coroutines(1), None)  # what another thread made meanwhile
                thread.ended += 1
                self._ended += 1
                return
            self._reached = info["generation"] if self._begun == self._ended else max(self._reached, info["generation"])
            thread.begun += 1
            self._begun += 1
            for opening in tuple(self._fresh.values()):
                opening.found += self._moving(self._young(opening), opening)
            if self._suspended:
                self._drifting += self._moving(_coroutines(0), None)
        except Exception as error:
            faults.note("coroutines.collecting", error)

    def _moved(self, opening: _Opening) -> list[Any]:
        """Return what was made in `opening` and is not young any more.

        Another thread has collected garbage meanwhile. Between its look at the young objects and their move this thread
        may have made more.
        """
        kinds = (types.CoroutineType, types.AsyncGeneratorType)
        generations = (1, 2) if self._reached else (1,)
        older = (each for generation in generations for each in gc.get_objects(generation=generation))
        return [each for each in older if type(each) in kinds and self._surely(each, opening)]

    def _surely(self, work: Any, opening: _Opening) -> bool:
        return type(work) is types.CoroutineType and opening.depth != 0 and _frames(work) == opening.depth

    def _moving(self, young: list[Any], opening: _Opening | None) -> list[weakref.ref[Any]]:
        """Return those that matter of the `young` objects, the youngest first.

        Python 3.11 collects garbage in the middle of making a coroutine, whose fields are not set then: the youngest is
        looked at later.
        """
        found = []
        if _HALF_MADE and young and type(young[0]) is types.CoroutineType:
            found.append(weakref.ref(young.pop(0)))
        for work in young:
            mine = _frames(work) == _UNSURE if opening is None else self._belongs(work, opening)
            if mine and _unstarted(work) is not None:
                found.append(weakref.ref(work))
        return found

    def _belongs(self, work: Any, opening: _Opening) -> bool:
        """Return whether `work` was made in `opening`, as far as what was recorded with it tells."""
        if type(work) is not types.CoroutineType:
            return True
        if opening.depth:
            return _frames(work) == opening.depth
        return not opening.alone or _frames(work) == _UNSURE

    def _settle(self, opening: _Opening, young: list[Any]) -> None:
        drifting = []
        while self._drifting:
            drifting.append(self._drifting.popleft())
        unsure = {_UNSURE, *(each.depth for each in opening.thread.fresh)}  # suspended too, if this one is
        driven: set[int] = set()
        found: list[tuple[Any, types.FrameType, bool]] = []
        alone: bool | None = None
        for sure, works in ((True, (*(ref() for ref in opening.found), *young)), (False, [ref() for ref in drifting])):
            for work in works:
                frame = None if work is None else _unstarted(work)
                if frame is None or self._known(frame) is not None:
                    continue
                if id(frame.f_code) in context.DRIVES:  # what it drives is no candidate; it is one without a scope
                    driven.add(id(frame.f_locals.get("inner")))
                    if context.has_scope(frame.f_locals.get("run")):
                        continue
                if not sure or not opening.fresh:
                    if not sure or type(work) is not types.CoroutineType or _frames(work) in unsure:
                        found.append((work, frame, False))
                elif not self._belongs(work, opening):
                    if _frames(work) == _UNSURE:
                        found.append((work, frame, False))
                elif type(work) is types.CoroutineType and (opening.depth or opening.alone):
                    found.append((work, frame, True))
                else:
                    if alone is None:
                        alone = not _others_make_work(coroutines=not opening.depth)
                    found.append((work, frame, alone))
        scope = Scope(opening.scope.attribution, "carried", None, None, opening.scope.since)
        if found:
            self.idle = 0
            self._found()
        for work, frame, sure in found:
            if id(work) not in driven:
                self.made[id(frame)] = _Made(work, frame, scope if sure else None, self.made)

    # -- using -----------------------------------------------------------------------------------------------------

    def _innermost(self, frame: types.FrameType | None) -> tuple[_Made, Any] | None:
        made, stops = self.made, self._stops
        while frame is not None:
            if id(frame) in made:
                known = self._known(frame)
                if known is not None:
                    return known
            if id(frame.f_code) in stops:
                return None
            frame = frame.f_back
        return None

    def _known(self, frame: types.FrameType) -> tuple[_Made, Any] | None:
        """Return what is known of the object whose frame it is. The frame of one that has ended may come again."""
        found = self.made.get(id(frame))
        work = None if found is None else found.work()
        return (found, work) if found is not None and work is not None and _frame(work) is frame else None

    def resolved(self, here: Scope) -> Scope:
        """Return the scope in which the innermost foreign object on the stack was made, `here` when there is none."""
        if not self.made:
            return here
        innermost = self._innermost(sys._getframe(1))
        if innermost is None:
            return here
        found, work = innermost
        if here.origin is found or (not found.kept and _is_task_root(work)):
            return here
        return self._of(found, here)

    def _of(self, found: _Made, here: Scope) -> Scope:
        scope = found.scope
        if scope is not None:
            return Scope(scope.attribution, "carried", here.operation, found, scope.since)
        tenant = here.attribution.tenant_id
        if tenant is not None and here.since <= found.recorded:
            return here
        self._report(found)
        if tenant is None:
            return here
        return Scope(here.attribution.without("tenant_id"), "none", here.operation, found, here.since)

    def placed(self, scope: Scope) -> Scope:
        """Return `scope` as one that is opened in the body of the innermost foreign object on the stack."""
        if not self.made:
            return scope
        innermost = self._innermost(sys._getframe(1))
        if innermost is None or scope.origin is innermost[0]:
            return scope
        return Scope(scope.attribution, scope.hop, scope.operation, innermost[0], scope.since)

    def settled(self, work: object) -> None:
        """`work` has got a scope of its own."""
        if self.made and type(work) in (types.CoroutineType, types.AsyncGeneratorType):
            frame = _frame(work)
            found = self.made.get(id(frame))
            if found is not None and found.work() is work:
                del self.made[id(frame)]

    def _report(self, found: _Made) -> None:
        if found.line not in self._reported and len(self._reported) < 100:
            self._reported.add(found.line)
            logging.getLogger("attribkit").warning(
                "the coroutine made at %s runs in another scope, and its own cannot be told: its calls have no tenant. "
                "Wrap it where it is made: attribkit.carry(...)",
                found.line,
            )

    # -- tasks -----------------------------------------------------------------------------------------------------

    def create_task(
        self, wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a foreign coroutine, or one that a foreign body schedules, in a context of its own."""
        if not self.made:
            return wrapped(*args, **kwargs)
        work = args[0] if args else kwargs.get("coro")
        frame = _frame(work) if type(work) is types.CoroutineType else None
        found = self.made.get(id(frame)) if frame is not None else None
        if found is not None and found.work() is not work:
            found = None
        if found is not None and (found.scope is None or kwargs.get("context") is not None):
            found.kept = True
            return wrapped(*args, **kwargs)
        here = context.scope()
        if found is not None:
            there = self._of(found, here)
            del self.made[found.frame]
        elif kwargs.get("context") is None:
            there = self.resolved(here)
        else:
            there = here
        if there is here:
            return wrapped(*args, **kwargs)
        own = copy_context()
        own.run(context.enter, Scope(there.attribution, there.hop, None, None, there.since))
        return own.run(wrapped, *args, **kwargs)

    def run_in_thread(
        self, wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run what a foreign body hands to a thread in the body's scope: the library copies the context by itself."""
        if not self.made:
            return wrapped(*args, **kwargs)
        here = context.scope()
        there = self.resolved(here)
        return wrapped(*args, **kwargs) if there is here else context.bound(wrapped(*args, **kwargs), there)


def _coroutines(generation: int) -> list[Any]:
    """Return the coroutines of a generation, the youngest first."""
    coroutine = types.CoroutineType
    return [each for each in reversed(gc.get_objects(generation=generation)) if type(each) is coroutine]


def _frames(work: Any) -> int:
    """Return how many frames were recorded when a coroutine was made."""
    origin = work.cr_origin
    return 0 if origin is None else len(origin)


def _is_task_root(work: Any) -> bool:
    if _running_loop() is None:
        return False
    task = asyncio.current_task()
    return task is not None and task.get_coro() is work


def _others_make_work(*, coroutines: bool) -> bool:
    """Return whether another thread may make async generators, which asks for a running loop, or coroutines."""
    mine = threading.get_ident()
    own = {each.ident for each in threading.enumerate() if each.name.startswith("attribkit")}
    others = {thread: top for thread, top in sys._current_frames().items() if thread != mine and thread not in own}
    if not others:
        return False
    if coroutines or "uvloop" in sys.modules:
        return True
    return any(_runs_loop(top) for top in others.values())


def _runs_loop(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _LOOPS:
            module = frame.f_globals.get("__name__")
            if isinstance(module, str) and module.partition(".")[0] in ("asyncio", "trio", "anyio"):
                return True
        frame = frame.f_back
    return False
