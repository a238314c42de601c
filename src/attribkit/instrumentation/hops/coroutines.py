"""asyncio: coroutine and async generator objects that are made in one scope and run in another.

Neither kind of object has a context of its own: a task copies the context of whoever creates the task, and a body that
is awaited or iterated runs in its consumer's. So a coroutine that was made in tenant A's scope and is gathered after it
runs for nobody, and gathered under tenant B runs for B. Here such an object is found when a scope opens or closes,
before a task is created of it, and when somebody asks in whose scope it runs; and its body runs in the scope in which
it was made, wherever it is started.

Finding it has to be certain. While a scope is in force in a thread, the interpreter records there where coroutines are
made (`sys.set_coroutine_origin_tracking_depth`), and the number of frames recorded is the thread's own, so that the
origin says in which thread. A mark among the youngest objects, put there whenever another scope comes in force in that
thread, says in which scope: where one is opened or closed, and where a loop goes on with the step of another task.

One that is found when it has been started may have opened scopes in its own body. It has not opened one that was open
before it was made, nor made that none is in force. So only there is its own scope put into force.

What cannot be told is *unsure*: made in a thread that has no number, by a loop that is not asyncio's own and whose
steps are not seen, or, for an async generator, while another thread may have made it. It runs in the scope in which it
is started if that one was already open when the object was made (and in force in one of the threads, where that is
known), and otherwise without a tenant, reported with the line to mend.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
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
from typing import Any, Literal

from attribkit import context, faults
from attribkit.context import EMPTY, Scope
from attribkit.instrumentation.hops.births import Births, Mark, State, Watch, frame_of, frames_recorded, unstarted
from attribkit.instrumentation.hops.frames import frames_above
from attribkit.instrumentation.hops.scoped_threads import DEPTHS, Local, ScopedThread

__all__ = ["Coroutines"]

_OURS = frozenset(DEPTHS)
_ABOVE = 6
"""Our own frames on a stack where a number is looked for."""
_SPARE = 4
"""Frames of what opens a scope for its caller: less is recorded for the caller's own work."""
_BOTTOMS = frozenset({"_bootstrap", "<module>"})
"""Where stacks begin, so that one is seen to be lower than the number of its thread."""
_LOOPS = frozenset({"run_forever", "run"})
_HARMLESS = ("attribkit", "Otel")
"""How threads are named that make no work for an app."""
_set_depth = sys.set_coroutine_origin_tracking_depth
_get_depth = sys.get_coroutine_origin_tracking_depth
_running_loop = events._get_running_loop
_CONTEXT = context.__name__


class _Opening:
    """A scope while it is open."""

    __slots__ = ("blind", "body", "numberless", "thread")

    def __init__(self, thread: ScopedThread) -> None:
        self.thread = thread
        self.blind = False
        """True where nothing is recorded of what is made in it."""
        self.numberless = False
        """True where that is so because its thread has no number."""
        self.body: _Body | None = None


class _Since:
    """What a mark stands for: the scope in force from there on."""

    __slots__ = ("scope", "step", "task")

    def __init__(self, scope: Scope, step: int) -> None:
        self.scope = scope
        self.step = step
        self.task: object = None
        """The task in whose step it began, where the end of the step is not seen; what others make comes after it."""


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


_STARTERS = Scope(EMPTY.attribution)
"""Stands for the scope of whoever starts an object, if that one is open already."""


_AWAKE = Scope(EMPTY.attribution)
"""What a thread was not seen in yet."""


_Said = Scope | frozenset[str | None] | None
"""In which scope an object was made. A set: in one of these tenants', or in none. None: it is not known."""
_NOBODY: frozenset[str | None] = frozenset()
"""For work of a thread without a number."""


