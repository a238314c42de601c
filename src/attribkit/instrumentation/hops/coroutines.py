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
import functools
import gc
import inspect
import logging
import sys
import threading
import types
import weakref
from asyncio import events
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import chain, compress
from typing import Any

from attribkit import context, faults
from attribkit.context import Scope

__all__ = ["Coroutines"]

_DEPTHS = (1, *range(3, 10), *range(11, 25))
"""Frames recorded for a coroutine that is made in a scope: a number for each scope that is open at one time, where the
stack has as many frames. asyncio's debug mode records 10."""
_UNSURE = 2
"""Frames recorded for a coroutine that is made while the open scopes of its thread are suspended."""
_ROOM = 64
"""Allocations that looking for objects may take."""
_OURS = frozenset((_UNSURE, *_DEPTHS))
_RETURN_GENERATOR = dis.opmap["RETURN_GENERATOR"]
_LOOPS = frozenset({"run_forever", "run"})
_HALF_MADE = sys.version_info < (3, 12)
"""Python 3.11 collects garbage in the middle of making a coroutine, which has neither frame nor origin then."""
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

    __slots__ = ("body", "depth", "found", "fresh", "kept", "outside", "passed", "scope", "thread")

    def __init__(self, scope: Scope, thread: _Thread) -> None:
        self.scope = scope
        self.thread = thread
        self.depth = 0
        """How many frames are recorded in it: its number. 0: it has none, or another tool records already."""
        self.body: _Body | None = None
        self.fresh = True
        """False once other tasks, or a scope without a number, may have made what cannot be told from its own."""
        self.outside = False
        """True where no loop was running in its thread when it opened."""
        self.passed = -1
        """The oldest generation that was collected meanwhile without all that was made having been noted; -1: none."""
        self.kept = 1_000
        self.found: list[weakref.ref[Any]] = []
        """What a garbage collection has moved out of the youngest generation meanwhile."""


_is_kind = frozenset((types.CoroutineType, types.AsyncGeneratorType, _Opening)).__contains__
_kinds = functools.partial(map, _is_kind)
_types = functools.partial(map, type)
_held: dict[str, list[Any]] = {}
_KEY = ("objects",)
_CONTEXT = context.__name__


def _find(generation: int) -> list[Any]:
    """Return the coroutines, async generators and openings of a generation of objects, in order of birth.

    CPython appends an object to the youngest generation when it is made. None of the others may be held from one
    bytecode to the next: a tuple that another thread is making could not be finished
    (https://github.com/python/cpython/issues/59313). So all of it happens within one call of C: the list of objects is
    put aside, taken twice, and gone, and no garbage collection, which would run Python, comes between.
    """
    if _HALF_MADE and gc.isenabled():
        most = gc.get_threshold()[0]
        if most and most - gc.get_count()[0] < _ROOM:
            gc.collect(0)
    return list(
        chain.from_iterable(
            map(
                compress,
                map(_held.setdefault, _KEY, map(gc.get_objects, (generation,))),
                map(_kinds, map(_types, map(_held.pop, _KEY))),
            )
        )
    )


class _Body:
    """A scope that is open in the body of a generator: it holds whenever that body runs, and other scopes may have been
    opened and closed since it ran last."""

    __slots__ = ("before", "frame", "scope")

    def __init__(self, frame: int, scope: Scope, before: _Made | _Body | None) -> None:
        self.frame = frame
        self.scope = scope
        self.before = before
        """What was known of the same frame."""


class _Made:
    """An object that was made in a scope which has closed before it was started."""

    __slots__ = ("frame", "kept", "line", "recorded", "scope", "work")

    def __init__(
        self, work: Any, frame: types.FrameType, scope: Scope | None, made: dict[int, _Made | _Body], recorded: int
    ) -> None:
        key = id(frame)
        self.frame = key
        self.scope = scope
        """None: unsure."""
        self.recorded = recorded
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


