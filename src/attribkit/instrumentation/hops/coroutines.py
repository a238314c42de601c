"""asyncio: coroutine and async generator objects that are made in one scope and run in another.

Neither kind of object has a context of its own: a task copies the context of whoever creates the task, and a body that
is awaited or iterated runs in its consumer's. So a coroutine that was made in tenant A's scope and is gathered after it
runs for nobody, and gathered under tenant B runs for B. Here such an object is found when the scope in which it was
made closes, or another opens, and its body runs in that scope wherever it is started.

Finding it has to be certain. While a scope is open its thread records where coroutines are made
(`sys.set_coroutine_origin_tracking_depth`), and the number of frames recorded is the scope's own, so that the origin
says in which open scope of which thread the object was made. A scope that was suspended meanwhile, so that other tasks
ran in its thread, cannot be told from those: nothing is recorded in it any more, and what is made then is *unsure*. It
runs in the scope in which it is awaited if that one was already open when the object was made, and without a tenant,
reported with the line to mend, if it is a later one. The same holds in a scope around a whole loop.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
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
from attribkit.instrumentation.hops.births import Births, Mark, Watch, When, frame_of, unstarted

__all__ = ["Coroutines"]

_DEPTHS = (*range(1, 10), *range(11, 25))
"""Frames recorded for a coroutine that is made in a scope: a number for each scope that is open at one time, where the
stack has as many frames. asyncio's debug mode records 10."""
_OURS = frozenset(_DEPTHS)
_LOOPS = frozenset({"run_forever", "run"})
_set_depth = sys.set_coroutine_origin_tracking_depth
_get_depth = sys.get_coroutine_origin_tracking_depth
_running_loop = events._get_running_loop
_thread_ident = threading.get_ident


class _Thread:
    """The open scopes of one thread."""

    __slots__ = ("context", "fresh", "ident", "loop", "suspended")

    def __init__(self) -> None:
        self.ident = threading.get_ident()
        self.context = Context()
        self.fresh: list[_Opening] = []
        """Those that were not suspended since they opened; the innermost is the last."""
        self.suspended = 0
        self.loop: object = None
        """The loop that will say when the step under way has ended."""


class _Opening(Mark):
    """A scope while it is open."""

    __slots__ = ("body", "depth", "foreign", "fresh", "mixed", "outside", "rests", "scope", "task", "thread")

    def __init__(self, when: When, scope: Scope, thread: _Thread, task: object) -> None:
        self.when = when
        self.scope = scope
        self.thread = thread
        self.task = task
        """The task in whose step it opened."""
        self.depth = 0
        """How many frames are recorded in it: its number. 0: it has none."""
        self.foreign = False
        """True where another tool records."""
        self.body: _Body | None = None
        self.fresh = True
        """False once other tasks, or a scope without a number, may have made what cannot be told from its own."""
        self.outside = False
        """True where no loop was running in its thread when it opened."""
        self.rests = False
        """True if nothing is recorded in it any more."""
        self.mixed = False
        """True if a loop runs in it whose tasks may have other scopes."""


_serial = itertools.count(1)
"""Numbers scopes as they open; it goes on where attribkit is turned off and on again."""
_CONTEXT = context.__name__


class _Body:
    """A scope that is open in the body of a generator: it holds whenever that body runs, and other scopes may have been
    opened and closed since it ran last."""

    __slots__ = ("before", "frame", "held", "scope")

    def __init__(self, frame: types.FrameType, scope: Scope, before: _Made | _Body | None) -> None:
        self.frame = id(frame)
        self.held: types.FrameType | None = frame
        """Kept until the scope closes, so that no other frame takes its place."""
        self.scope = scope
        self.before = before
        """What was known of the same frame."""