class _Made:
    """An object that was made in a scope and is started in another, or may be."""

    __slots__ = ("among", "begun", "frame", "frames", "kept", "line", "recorded", "scope", "work")

    def __init__(
        self,
        work: Any,
        frame: types.FrameType,
        said: _Said,
        recorded: int,
        gone: Callable[[_Made], None],
        begun: bool = False,
    ) -> None:
        self.frame = id(frame)
        self.scope: Scope | None = None
        """Its own, where that is sure."""
        self.recorded = recorded
        """`context.opened_so_far()` before it was made: scopes of these numbers were not opened in its own body."""
        self.among = said if isinstance(said, frozenset) else None
        """The tenants in whose scopes it may have been made; None where they are not known."""
        self.begun = begun
        """True if it was found when it had been started: its body may have opened scopes before that."""
        self.kept = False
        """True for the root of a task that was created with a context of its creator's choice."""
        origin = getattr(work, "cr_origin", None)
        self.line = f"{origin[0][0]}:{origin[0][1]}" if origin else ""
        """Where it was made, if that was recorded."""
        self.frames = len(origin) if origin else 0
        """How many frames were."""
        self.work = weakref.ref(work, lambda _: gone(self))
        if isinstance(said, Scope):
            self.belongs(said)

    def belongs(self, scope: Scope) -> None:
        """It was made in `scope` for sure."""
        self.scope = Scope(scope.attribution, "carried", None, None, scope.since)