class Coroutines:
    """What `context.Origins` asks for. One an `instrument()`."""

    def __init__(self, found: Callable[[], None]) -> None:
        """`found` is called when there are such objects."""
        self._found = found
        self.made: dict[int, _Made | _Body] = {}
        """By the identity of the object's frame."""
        self.idle = 0
        self._threads = threading.local()
        self._free = list(_DEPTHS)
        self._fresh: dict[int, _Opening] = {}
        """The scopes of all threads that were not suspended since they opened."""
        self._suspended = 0
        self._begun = self._ended = self._collected = 0
        """Garbage collections of all threads, and the generation of the latest."""
        self._drifting: deque[tuple[int, weakref.ref[Any]]] = deque()
        """Unsure objects of steps that are over, and when each was noted."""
        self._settling = threading.RLock()
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
            opening = self._open(scope)
            frame = _generator_body(sys._getframe(1))
            if frame is not None:
                key = id(frame)
                body = opening.body = scope.origin = _Body(key, scope, self.made.get(key))
                self.made[key] = body
                self.idle = 0
                self._found()
            return opening
        except Exception as error:
            faults.note("coroutines.opened", error)
            return None

    def _open(self, scope: Scope) -> _Opening:
        thread = self._thread()
        opening = _Opening(scope, thread)
        before = _get_depth()
        if not before or before in _OURS:
            depth = opening.depth = self._number()
            if not depth:
                opening.fresh = False
                self._lose(thread)
            _set_depth(depth or _UNSURE)
        loop = _running_loop()
        if loop is None:
            opening.outside = True
        elif thread.loop is not loop:
            thread.loop = loop
            loop.call_soon(self._suspend, thread, context=thread.context)
        if opening.fresh:
            thread.fresh.append(opening)
            self._fresh[id(opening)] = opening
            if self._begun - thread.begun != self._ended - thread.ended:  # another thread is in the middle of one
                opening.passed = max(opening.passed, self._collected)
        else:
            thread.suspended += 1
            self._suspended += 1
        return opening

    def _number(self) -> int:
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
            young = [each for each in self._young(opening) if _unstarted(each) is not None]
            self._drift([weakref.ref(each) for each in young if self._belongs(each, opening)])
            self._drift(opening.found)
            opening.found = []
        if thread.fresh:
            for opening in self._lose(thread):
                self._free_number(opening)
            if _get_depth() in _OURS:
                _set_depth(_UNSURE)

    def _drift(self, refs: Iterable[weakref.ref[Any]]) -> None:
        now = context.opened_so_far()
        self._drifting.extend((now, ref) for ref in refs)

    def _lose(self, thread: _Thread) -> list[_Opening]:
        """From now on it cannot be told what is made in the scopes of a thread that are open. Return those."""
        lost = thread.fresh
        thread.fresh = []
        for opening in lost:
            opening.fresh = False
            self._fresh.pop(id(opening), None)
        thread.suspended += len(lost)
        self._suspended += len(lost)
        return lost

    def _free_number(self, opening: _Opening) -> None:
        if opening.depth:
            heappush(self._free, opening.depth)
            opening.depth = 0

    def closed(self, opening: _Opening) -> None:
        """Find what was made in the scope and not started."""
        try:
            self._close(opening)
        except Exception as error:
            faults.note("coroutines.closed", error)

    def _close(self, opening: _Opening) -> None:
        thread = opening.thread
        body = opening.body
        if body is not None and self.made.get(body.frame) is body:
            del self.made[body.frame]
            if body.before is not None:
                self.made[body.frame] = body.before
        found = self._young(opening)
        if opening.fresh:
            if opening.passed >= 0:
                found += self._moved(opening)
            if opening in thread.fresh:
                thread.fresh.remove(opening)
            self._fresh.pop(id(opening), None)
        else:
            thread.suspended -= 1
            self._suspended -= 1
        if thread is self._thread() and _get_depth() in _OURS:
            _set_depth((thread.fresh[-1].depth or _UNSURE) if thread.fresh else _UNSURE if thread.suspended else 0)
        with self._settling:  # another thread may be about to settle what this one has made
            if found or opening.found or self._drifting:
                self._settle(opening, found)
        self._free_number(opening)

    # -- finding ---------------------------------------------------------------------------------------------------

    def _young(self, opening: _Opening) -> list[Any]:
        """Return the coroutines and async generators that were made since `opening` and are still young."""
        found = []
        for each in reversed(_find(0)):
            if each is opening:
                break
            if type(each) is not _Opening:
                found.append(each)
        return found

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        """Note the unstarted objects among the young before a garbage collection moves them on."""
        try:
            thread = self._thread()
            generation = info["generation"]
            if phase != "start":
                if generation == 0 and self._suspended > thread.suspended:
                    self._drift(_perhaps_unsure(_find(1)))  # what another thread made meanwhile
                thread.ended += 1
                self._ended += 1
                return
            self._collected = generation
            thread.begun += 1
            self._begun += 1
            if self._fresh:
                self._note_births(thread, generation)
            if self._suspended:
                self._drift(_perhaps_unsure(_find(0)))
        except Exception as error:
            faults.note("coroutines.collecting", error)

    def _note_births(self, thread: _Thread, generation: int) -> None:
        """Note what was made in the scopes that were not suspended; it is looked at when they close.

        Another thread goes on meanwhile, and what it makes until its objects are moved is not noted. And where a whole
        loop runs within a scope, much is made, and hardly anything is left when it closes. Such scopes look through the
        older generations then.
        """
        young: list[Any] | None = None
        looped = _running_loop() is not None
        for opening in tuple(self._fresh.values()):
            if opening.thread is not thread or (looped and opening.outside):
                opening.passed = max(opening.passed, generation)
                continue
            if opening.passed >= 0:
                opening.passed = max(opening.passed, generation)
            if young is None:
                young = _find(0)
            start = next((place for place, each in enumerate(young) if each is opening), -1) + 1
            opening.found += [weakref.ref(each) for each in young[start:] if type(each) is not _Opening]
            if len(opening.found) > opening.kept:
                opening.found = [ref for ref in opening.found if ref() is not None]
                opening.kept = 2 * len(opening.found) + 1_000

    def _moved(self, opening: _Opening) -> list[Any]:
        """Return what was made in `opening` and is not young any more."""
        older = (each for generation in range(1, min(opening.passed + 2, 3)) for each in _find(generation))
        return [each for each in older if self._surely(each, opening)]

    def _surely(self, work: Any, opening: _Opening) -> bool:
        if type(work) is not types.CoroutineType or not opening.depth or _unstarted(work) is None:
            return False
        return _frames(work) == opening.depth

    def _belongs(self, work: Any, opening: _Opening) -> bool:
        """Return whether `work` was made in `opening`, as far as what was recorded with it tells."""
        if type(work) is not types.CoroutineType:
            return True
        return not opening.depth or _frames(work) == opening.depth

    def _settle(self, opening: _Opening, young: list[Any]) -> None:
        """Remember what was not started of the objects that were made in `opening`, and of the unsure ones."""
        candidates: list[tuple[int | None, Any]] = [(None, ref()) for ref in opening.found]
        candidates += [(None, work) for work in young]
        while self._drifting:
            then, ref = self._drifting.popleft()
            candidates.append((then, ref()))
        driven: set[int] = set()
        found: list[tuple[int, Any, types.FrameType, bool]] = []
        now = context.opened_so_far()
        for noted, work in candidates:
            frame = None if work is None else _unstarted(work)
            if frame is None or self._known(frame) is not None:
                continue
            if id(frame.f_code) in context.DRIVES:  # what it drives is no candidate; it is one without a scope
                driven.add(id(frame.f_locals.get("inner")))
                if context.has_scope(frame.f_locals.get("run")):
                    continue
            sure: bool | None = False if noted is not None else self._is_made_in(opening, work)
            if sure is not None:
                found.append((now if noted is None else noted, work, frame, sure))
        if not found:
            return
        self.idle = 0
        self._found()
        scope = Scope(opening.scope.attribution, "carried", None, None, opening.scope.since)
        for recorded, work, frame, sure in found:
            if id(work) not in driven:
                self.made[id(frame)] = _Made(work, frame, scope if sure else None, self.made, recorded)

    def _is_made_in(self, opening: _Opening, work: Any) -> bool | None:
        """Return True for sure, False for perhaps, None for no."""
        coroutine = type(work) is types.CoroutineType
        if not opening.fresh:
            # the scopes of its thread that count as fresh still are suspended with it: their word comes a moment later
            suspended = {_UNSURE, *(each.depth for each in opening.thread.fresh)}
            return False if not coroutine or _frames(work) in suspended else None
        if not self._belongs(work, opening):
            return False if _frames(work) == _UNSURE else None
        if coroutine and opening.depth:
            return True
        return not _others_make_work(coroutines=not opening.depth)

    # -- using -----------------------------------------------------------------------------------------------------

    def _innermost(self, frame: types.FrameType | None) -> tuple[_Made | _Body, Any] | None:
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

    def _known(self, frame: types.FrameType) -> tuple[_Made | _Body, Any] | None:
        """Return what is known of the object whose frame it is. The frame of one that has ended may come again."""
        found = self.made.get(id(frame))
        if found is None or isinstance(found, _Body):
            return None if found is None else (found, None)
        work = found.work()
        return (found, work) if work is not None and _frame(work) is frame else None

    def resolved(self, here: Scope) -> Scope:
        """Return the scope in which the innermost foreign object on the stack was made, `here` when there is none."""
        if not self.made:
            return here
        innermost = self._innermost(sys._getframe(1))
        if innermost is None:
            return here
        found, work = innermost
        if here.origin is found or (isinstance(found, _Made) and not found.kept and _is_task_root(work)):
            return here
        return self._of(found, here)

    def _of(self, found: _Made | _Body, here: Scope) -> Scope:
        if isinstance(found, _Body):
            own = found.scope
            return Scope(own.attribution, own.hop, here.operation, found, own.since)
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
            if isinstance(found, _Made) and found.work() is work:
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
        if not isinstance(found, _Made) or found.work() is not work:
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


