"""Brings the scope of an item to who gets it: to the code that asked, or to the task that waits for its getter."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context
from types import FrameType
from typing import Any

from attribkit import context, faults
from attribkit.context import Scope, enter
from attribkit.context import scope as in_variable
from attribkit.instrumentation.hops.frames import frames_above, user_of
from attribkit.instrumentation.hops.parcels import Parcel
from attribkit.instrumentation.hops.queues import known
from attribkit.instrumentation.hops.queues.batches import gathered
from attribkit.instrumentation.hops.queues.callsites import Caller, caller
from attribkit.instrumentation.hops.queues.claims import beside_of, is_stack
from attribkit.instrumentation.hops.queues.consumers import Given, base_of, is_consumer, merged
from attribkit.instrumentation.hops.queues.items import NOTHING, kind
from attribkit.instrumentation.hops.queues.known import OF_ITEM, lent, thread

__all__ = ["arrived", "asked", "begins", "for_waiter", "got"]


def asked(of: Any, here: Scope, awaits: bool) -> None:
    """A consumer asks for its next item: the last one is done, unless it gathers."""
    if isinstance(here, Given):
        who = caller(frames_above(sys._getframe(1)))
        if is_consumer(who) and who is not None and not who.site.collects and (who.site.awaited or not awaits):
            enter(here.base)
            context.moved()
    elif here.opener is not OF_ITEM:
        beside_of(of).took(here)


def got(of: Any, item: object, here: Scope) -> object:
    """Put the scope of `item` in force where the running code is a consumer; return what that gets."""
    beside = known.beside.get(id(of))
    claim = None if beside is None else beside.got(item)
    if claim is not None and known.serving and user_of(sys._getframe(1)) == _MANAGER:
        return Parcel(item, claim.attribution.fields)
    arrived(of, item, claim, here)
    return item


_MANAGER = ("multiprocessing.managers", "serve_client")


def arrived(of: Any, item: object, claim: Scope | None, here: Scope) -> None:
    """Do the same for an item that has brought its scope itself, or None."""
    if claim is None and not isinstance(here, Given) and not lent:
        return
    who = caller(frames_above(sys._getframe(1)))
    if who is None:  # asyncio itself called: the getter runs in a task of its own
        _hand_over(of, item, claim, here)
    elif is_consumer(who):
        given = _given(item, _counting(of, claim, who), who, here, context.place())
        if given is not None and given is not in_variable():
            enter(given)
            context.moved()


def _given(item: object, claim: Scope | None, who: Caller, here: Scope, place: object) -> Scope | None:
    """Return what is in force at a consumer that got `item`; None to leave it as it is."""
    base = base_of(here)
    if base.attribution.tenant_id is not None and base.opener is not None and base.opener == place:
        return base
    if claim is None and kind(item) == NOTHING:
        return None if who.site.collects else base
    scope = None if claim is None else merged(claim, who, base)
    if who.site.collects and (scope is not None or isinstance(here, Given)):
        return gathered(here, item, scope, base, who, place)
    return base if scope is None else Given(scope, base, who, place)


def _counting(of: Any, claim: Scope | None, who: Caller) -> Scope | None:
    """Return the claim, None for one on what comes from a stack unless `who` certainly takes work from it."""
    if claim is not None and is_stack(of) and not (who.loops and who.direct and not who.site.puts_back):
        return None
    return claim


# -- tasks and threads that begin --------------------------------------------------------------------------------------


def _let_go() -> None:
    here = in_variable()
    if isinstance(here, Given):
        here.let_go(sys._getframe(1))


def begins(of: Context | None) -> None:
    """A task or a thread is about to begin in a copy of the context here, or in the context `of`."""
    try:
        _let_go()
        if of is not None:
            of.run(_let_go)
    except RuntimeError:  # it is entered already
        pass


# -- getters that run in a task or a thread of their own --------------------------------------------------------------


def _hand_over(of: Any, item: object, claim: Scope | None, here: Scope) -> None:
    """Nobody of the app called: give the item's scope to the task that waits for this getter, if one certainly does."""
    tasks: Any = sys.modules.get("asyncio.tasks")
    task = None if tasks is None or tasks.events._get_running_loop() is None else tasks.current_task()
    if task is None:
        thread.got = of, item, claim  # `for_waiter` asks for it
    elif not _deliver(of, task, item, claim):
        beside_of(of).loosen()
        if isinstance(here, Given):
            here.spoil()


def _deliver(of: Any, future: Any, item: object, claim: Scope | None) -> bool:
    """Give an item's scope to the task that is suspended until `future` is done; return whether there is one."""
    delivered = False
    for callback, own in future._callbacks or ():
        waiter, kept = _waiter(callback)
        if waiter is None:
            delivered = _deliver_to(of, callback, own, item, claim, kept) or delivered
        else:
            for inner, context_of in waiter._callbacks or ():
                delivered = _deliver_to(of, inner, context_of, item, claim, kept) or delivered
    return delivered


def _waiter(callback: Any) -> tuple[Any, bool]:
    """Return the future that a callback of `asyncio.wait_for` (before 3.12) or `asyncio.wait` sets, and whether the app
    may have kept what it waits for."""
    if isinstance(callback, functools.partial):
        waiter: Any = callback.args[0] if callback.args else None
        return (waiter, False) if hasattr(waiter, "_callbacks") else (None, True)
    code = getattr(callback, "__code__", None)
    if code is not None and code.co_name == "_on_completion" and "waiter" in code.co_freevars:
        waiter = callback.__closure__[code.co_freevars.index("waiter")].cell_contents
        return (waiter, True) if hasattr(waiter, "_callbacks") else (None, True)
    return None, True


def _deliver_to(of: Any, wakeup: Any, own: Any, item: object, claim: Scope | None, kept: bool) -> bool:
    task: Any = getattr(wakeup, "__self__", None)
    if not hasattr(task, "get_coro"):
        return False
    who = caller(_frames_of(task.get_coro()))
    here = own.run(in_variable)
    beside = beside_of(of)
    given: Scope | None = None
    if is_consumer(who) and who is not None:
        given = (
            base_of(here)
            if kept and beside.loose
            else _given(item, _counting(of, claim, who), who, here, weakref.ref(task))
        )
    if given is not None:
        own.run(enter, given)
        if kept and isinstance(given, Given):
            beside.lent.add(given)
            lent.add(given)
    return True


def for_waiter(of: Any, function: Callable[..., Any], loop: Any) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    """Return what stands for `function`, a `get` that runs in a thread for a task of `loop`, and what is to be told of
    the future for which that task waits."""
    futures: list[Any] = []

    def settle(got: tuple[Any, object, Scope | None]) -> None:
        try:
            if futures and not futures[0].done() and not _deliver(got[0], futures[0], got[1], got[2]):
                beside_of(got[0]).loosen()
        except Exception as fault:
            faults.note("queues.settle", fault)

    def get(*more: Any) -> Any:
        thread.got = None
        item = function(*more)
        got, thread.got = thread.got or (of, item, None), None
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, got)
        return item

    return get, futures.append


def _frames_of(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, innermost first."""
    frames: list[FrameType] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is None:
            break
        frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return reversed(frames)