class Coroutines:
    """What `context.Origins` asks for. One an `instrument()`.

    Objects are looked at whenever a scope opens or closes, so that none which was made before can be started in a scope
    that is opened later without its being known. A garbage collection moves them out of the youngest generation
    meanwhile: what it moves is listed as it starts.
    """

    def __init__(self, found: Callable[[], None], seen: Callable[[], bool], here: Local, free: list[int]) -> None:
        """`found` is called when there may be such objects. `seen` says whether the steps of asyncio's loops are.
        `here` has what is known of the threads in which loops have begun, and `free` the numbers that none has."""
        self._found = found
        self._seen = seen
        self.made: dict[int, _Made | _Body] = {}
        """By the identity of the object's frame. Nothing is put into it but with `asking` held."""
        self._dead: deque[_Made] = deque()
        self.idle = 0
        self._asked_once = False
        self._here = here
        self._free = free
        self._blind = 0
        """How many scopes are open in which nothing is recorded."""
        self._blind_lately = False
        """True if one was when what has not been looked at was made."""
        self._numberless = 0
        """How many of those in a thread without a number, which may be told from all others that has one."""
        self._opened_at_look = 0
        """`context.opened_so_far()` then, with the scope that was about to open."""
        self._alone: int | None = None
        """The only thread that has a number, if it has been in one scope ever since, by its identity."""
        self._resting: ScopedThread | None = None
        """The thread in which nothing is recorded as there is but the one scope around its loop."""
        self._others: Literal["", "threads", "loops"] | None = None
        """What `_others` has said in the look under way."""
        self._rested = False
        """True if one was resting when what has not been looked at was made."""
        self._births = Births(self._watched)
        self._stops = context.DRIVES | {id(inspect.unwrap(events.Handle._run).__code__)}
        self._reported: set[str] = set()

    # -- on and off ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch scopes."""
        self._births.start()
        context.remember_origins(self)

    def stop(self) -> None:
        """End it. What is under way runs on in the context of its consumer."""
        context.remember_origins(None)
        self._births.stop()
        if _get_depth() in _OURS:
            _set_depth(0)
        self.made.clear()

    def forked(self) -> None:
        """In a child process there is one thread, and no scope of the others."""
        thread = self.thread()
        self._births.forked(thread.number)
        self._free = thread.free = [depth for depth in DEPTHS if depth != thread.number]
        self._blind, self._numberless = thread.blind, 0
        self._alone = self._resting = None

    # -- scopes come in force --------------------------------------------------------------------------------------

    def opened(self, scope: Scope, at_once: bool = False, frame: types.FrameType | None = None) -> _Opening | None:
        """Have the thread record the coroutines that are made in the scope from here on. `frame` opens it; None is the
        caller's."""
        try:
            frame = _generator_body(frame or sys._getframe(1))
            with self._births.asking:
                if frame is None:
                    return self._open(scope, at_once)
                scope.origin = body = _Body(frame, scope, self.made.get(id(frame)))
                opening = self._open(scope, at_once)
                opening.body = self.made[body.frame] = body
            self._asked()
            return opening
        except Exception as error:
            faults.note("coroutines.opened", error)
            return None

    def _open(self, scope: Scope, at_once: bool) -> _Opening:
        thread = self.thread()
        if not self._asked_once:  # the first tasks may be created with contexts of their own
            self._asked_once = True
            self._asked()
        alone = len(self._free) == len(DEPTHS) and not self._blind
        if alone:
            self._births.skip()  # whatever there is was made in no scope
        elif not (at_once and thread.looked and _running_loop() is not None):
            self._look(thread)
        context.number(scope)
        self._opened_at_look = context.opened_so_far()
        opening = _Opening(thread)
        thread.opened += 1
        unseen = self._unseen()
        loop: Any = _running_loop()
        if loop is not None and unseen is None:
            loop._attribkit_thread = thread
        if not self._switch(scope, unseen, opens=True):
            self._blinded(opening)
            if not _get_depth():
                opening.numberless = True
                self._numberless += 1
        elif unseen is not None and loop is not None:
            if not thread.unseen:
                loop.call_soon(self._stepped, thread, context=Context())
            thread.unseen.append(opening)
        if alone and loop is None and thread.number:
            self._alone = threading.get_ident()
            if len(self._free) != len(DEPTHS) - 1:  # the step of another thread's loop has come between
                self._alone = None
        self._births.be_last()
        return opening

    def _blinded(self, opening: _Opening) -> None:
        self._asked()
        opening.blind = True
        opening.thread.blind += 1
        self._blind += 1
        self._blind_lately = True

    def _stepped(self, thread: ScopedThread) -> None:
        """The step is over in which scopes were opened, and those that follow are not seen."""
        try:
            with self._births.asking:
                self._look(thread)
                for opening in thread.unseen:
                    self._blinded(opening)
                thread.unseen = []
                self._switch(EMPTY)
        except Exception as error:
            faults.note("coroutines.stepped", error)

    def closed(self, opening: _Opening) -> None:
        """Find what was made in the scope and not started."""
        try:
            with self._births.asking:
                self._close(opening)
        except Exception as error:
            faults.note("coroutines.closed", error)

    def _close(self, opening: _Opening) -> None:
        body, thread = opening.body, opening.thread
        if body is not None:
            if self.made.get(body.frame) is body:
                self.made.pop(body.frame, None)
                if body.before is not None:
                    self.made[body.frame] = body.before
            body.held = None
        here = self.thread()
        self._look(here)
        thread.opened -= 1
        if opening.blind:
            thread.blind -= 1
            self._blind -= 1
            self._numberless -= opening.numberless
        elif opening in thread.unseen:
            thread.unseen.remove(opening)
        if thread is here:
            unseen = self._unseen()
            self._switch(context.scope() if unseen is None or thread.unseen else EMPTY, unseen)

    def _unseen(self) -> object:
        """Return what stands for the step under way of a loop whose steps are not seen, None where there is none."""
        loop = _running_loop()
        if loop is None or (isinstance(loop, asyncio.BaseEventLoop) and self._seen()):
            return None
        return asyncio.current_task(loop) or loop

    def moved(self) -> None:
        """Another scope has come in force in this thread."""
        scope = context.scope()
        thread = self._here.own
        if thread is None or scope is thread.scope or (not thread.number and _running_loop() is None):
            return
        if self._unseen() is None:
            self.step(scope)

    def begun(self) -> None:
        """A loop begins in this thread."""
        if self._alone == threading.get_ident():
            self._rest(self.thread())

    def _rest(self, thread: ScopedThread) -> None:
        """Record nothing while there is but the one scope around the loop of this thread."""
        self._resting, self._rested = thread, True
        if _get_depth() in _OURS:
            _set_depth(0)

    def _record(self, thread: ScopedThread) -> None:
        """Record with the thread's number."""
        if self._alone == threading.get_ident() and _running_loop() is not None:
            self._rest(thread)
            return
        _set_depth(thread.number)
        if self._resting is thread:
            self._resting = None

    def _end_alone(self, thread: ScopedThread) -> None:
        """There is more than one scope from now on."""
        self._alone = None
        if self._resting is not None and self._resting is not thread:
            self._resting.scope = _AWAKE  # so that it is marked at its next step, and records again

    def ended(self) -> None:
        """A loop has ended in this thread."""
        thread, scope = self._here.own, context.scope()
        if thread is not None and thread.number:
            self.step(scope)

    def step(self, scope: Scope) -> None:
        """This thread goes on in `scope`."""
        try:
            self._switch(scope)
        except Exception as error:
            faults.note("coroutines.step", error)

    def _switch(self, scope: Scope, task: object = None, *, opens: bool = False) -> bool:
        """Put a mark: this thread goes on in `scope`. Return False where nothing can be recorded.

        `task`: in whose step, where its end is not seen. `opens`: the app opens the scope here.
        """
        thread = self.thread()
        thread.scope = scope
        depth = _get_depth()
        if depth and depth not in _OURS:
            return False
        if scope is EMPTY:
            if thread.number:
                _set_depth(0)
                if thread is self._resting:
                    return True
                self._end_alone(thread)
                if thread.opened or _running_loop() is not None:
                    self._births.mark(thread.number, _Since(EMPTY, thread.step))
                else:
                    self._births.unmark(thread.number)
                    number, thread.number = thread.number, 0
                    heappush(self._free, number)
            return True
        if scope.operation is not None and not opens:
            # A client makes a hundred coroutines a call, and none is an app's. An async generator may be.
            if thread.number:
                _set_depth(0)
                latest = self._births.latest(thread.number)
                if latest is None or _tenant(latest.what.scope) != _tenant(scope):
                    within = Scope(scope.attribution, scope.hop, None, scope.origin, scope.since)
                    self._births.mark(thread.number, _Since(within, thread.step))
            return True
        if not thread.number:
            thread.number, thread.numbered = self._number(), context.opened_so_far()
            if not thread.number:
                return False
        latest = self._births.latest(thread.number)
        if latest is not None and not opens and latest.what.task is task and _is_same(latest.what.scope, scope):
            self._record(thread)
            return True
        since = _Since(scope, thread.step)
        since.task = task
        if isinstance(scope.origin, _Body):  # whoever runs while that body is suspended has its scope too
            since.scope = _STARTERS
        self._end_alone(thread)
        self._births.mark(thread.number, since)
        self._record(thread)
        if not thread.mixed and thread.first != _tenant(scope):
            thread.mixed = thread.first is not None
            thread.first = _tenant(scope)
            if thread.mixed:
                self._asked()
        return True

    def mixed(self) -> bool:
        """Return whether this thread may start what was made in another scope, or in another thread."""
        if self._numberless:
            return True
        thread = self._here.own
        if thread is None or not thread.number:
            return len(self._free) < len(DEPTHS)
        return thread.mixed or thread.scope is EMPTY or len(self._free) < len(DEPTHS) - 1

    def _asked(self) -> None:
        self.idle = 0
        self._found()

    def _number(self) -> int:
        """Return a number that no other thread has and that the stack can hold, 0 when there is none."""
        try:
            number: int = heappop(self._free)
        except IndexError:
            return 0
        if number > 1:
            self._asked()
            if not _is_high(number):
                heappush(self._free, number)
                return 0
        return number

    def thread(self) -> ScopedThread:
        """Return the running thread."""
        thread = self._here.own
        if thread is None:
            thread = self._here.own = ScopedThread(self._free)
        return thread

    # -- finding ---------------------------------------------------------------------------------------------------

    def _watched(self) -> Watch:
        """Say what to look for when a garbage collection starts in this thread."""
        if self._alone is not None and self._alone == threading.get_ident():
            return "later"  # a whole program runs in it: much is made, and hardly anything is left at the end
        return "work" if self._blind or len(self._free) < len(DEPTHS) else "nothing"

    def _look(self, thread: ScopedThread) -> None:
        """Say to which scope each object belongs that was made since the last look, as far as it can be told."""
        with self._births.asking:
            while self._dead:
                self._gone(self._dead.popleft())
            before, self._opened_at_look = self._opened_at_look, context.opened_so_far()
            thread.first, thread.mixed = _tenant(thread.scope), False
            driven: set[int] = set()
            found: list[tuple[State | Mark | None, Any, types.FrameType]] = []
            for mark, work in self._births.taken():
                frame = frame_of(work)
                if frame is None:
                    continue
                if id(frame.f_code) in context.DRIVES:  # what it drives is no candidate; it is one without a scope
                    driven.add(id(frame.f_locals.get("inner")))
                    if context.has_scope(frame.f_locals.get("run")):
                        continue
                found.append((mark, work, frame))
            self._others = None
            inside = self._inside() if found and self.made else None
            for mark, work, frame in found:
                if id(work) not in driven:
                    self._judge(mark, work, frame, thread, inside, before)
            self._rested, self._blind_lately = self._resting is not None, self._blind > 0

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
        self,
        mark: State | Mark | None,
        work: Any,
        frame: types.FrameType,
        thread: ScopedThread,
        inside: tuple[_Made | _Body, Any] | None,
        opened_before: int,
    ) -> None:
        """Remember where an object was made, unless no scope was in force there. `inside`: the body that looks."""
        recorded, begun = opened_before, unstarted(work) is None
        said: _Said
        if type(work) is types.CoroutineType:
            frames = frames_recorded(work)
            if frames not in _OURS:
                if not (self._blind or self._rested):
                    return  # made in no scope of ours
                said = None
                if not self._numberless:
                    recorded = self._opened_at_look if self._rested else opened_before
                elif work.cr_origin:  # of asyncio's debug mode
                    recorded = 0
                else:
                    said = _NOBODY
            elif frames > 1 and (work.cr_origin or (("", 0, ""),))[-1][2] in _BOTTOMS:
                said = _NOBODY  # the stack was not as high as the thread's number
            else:
                said = self._said(mark.get(frames) if isinstance(mark, dict) else mark, thread, inside)
        else:
            said = self._said_of_generator(mark, thread, inside)
        if said is EMPTY:
            return
        if isinstance(said, Scope) and type(said) is not Scope:
            origin = getattr(work, "cr_origin", None)
            said = said.of_work(origin[0] if origin else None) or _STARTERS
        if said is _STARTERS:
            said, recorded = None, self._opened_at_look
        known = self._known(frame)
        if known is None:
            if not (begun and (said is None or _is_under_way(work, frame, said))):
                self._remember(_Made(work, frame, said, recorded, self._gone, begun))
        elif isinstance(known[0], _Made) and known[0].scope is None and isinstance(said, Scope) and not begun:
            known[0].belongs(said)

    def _remember(self, made: _Made) -> None:
        self.made[made.frame] = made
        self._asked()

    def _said(self, mark: Mark | None, thread: ScopedThread, inside: tuple[_Made | _Body, Any] | None) -> _Said:
        """Return what a mark stands for, as the running thread may read it."""
        if mark is None:
            return _NOBODY
        since: _Since = mark.what
        if since.task is not None and (mark.number != thread.number or since.task is not self._unseen()):
            return None
        scope = since.scope
        if inside is None or scope.origin is inside[0]:
            return scope
        if mark is not self._births.latest(thread.number):
            return scope
        # The body of an object that was made elsewhere is under way, and may have made this one.
        among = _tenants(inside[0])
        return among | {scope.attribution.tenant_id} if among is not None and _is_certain(scope) else _STARTERS

    def _said_of_generator(
        self, state: State | Mark | None, thread: ScopedThread, inside: tuple[_Made | _Body, Any] | None
    ) -> _Said:
        """Return in which scope an async generator was made. It does not say in which thread."""
        if not isinstance(state, dict):
            return None
        if self._others is None:
            self._others = _others()
        mark = state.get(thread.number)
        if self._others == "loops" or (self._others and (mark is None or mark.what.step != thread.step)):
            among, more = _candidates(state), _NOBODY if inside is None else _tenants(inside[0])
            return None if self._blind_lately or among is None or more is None else among | more
        if not thread.number:
            return None if state or self._blind else EMPTY
        if self._rested:
            return _STARTERS
        return self._said(mark, thread, inside)

    # -- using -----------------------------------------------------------------------------------------------------

    def _inside(self) -> tuple[_Made | _Body, Any] | None:
        """Return the innermost object on the stack whose body is another scope's."""
        return self._innermost(sys._getframe(1), context.scope(), ours=True)

    def _innermost(
        self, frame: types.FrameType | None, here: Scope, *, ours: bool = False
    ) -> tuple[_Made | _Body, Any] | None:
        """Return the innermost object on the stack that was made elsewhere, where `here` is in force.

        `ours`: look on behind those that were made in that very scope.
        """
        made, stops = self.made, self._stops
        while frame is not None:
            if id(frame) in made:
                known = self._known(frame)
                if known is not None and not self._is_own(known[0], here) and not (ours and _is_of(known[0], here)):
                    driver = frame.f_back  # it may have been given a scope of its own since
                    return None if driver is not None and id(driver.f_code) in context.DRIVES else known
            frame = frame.f_back
            if frame is None or id(frame.f_code) in stops:
                return None
        return None

    def _is_own(self, found: _Made | _Body, here: Scope) -> bool:
        """Return whether an object that had been started when it was found may have opened the scope in force itself.

        It has not where another tenant's was open before the object was made, nor where none is.
        """
        if type(found) is not _Made or not found.begun or here is EMPTY:
            return False
        if type(here) is not Scope or not here.opened or here.since > found.recorded:
            return True
        if found.scope is not None:
            return _is_of(found, here)
        if found.among is _NOBODY:  # it may be what this thread has made without a number, or where its stack was low
            thread = self.thread()
            if not thread.number or found.recorded <= thread.numbered or 0 < found.frames <= thread.number:
                return True
        return _is_among(found, here)

    def _known(self, frame: types.FrameType) -> tuple[_Made | _Body, Any] | None:
        """Return what is known of the object whose frame it is. The frame of one that has ended may come again."""
        found = self.made.get(id(frame))
        if found is None or isinstance(found, _Body):
            return None if found is None else (found, None)
        work = found.work()
        return (found, work) if work is not None and frame_of(work) is frame else None

    def resolved(self, here: Scope) -> Scope:
        """Return the scope in which the innermost foreign object on the stack was made, `here` when there is none."""
        if _running_loop() is not None:
            thread = self.thread()
            thread.looked = self.mixed()
            if thread.looked:
                self._look(thread)
        return self._resolved(sys._getframe(1), here) if self.made else here

    def _resolved(self, frame: types.FrameType | None, here: Scope) -> Scope:
        innermost = self._innermost(frame, here)
        if innermost is None:
            return here
        found, work = innermost
        if here.origin is found or (isinstance(found, _Made) and not found.kept and _is_task_root(work)):
            return here
        if isinstance(found, _Made) and found.scope is None:  # it may have been made in a body that is under way
            frame = frame_of(work)
            here = here if frame is None else self._resolved(frame.f_back, here)
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
        if tenant is not None and here.since <= found.recorded and _is_among(found, here):
            return _in_body(here, found)
        if tenant is not None or found.line:  # otherwise it was made in no scope at all, perhaps
            self._report(found)
        if tenant is None:
            return _in_body(here, found)
        return Scope(here.attribution.without("tenant_id"), "none", here.operation, found, here.since)

    def placed(self, scope: Scope) -> Scope:
        """Return `scope` as one that is opened in the body of the innermost foreign object on the stack."""
        innermost = self._innermost(sys._getframe(1), context.scope()) if self.made else None
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
        work = args[0] if args else kwargs.get("coro")
        chosen: Context | None = kwargs.get("context")
        frame = None
        if type(work) is types.CoroutineType:
            frame, thread, number = work.cr_frame, self.thread(), frames_recorded(work)
            if number in _OURS:
                if thread.mixed or number != thread.number or context.scope() is EMPTY:
                    self._look(thread)
            elif self._numberless:
                self._look(thread)
        found = self.made.get(id(frame)) if frame is not None else None
        if not isinstance(found, _Made) or found.work() is not work:
            found = None
        here = context.scope()
        there = self._resolved(sys._getframe(1), here) if self.made else here
        if chosen is not None:
            if found is not None:
                found.kept = True
            elif frame is not None and there is not EMPTY and context.scope_of(chosen) is EMPTY:
                self._keep(work, frame, there)
            return wrapped(*args, **kwargs)
        if found is not None:
            there = self._of(found, there if found.scope is None else here)
            if there.attribution == here.attribution:
                there = here
            self.made.pop(found.frame, None)
        if there is here:
            return wrapped(*args, **kwargs)
        own = copy_context()
        own.run(context.enter, Scope(there.attribution, there.hop, None, None, there.since))
        return own.run(wrapped, *args, **kwargs)

    def _keep(self, work: Any, frame: types.FrameType, scope: Scope) -> None:
        """Have a task that is created with a context of its own, in which no scope is, run in its creator's."""
        with self._births.asking:
            made = _Made(work, frame, scope, 0, self._gone)
            made.kept = True
            self._remember(made)

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