class _Made:
    """An object that was made in a scope and is started in another, or may be."""

    __slots__ = ("frame", "kept", "line", "opening", "recorded", "scope", "work")

    def __init__(
        self,
        work: Any,
        frame: types.FrameType,
        opening: _Opening | None,
        when: When,
        gone: Callable[[_Made], None],
    ) -> None:
        self.frame = id(frame)
        self.opening = opening
        """The one in which it was made, or may have been; None: any that was open then."""
        self.scope: Scope | None = None
        """Its own, where that is sure."""
        self.recorded = when[1]
        """`context.opened_so_far()` when it was made: a scope with a greater number was not open then."""
        self.kept = False
        """True for the root of a task that was created with a context of its creator's choice."""
        origin = getattr(work, "cr_origin", None)
        self.line = f"{origin[0][0]}:{origin[0][1]}" if origin else ""
        """Where it was made, if that was recorded."""

        self.work = weakref.ref(work, lambda _: gone(self))

    def belongs(self, opening: _Opening) -> None:
        """It was made in `opening` for sure."""
        own = opening.scope
        self.scope = Scope(own.attribution, "carried", None, None, own.since)
        self.opening = None


class Coroutines:
    """What `context.Origins` asks for. One an `instrument()`.

    Objects are looked at whenever a scope opens, closes or is suspended, so that none which was made before can be
    started in a scope that is opened later without its being known. A garbage collection moves them out of the
    youngest generation meanwhile: what it moves is listed as it starts.
    """

    def __init__(self, found: Callable[[], None]) -> None:
        """`found` is called when there are such objects."""
        self._found = found
        self.made: dict[int, _Made | _Body] = {}
        """By the identity of the object's frame. Nothing is put into it but with `asking` held."""
        self._dead: deque[_Made] = deque()
        self.idle = 0
        self._threads = threading.local()
        self._free = list(_DEPTHS)
        self._fresh: dict[int, _Opening] = {}
        """The scopes of all threads that were not suspended since they opened."""
        self._numbered: dict[int, _Opening] = {}
        """Those that have a number, by it."""
        self._suspended = self._foreign = self._resting = 0
        self._scopes = 0
        """The number of the one that was opened last."""
        self._left = self._looked = 0
        """Scopes that have closed while they were suspended, and how many of those when `_sort` looked last."""
        self._alone: _Opening | None = None
        """The only scope that is open, was not suspended, and was opened outside of any loop."""
        self._births = Births(self._moment, self._watched, _Opening)
        self._stops = context.DRIVES | {id(events.Handle._run.__code__)}
        self._reported: set[str] = set()

    # -- on and off ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch scopes."""
        self._births.start()
        context.remember_origins(self, self.made)

    def stop(self) -> None:
        """End it. What is under way runs on in the context of its consumer."""
        context.remember_origins(None)
        self._births.stop()
        if _get_depth() in _OURS:
            _set_depth(0)
        self.made.clear()
        self._fresh.clear()

    def forked(self) -> None:
        """In a child process there is one thread, and no scope of the others."""
        thread = self._thread()
        self._births.forked()
        self._fresh = {id(each): each for each in thread.fresh}
        self._numbered = {each.depth: each for each in thread.fresh if each.depth}
        self._free = [depth for depth in _DEPTHS if depth not in self._numbered]
        self._suspended = thread.suspended
        if id(self._alone) not in self._fresh:
            self._alone = None

    # -- scopes open and close -------------------------------------------------------------------------------------

    def opened(self, scope: Scope) -> _Opening | None:
        """Number the scope, and have its thread record the coroutines that are made in it."""
        try:
            opening = self._open(scope)
            frame = _generator_body(sys._getframe(1))
            if frame is not None:
                key = id(frame)
                with self._births.asking:
                    body = opening.body = scope.origin = _Body(frame, scope, self.made.get(key))
                    self.made[key] = body
                self.idle = 0
                self._found()
            return opening
        except Exception as error:
            faults.note("coroutines.opened", error)
            return None

    def _open(self, scope: Scope) -> _Opening:
        thread = self._thread()
        loop = _running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        alone = not self._is_open()
        if not alone:
            if loop is not None:
                self._end_step(thread, task)
            self._sort(thread)
        self._scopes = next(_serial)
        opening = _Opening(self._moment(), scope, thread, task)
        if loop is None:
            opening.outside = True
        elif thread.loop is not loop:
            thread.loop = loop
            loop.call_soon(self._stepped, thread, context=thread.context)
        if not alone:
            self._alone = None
            for each in tuple(self._fresh.values()):
                each.mixed = True
            opening.mixed = True
        before = _get_depth()
        if not before or before in _OURS:
            depth = self._number()
            if depth:
                opening.depth = depth
                self._numbered[depth] = opening
            else:
                opening.fresh = False
                self._suspend(thread)
            _set_depth(depth)
        else:
            opening.foreign = True
            self._foreign += 1
        if opening.fresh:
            thread.fresh.append(opening)
            self._fresh[id(opening)] = opening
        else:
            thread.suspended += 1
            self._suspended += 1
        if alone:
            if opening.outside:
                self._alone = opening  # first: of two threads here, the later one sees both
            if len(self._fresh) == 1 and not self._is_unsure():
                self._births.skip(opening)  # whatever there is was made in no scope
            else:  # another thread has opened one at the same time
                self._alone = None
                self._sort(thread)
        self._births.be_last()
        return opening

    def _end_step(self, thread: _Thread, task: object) -> None:
        """Suspend the scopes of a thread if they were opened in the step of another task than the running one."""
        if any(each.task is not task and not each.outside for each in thread.fresh):
            self._suspend(thread)

    def _is_open(self) -> bool:
        """Return whether any scope is, or has been since it was looked at what was made."""
        return bool(self._fresh) or self._is_unsure()  # in this order: a scope is fresh, suspended, and then left

    def _is_unsure(self) -> bool:
        """Return whether any scope is suspended, or was when it closed and nobody has looked since."""
        return self._suspended > 0 or self._left != self._looked

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

    def _stepped(self, thread: _Thread) -> None:
        """The step is over in which scopes were opened that are open still."""
        thread.loop = None
        if thread.fresh:
            try:
                self._suspend(thread)
            except Exception as error:
                faults.note("coroutines.suspend", error)

    def _suspend(self, thread: _Thread) -> None:
        """From now on other tasks run while the scopes of a thread are open: what is made cannot be told apart."""
        lost = tuple(thread.fresh)
        self._sort(thread, lost=lost)
        thread.fresh = []
        thread.suspended += len(lost)
        self._suspended += len(lost)  # before they cease to be fresh: another thread may ask in between
        if self._alone in lost:
            self._alone = None
        for opening in lost:
            opening.fresh = False
            opening.task = None
            self._fresh.pop(id(opening), None)
            self._free_number(opening)
        if _get_depth() in _OURS:
            _set_depth(0)

    def _free_number(self, opening: _Opening) -> None:
        if opening.depth:
            self._numbered.pop(opening.depth, None)
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
        if body is not None:
            with self._births.asking:
                if self.made.get(body.frame) is body:
                    self.made.pop(body.frame, None)
                    if body.before is not None:
                        self.made[body.frame] = body.before
            body.held = None
        here = thread is self._thread()
        if here:
            loop = _running_loop()
            if loop is not None:
                self._end_step(thread, asyncio.current_task(loop))
            if opening.fresh:
                self._sort(thread)
            else:  # nothing can be told of what was made in it, and whoever opens a scope next looks
                self._left += 1
        else:
            self._sort(thread, lost=(opening,))
        if opening.fresh:
            if opening in thread.fresh:
                thread.fresh.remove(opening)
            self._fresh.pop(id(opening), None)
        else:
            thread.suspended -= 1
            self._suspended -= 1
        if opening.foreign:
            self._foreign -= 1
        if opening.rests:
            self._resting -= 1
        if self._alone is opening:
            self._alone = None
        if here:
            if _get_depth() in _OURS:
                _set_depth(thread.fresh[-1].depth if thread.fresh and not thread.fresh[-1].rests else 0)
            self._free_number(opening)  # another thread may record with it still

    # -- finding ---------------------------------------------------------------------------------------------------

    def _moment(self) -> When:
        return self._scopes, context.opened_so_far()

    def _watched(self) -> Watch:
        """Say what to look for when a garbage collection starts in this thread, and take the occasion to `_rest`."""
        looped = _running_loop() is not None
        if looped:
            self._rest()
        alone = self._alone
        if alone is not None and alone.thread.ident == _thread_ident():
            return alone.when  # a whole program runs in it: much is made, and hardly anything is left at the end
        if self._is_unsure():
            return "work"
        if not self._fresh:
            return "nothing"
        return "work" if looped else "types"

    def _rest(self) -> None:
        """Record no more in a scope in which a whole loop runs: every call of a client makes a hundred coroutines."""
        fresh = self._thread().fresh
        if fresh and fresh[-1].outside and not fresh[-1].rests and _get_depth() == fresh[-1].depth:
            fresh[-1].rests = True
            self._resting += 1
            _set_depth(0)

    def _sort(self, thread: _Thread, lost: tuple[_Opening, ...] = ()) -> None:
        """Say to which scope each object belongs that was made and not started, as far as it can be told."""
        with self._births.asking:
            while self._dead:
                self._gone(self._dead.popleft())
            left = self._left
            candidates = self._births.taken()
            driven: set[int] = set()
            found: list[tuple[When, Any, types.FrameType]] = []
            for when, work in candidates:
                frame = unstarted(work)
                if frame is None:
                    continue
                if id(frame.f_code) in context.DRIVES:  # what it drives is no candidate; it is one without a scope
                    driven.add(id(frame.f_locals.get("inner")))
                    if context.has_scope(frame.f_locals.get("run")):
                        continue
                found.append((when, work, frame))
            for when, work, frame in found:
                if id(work) not in driven:
                    self._judge(when, work, frame, thread, lost)
            self._looked = left

    def _gone(self, made: _Made) -> None:
        """An object is no more. Its frame may be another's by now, which another thread may be about to remember."""
        if not self._births.asking.acquire(blocking=False):
            self._dead.append(made)
            return
        try:
            if self.made.get(made.frame) is made:
                del self.made[made.frame]
        finally:
            self._births.asking.release()

    def _judge(
        self, when: When, work: Any, frame: types.FrameType, thread: _Thread, lost: tuple[_Opening, ...]
    ) -> None:
        """Remember where an object was made, unless no scope was open there. It is looked at again where a later
        moment may tell."""
        coroutine = type(work) is types.CoroutineType
        frames = _frames(work) if coroutine else 0
        opening: _Opening | None
        later = False
        if frames in self._numbered:
            opening = self._numbered[frames]
            if opening.thread is thread and (not lost or opening.outside):
                sure = opening.fresh and not (
                    opening.outside and opening.mixed and (lost or _running_loop() is not None)
                )
            else:
                sure = False
                later = opening not in lost
            if (
                when < opening.when  # its number was another's before
                or opening.body is not None  # whoever runs while that body is suspended has its number too
                or (opening.outside and not sure)
            ):
                opening, sure, later = None, False, False
        elif coroutine and not (frames and self._foreign):
            if not (self._resting or self._is_unsure()):
                return  # made in no scope of ours
            opening, sure = None, False
        else:
            opening = thread.fresh[-1] if thread.fresh and thread.fresh[-1].when <= when else None
            if not thread.fresh and not self._is_open():
                return  # made where no scope was open
            sure = opening is not None and not lost and not _others_make_work(coroutines=coroutine)
            opening = opening if sure else None
        known = self._known(frame)
        if known is None:
            made = self.made[id(frame)] = _Made(work, frame, opening, when, self._gone)
            self.idle = 0
            self._found()
        elif isinstance(known[0], _Made) and opening is not None and known[0].opening is opening:
            made = known[0]
        else:
            return
        if sure and opening is not None:
            made.belongs(opening)
        elif later:
            self._births.again(when, work)

    # -- using -----------------------------------------------------------------------------------------------------

    def _innermost(self, frame: types.FrameType | None) -> tuple[_Made | _Body, Any] | None:
        made, stops = self.made, self._stops
        while frame is not None:
            if id(frame) in made:
                known = self._known(frame)
                if known is not None:
                    driver = frame.f_back  # it may have been given a scope of its own since
                    return None if driver is not None and id(driver.f_code) in context.DRIVES else known
            frame = frame.f_back
            if frame is None or id(frame.f_code) in stops:
                return None
        return None

    def _known(self, frame: types.FrameType) -> tuple[_Made | _Body, Any] | None:
        """Return what is known of the object whose frame it is. The frame of one that has ended may come again."""
        found = self.made.get(id(frame))
        if found is None or isinstance(found, _Body):
            return None if found is None else (found, None)
        work = found.work()
        return (found, work) if work is not None and frame_of(work) is frame else None

    def resolved(self, here: Scope) -> Scope:
        """Return the scope in which the innermost foreign object on the stack was made, `here` when there is none."""
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
            if here.since == scope.since and here.attribution == scope.attribution:
                return _in_body(here, found)
            return Scope(scope.attribution, "carried", here.operation, found, scope.since)
        tenant = here.attribution.tenant_id
        opening = found.opening
        if tenant is not None and (
            here.since <= found.recorded if opening is None else here.since == opening.scope.since
        ):
            return _in_body(here, found)
        if tenant is not None or found.line:  # otherwise it was made in no scope at all, perhaps
            self._report(found)
        if tenant is None:
            return _in_body(here, found)
        return Scope(here.attribution.without("tenant_id"), "none", here.operation, found, here.since)

    def placed(self, scope: Scope) -> Scope:
        """Return `scope` as one that is opened in the body of the innermost foreign object on the stack."""
        innermost = self._innermost(sys._getframe(1))
        if innermost is None or scope.origin is innermost[0]:
            return scope
        return Scope(scope.attribution, scope.hop, scope.operation, innermost[0], scope.since)

    def settled(self, work: object) -> None:
        """`work` has got a scope of its own."""
        if self.made and type(work) in (types.CoroutineType, types.AsyncGeneratorType):
            frame = frame_of(work)
            found = self.made.get(id(frame))
            if isinstance(found, _Made) and found.work() is work:
                self.made.pop(id(frame), None)

    def _report(self, found: _Made) -> None:
        work = found.work()
        frame = None if work is None else frame_of(work)
        if frame is None:
            return
        code, awaited = frame.f_code, frame.f_back
        what = f"of {code.co_qualname} ({code.co_filename}:{code.co_firstlineno})"
        if found.line:
            what += f" made at {found.line}"
        if awaited is not None and awaited.f_globals.get("__name__") != "asyncio.events":
            what += f" and awaited at {awaited.f_code.co_filename}:{awaited.f_lineno}"
        if what not in self._reported and len(self._reported) < 100:
            self._reported.add(what)
            logging.getLogger("attribkit").warning(
                "a coroutine %s runs in another scope, and its own cannot be told: its calls have no tenant. "
                "Wrap it where it is made: attribkit.carry(...)",
                what,
            )

    # -- tasks -----------------------------------------------------------------------------------------------------

    def create_task(
        self, wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a foreign coroutine, or one that a foreign body schedules, in a context of its own."""
        if not self.made:
            return wrapped(*args, **kwargs)
        work = args[0] if args else kwargs.get("coro")
        frame = frame_of(work) if type(work) is types.CoroutineType else None
        found = self.made.get(id(frame)) if frame is not None else None
        if not isinstance(found, _Made) or found.work() is not work:
            found = None
        if found is not None and (found.scope is None or kwargs.get("context") is not None):
            found.kept = True
            return wrapped(*args, **kwargs)
        here = context.scope()
        if found is not None:
            there = self._of(found, here)
            self.made.pop(found.frame, None)
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


def _in_body(here: Scope, found: _Made) -> Scope:
    """Return `here` as the scope of a body: a scope that is opened upon it is the body's own."""
    own = Scope(here.attribution, here.hop, here.operation, found, here.since)
    own.opener = here.opener
    return own


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