_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _generator_body(frame: types.FrameType | None) -> types.FrameType | None:
    """Return the frame of the generator in whose body a scope is opened, None where it is none.

    `frame` is the scope's own `__enter__`. A generator that makes a context manager stands in for who enters that.
    """
    frame = None if frame is None or frame.f_code.co_name != "__enter__" else frame.f_back
    if frame is not None and frame.f_code.co_name == "__aenter__" and frame.f_globals.get("__name__") == _CONTEXT:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_flags & _GENERATORS:
        entering = frame.f_back
        if entering is None or entering.f_globals.get("__name__") != "contextlib":
            return frame
        while entering is not None and entering.f_globals.get("__name__") == "contextlib":
            entering = entering.f_back
        frame = entering
    return None


def _perhaps_unsure(works: list[Any]) -> list[weakref.ref[Any]]:
    """Return those of some objects that may have been made in a scope that was suspended."""
    found = []
    for work in works:
        kind = type(work)
        if kind is types.AsyncGeneratorType:
            perhaps = _unstarted(work) is not None
        elif kind is types.CoroutineType:
            unstarted = _unstarted(work) is not None
            perhaps = _frames(work) == _UNSURE if unstarted else _HALF_MADE and work.cr_frame is None
        else:
            perhaps = False
        if perhaps:
            found.append(weakref.ref(work))
    return found


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