def _is_high(number: int) -> bool:
    """Return whether the stack is higher than a thread's number, and will be where the thread makes its work."""
    try:
        frame: types.FrameType | None = sys._getframe(number + _ABOVE)
    except ValueError:
        return False
    for _ in range(_SPARE):
        if frame is None or frame.f_code.co_name in _BOTTOMS:
            return frame is not None
        frame = frame.f_back
    return frame is not None


def _is_same(one: Scope, other: Scope) -> bool:
    """Return whether work that is made in one scope is made in the other: what is carried is no new scope."""
    if one is other:
        return True
    plain = type(one) is Scope and type(other) is Scope  # what a queue's consumer has depends on where it is asked
    return plain and one.origin is other.origin and one.attribution == other.attribution


def _is_of(found: _Made | _Body, here: Scope) -> bool:
    """Return whether an object was made for sure in a scope of the tenant of `here`."""
    return type(found) is _Made and found.scope is not None and _tenant(found.scope) == _tenant(here)


def _tenants(found: _Made | _Body) -> frozenset[str | None] | None:
    """Return the tenants for one of which a body runs; None where they are not known."""
    if found.scope is not None:
        return frozenset((found.scope.attribution.tenant_id,))
    return found.among if isinstance(found, _Made) else None


def _is_among(found: _Made, here: Scope) -> bool:
    return found.among is None or here.attribution.tenant_id in found.among


def _is_under_way(work: Any, frame: types.FrameType, said: _Said) -> bool:
    """Return whether the body of a coroutine runs here, in the very scope in which it was made: so it does to its end,
    as whoever awaits it stays the same."""
    if type(work) is not types.CoroutineType or not work.cr_running or not isinstance(said, Scope):
        return False
    return _tenant(said) == _tenant(context.scope()) and any(each is frame for each in frames_above(sys._getframe()))


def _candidates(state: State) -> frozenset[str | None] | None:
    """Return the tenants whose scopes were in force in the threads, None where not all of them are certain."""
    sinces: list[_Since] = [mark.what for mark in state.values() if mark is not None]
    if any(each.task is not None or not _is_certain(each.scope) for each in sinces):
        return None
    return frozenset(each.scope.attribution.tenant_id for each in sinces)


def _is_certain(scope: Scope) -> bool:
    return type(scope) is Scope and scope is not _STARTERS


def _tenant(scope: Scope) -> object:
    """Return what two scopes of one tenant have in common."""
    return scope.attribution.tenant_id if type(scope) is Scope else scope


def _is_task_root(work: Any) -> bool:
    if _running_loop() is None:
        return False
    task = asyncio.current_task()
    return task is not None and task.get_coro() is work


def _others() -> Literal["", "threads", "loops"]:
    """Return whether there are other threads that may make an app's work, and whether one of them runs a loop."""
    mine = threading.get_ident()
    own = {each.ident for each in threading.enumerate() if each.name.startswith(_HARMLESS)}
    others = [top for thread, top in _tops().items() if thread != mine and thread not in own]
    if not others:
        return ""
    return "loops" if "uvloop" in sys.modules or any(map(_runs_loop, others)) else "threads"


def _tops() -> dict[int, types.FrameType]:
    """Return the innermost frame of each thread.

    Before 3.12 a garbage collection can begin in the middle of it, and one that frees a `threading.local` waits there
    for ever, for a lock that is held (https://github.com/python/cpython/issues/106883).
    """
    collects = sys.version_info < (3, 12) and gc.isenabled()
    if collects:
        gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collects:
            gc.enable()


def _runs_loop(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _LOOPS:
            module = frame.f_globals.get("__name__")
            if isinstance(module, str) and module.partition(".")[0] in ("asyncio", "trio", "anyio"):
                return True
        frame = frame.f_back
    return False
