"""Queues: an item that was put in a scope brings that scope to the consumer that gets it.

The scope stands beside the queue, never in the item. It comes in force in the consumer's own context, so tasks and
threads that the consumer starts for the item carry it on, and it ends with the next item.

A queue can also be a pool of connections or of keys, and what one tenant put back must not make another's work its own.
So an object that can be closed makes no claim, nor one that comes back under another tenant, nor one that is put by
whoever took from that queue in the same scope; and an item counts only where the code around the `get` is a consumer's.
"""

from __future__ import annotations

import functools
import os
import queue
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context
from types import FrameType, ModuleType
from typing import Any, cast

from attribkit import context, faults
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope, enter, in_force
from attribkit.context import scope as in_variable
from attribkit.instrumentation.hops.callsites import Caller, caller, frames_above, user_of
from attribkit.instrumentation.hops.mentions import left_over, meant, values_of
from attribkit.instrumentation.hops.parcels import Parcel
from attribkit.instrumentation.patching import Patch, Standby

__all__ = [
    "brought",
    "claimed",
    "note_arrived",
    "note_attempt",
    "note_got",
    "note_put",
    "patches",
    "replace_simple_queue",
]

_CLAIMS_KEPT = 64
"""Claims beyond twice the queue's size, before those are dropped whose item somebody took out by hand."""
_TAKERS_KEPT = 256
_OUT_KEPT = 4096
_PATIENCE = 1_000
_GATHERED_KEPT = 64
_HELD = 20_000
_PERSONAL = ("user_id", "session_id", "workflow_id", "workflow")
_MODULES = ("queue", "asyncio.queues")
_OF_ITEM = object()
"""The opener of a scope that an item brought."""


# -- what an item is --------------------------------------------------------------------------------------------------

_CLOSERS = ("close", "aclose", "disconnect", "__exit__", "__aexit__")
_WORK = frozenset({"coroutine", "generator", "async_generator", "Task", "Future", "Context"})
_NOTHING, _VALUE, _OBJECT, _RESOURCE = range(4)
_kinds: weakref.WeakKeyDictionary[type, int] = weakref.WeakKeyDictionary()
_SIGNALS = frozenset({type(None), bool, type(...), int, float})


def _kind(item: object) -> int:
    """Return whether an item says nothing (an end marker, a slot number), is a value, an object, or a resource."""
    cls = type(item)
    if cls in _SIGNALS:
        return _NOTHING if cls is not int or -257 < cast(int, item) < 4096 else _VALUE
    if cls is tuple or cls is list:
        return _kind_of_parts(cast("tuple[object, ...]", item))
    known = _kinds.get(cls)
    if known is None:
        if cls.__name__ not in _WORK and any(hasattr(cls, name) for name in _CLOSERS):
            known = _RESOURCE
        else:
            known = _OBJECT if cls.__weakrefoffset__ else _VALUE
        _kinds[cls] = known
    return known


def _kind_of_parts(parts: tuple[object, ...] | list[object]) -> int:
    """A connection beside its time stamp is a resource; one beside a prompt is a job."""
    resource = False
    for part in parts[:8]:
        cls = type(part)
        if cls not in _SIGNALS and cls is not tuple and cls is not list:
            if _kind(part) != _RESOURCE:
                return _VALUE
            resource = True
    return _RESOURCE if resource else _VALUE


# -- what stands beside a queue ---------------------------------------------------------------------------------------


class _Claim:
    """The scopes in which one object was put, as often as it is in the queue."""

    __slots__ = ("item", "scopes")

    def __init__(self, item: object, scope: Scope | None) -> None:
        self.item = item
        self.scopes: deque[Scope | None] = deque((scope,))


class _Beside:
    """What is known of one queue. Each step is one operation of a dict or a deque, so no lock is held: `put` may be
    called again from a signal handler or a finaliser in its own middle."""

    __slots__ = ("claims", "fifo", "lent", "loose", "out", "queue", "seen", "takers")

    def __init__(self, of: Any) -> None:
        key = id(of)
        self.queue = weakref.ref(of, lambda _: _beside.pop(key, None))
        get = getattr(type(of), "_get", None)
        self.fifo = get is None or (get.__module__ in _MODULES and get.__qualname__ == "Queue._get")
        self.claims: dict[int, _Claim] = {}
        self.seen: dict[int, tuple[weakref.ref[Any], Scope | None]] = {}
        """Objects and the scope in which they were first put; None once they came in another."""
        self.takers: dict[object, str] = {}
        """Tasks and threads that took from the queue in a tenant's scope of their own."""
        self.lent: weakref.WeakSet[_Given] = weakref.WeakSet()
        """What was given to tasks that waited for a getter of their own making."""
        self.loose = False
        """True once such a getter had an item before anybody waited for it: which one is worked on when is open."""
        self.out: dict[int, None] = {}
        """What came out of a stack, by hash: a thing that is put back is no work."""

    def loosen(self) -> None:
        self.loose = True
        for given in list(self.lent):
            given.spoil()

    def put(self, item: object, kind: int, here: Scope) -> bool:
        """Remember in which scope an item is put. Return whether `undo` has something to undo."""
        scope, fields = None, here.attribution
        if fields and kind != _NOTHING and kind != _RESOURCE:
            took = self.takers.get(context.place()) if self.takers and here.opener is not _OF_ITEM else None
            if (took is None or took != fields.tenant_id) and not (self.out and _likeness(item) in self.out):
                scope = Scope(fields, "carried")
        if kind == _OBJECT:
            scope = self._first(item, scope)
        key = id(item)
        claim = self.claims.get(key)
        if claim is not None:
            same = scope is not None and all(each and each.attribution == fields for each in claim.scopes)
            if not same and not (self.fifo and self._count(item) == len(claim.scopes)):
                claim.scopes = deque((None,) * len(claim.scopes))
                scope = None
            claim.scopes.append(scope)
            return True
        if scope is None:
            return False
        self.claims[key] = _Claim(item, scope)
        if len(self.claims) > _CLAIMS_KEPT:
            self._prune()
        return True

    def _first(self, item: object, scope: Scope | None) -> Scope | None:
        key = id(item)
        known = self.seen.get(key)
        if known is not None and known[0]() is item:
            before = known[1]
            if before is not None and (scope is None or scope.attribution != before.attribution):
                self.seen[key] = known[0], None
                return None
            return before
        seen = self.seen

        def gone(ref: weakref.ref[Any]) -> None:
            if seen.get(key, (None,))[0] is ref:
                seen.pop(key, None)

        seen[key] = weakref.ref(item, gone), scope
        return scope

    def undo(self, item: object) -> None:
        """The item did not get in."""
        claim = self.claims.get(id(item))
        if claim is not None:
            claim.scopes.pop()
            if not claim.scopes:
                self.claims.pop(id(item), None)

    def got(self, item: object) -> Scope | None:
        """Return the scope of an item that came out; None if it has none."""
        claim = self.claims.get(id(item))
        if claim is None:
            return None
        scope = claim.scopes.popleft()
        if not claim.scopes:
            self.claims.pop(id(item), None)
        return scope

    def came_out(self, item: object) -> None:
        if len(self.out) >= _OUT_KEPT:
            self.out.pop(next(iter(self.out)), None)
        self.out[_likeness(item)] = None

    def took(self, here: Scope) -> None:
        """Somebody in a tenant's scope of its own takes from the queue: what it puts may be what it took."""
        tenant = here.attribution.tenant_id
        if tenant is not None:
            if len(self.takers) > _TAKERS_KEPT:
                for place in list(self.takers):
                    if isinstance(place, weakref.ref) and place() is None:
                        self.takers.pop(place, None)
                if len(self.takers) > _TAKERS_KEPT:
                    self.takers.pop(next(iter(self.takers)), None)
            self.takers[context.place()] = tenant

    def _inside(self) -> Any:
        of: Any = self.queue()
        if hasattr(of, "waiting_senders"):
            return [*of.buffer, *of.waiting_senders.values()]
        stored = getattr(of, "_queue", None)
        return getattr(of, "queue", ()) if stored is None else stored

    def _count(self, item: object) -> int:
        return sum(each is item for each in list(self._inside()))

    def _prune(self) -> None:
        inside = self._inside()
        if inside != () and len(self.claims) > _CLAIMS_KEPT + 2 * len(inside):
            there = {id(each) for each in list(inside)}
            for key in [key for key in list(self.claims) if key not in there]:
                self.claims.pop(key, None)


def _likeness(item: object) -> int:
    """Return what a thing that is put back has in common with what came out; work can have it by chance."""
    try:
        return hash(item)
    except Exception:
        return id(item)


_beside: dict[int, _Beside] = {}
_lent: weakref.WeakSet[_Given] = weakref.WeakSet()
"""What is `lent` beside any queue."""
_thread = threading.local()


def _beside_of(of: Any) -> _Beside:
    known = _beside.get(id(of))
    if known is None:
        known = _beside.setdefault(id(of), _Beside(of))
    return known


# -- what a consumer works in -----------------------------------------------------------------------------------------


_lasting: weakref.WeakSet[_Given] = weakref.WeakSet()
"""All of which anybody still has one in force."""
_term = [object()]
"""Another one after each `uninstrument()`: what items brought before is over."""
_creating = Standby()
_idle = [0]
"""Tasks that were created with no item in force anywhere since the last one that was."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_creating.forked)


class _Given(Scope):
    """The scope of an item, in force at its consumer until the next one.

    It ends with the function that got the item, and with the loop in which it did. What was started meanwhile in
    another task or thread keeps it.
    """

    __slots__ = ("__weakref__", "base", "code", "frame", "item", "lines", "place", "term")

    def __init__(self, item: Scope, base: Scope, who: Caller, place: object) -> None:
        for name in _REST:
            setattr(self, name, getattr(EMPTY, name))
        self.opener = _OF_ITEM
        self.origin = context.placed(EMPTY).origin
        self.since = context.opened_so_far()
        self.item = item
        self.base = base
        """What is in force there without an item."""
        self.place = place
        self.frame, self.code, self.lines = id(who.frame), who.frame.f_code, who.site.lines
        self.term = _term[0]
        _lasting.add(self)
        _creating.wake()

    def let_go(self, running: FrameType | None) -> None:
        """Put it out of force if its consumer has ended: whose work begins there is not for its item."""
        if self.place == context.place():
            for frame in frames_above(running):
                if id(frame) == self.frame and frame.f_code is self.code:
                    lines = self.lines
                    if lines is None or lines[0] <= (frame.f_lineno or 0) <= lines[1]:
                        return
                    break
            enter(self.after())

    def now(self) -> Scope:
        """Return the scope that is in force where the running code reads this one."""
        if self.term is not _term[0]:
            return self.base
        running = sys._getframe(2)
        if self.place != context.place():
            return self.work(None, running)
        for frame in frames_above(running):
            if id(frame) == self.frame and frame.f_code is self.code:
                lines = self.lines
                if lines is None or lines[0] <= (frame.f_lineno or 0) <= lines[1]:
                    return self.work(frame, running)
                break
        return self.after()

    def after(self) -> Scope:
        """Return the scope where the consumer has ended: its own. If that is another tenant's than the item's, by which
        the work goes on is open, and there is none."""
        base = self.base
        own = base.attribution.tenant_id
        if own is None or all(scope.attribution.tenant_id == own for scope in self.scopes()):
            return base
        return Scope(base.attribution.without("tenant_id"), "none")

    def scopes(self) -> list[Scope]:
        """Return the scopes of the items."""
        return [self.item]

    def spoil(self) -> None:
        """It is no longer certain which item the consumer works on."""
        self.item = EMPTY

    def work(self, frame: FrameType | None, running: FrameType) -> Scope:
        """Return the scope of what the `running` code works on; `frame` is the consumer's if it is at work."""
        return self.item

    def of_work(self, made_at: tuple[str, int, str] | None) -> Scope | None:
        if made_at is None or self.item is EMPTY:
            return None
        file, line, name = made_at
        mine = file == self.code.co_filename and name == self.code.co_name
        return self.item if mine and (self.lines is None or self.lines[0] <= line <= self.lines[1]) else None

    @property
    def attribution(self) -> Attribution:  # type: ignore[override]
        return self.now().attribution

    @property
    def hop(self) -> context.HopName:  # type: ignore[override]
        return self.now().hop


_REST = tuple(name for name in Scope.__slots__ if name not in ("attribution", "hop"))


class _Member:
    """One of several items that are gathered."""

    __slots__ = ("item", "scope", "used")

    def __init__(self, item: object, scope: Scope | None) -> None:
        self.item = item
        self.scope = scope
        self.used = False

    @property
    def owner(self) -> Attribution | None:
        return None if self.scope is None else self.scope.attribution


def _references(member: _Member) -> int:
    return sys.getrefcount(member.item)


_ALONE = _references(_Member(object(), None))


def _part_references(parts: Any, index: int) -> int:
    return sys.getrefcount(parts[index])


_PART_ALONE = _part_references([object()], 0)


def _alive(member: _Member) -> bool:
    """Return whether anybody but us still has the item, or a part of it."""
    if member.item is None:
        return False
    if _references(member) > _ALONE:
        return True
    item = member.item
    if type(item) is dict:
        item = list(item.values())
        return any(_part_references(item, i) > _PART_ALONE + 1 for i, part in enumerate(item) if part is not None)
    if type(item) in (tuple, list):
        parts = cast("list[object]", item)
        return any(
            _part_references(parts, i) > _PART_ALONE for i, part in enumerate(parts) if type(part) not in _SIGNALS
        )
    return False


def _still_there(members: list[_Member]) -> list[_Member]:
    """Return the members that can still be worked on. Of what is gone and not known to be done, its owners are left."""
    there = [member for member in members if _alive(member)]
    gone = {member.owner: member.scope for member in members if not member.used and not _alive(member)}
    return [*(_Member(None, scope) for scope in gone.values()), *there]


class _Gathered(_Given):
    """The scope of several items that a consumer gathers before it works on them: what they all have in common.

    An item stops to count once it was worked on and is no longer there.
    """

    __slots__ = ("members",)

    def __init__(self, members: list[_Member], base: Scope, who: Caller, place: object) -> None:
        super().__init__(EMPTY, base, who, place)
        self.lines = None  # what was gathered is often worked on after the loop
        self.members = members

    def scopes(self) -> list[Scope]:
        return [member.scope or EMPTY for member in self.members]

    def spoil(self) -> None:
        self.members = [_Member(None, None)]

    def of_work(self, made_at: tuple[str, int, str] | None) -> Scope | None:
        return None

    def work(self, frame: FrameType | None, running: FrameType) -> Scope:
        members = self.members
        if len({member.owner for member in members}) > 1:
            members = self.members = [m for m in members if not m.used or _alive(m)]
            positions = meant([(m.item, m.owner) for m in members], frames_above(running), frame, self.code)
            if positions is not None:
                for i in positions:
                    members[i].used = True
                return members[positions.pop()].scope or self.base if positions else _common(self.scopes())
            held = None if frame is None else _held(frame)
            members = [m for m in members if not m.used or held is None or _within(m, held)]
        for member in members:
            member.used = True
        self.members = members
        scopes = [member.scope or EMPTY for member in members]
        return _common(scopes) if scopes else self.base


def _held(frame: FrameType) -> set[int]:
    """Return the identities of what a function's variables hold, also in containers."""
    found: set[int] = set()
    due: list[tuple[Any, int]] = [(value, 0) for value in values_of(frame, leave=left_over(frame))]
    while due and len(found) < _HELD:
        value, depth = due.pop()
        found.add(id(value))
        if depth < 3:
            if isinstance(value, dict):
                due += [(each, depth + 1) for each in list(value.values())]
            elif isinstance(value, (list, tuple, set, frozenset, deque)):
                due += [(each, depth + 1) for each in list(value)]
            elif not depth and hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType)):
                due += [(each, depth + 1) for each in list(vars(value).values())]
    return found


def _within(member: _Member, held: set[int]) -> bool:
    item: Any = member.item
    parts = item if type(item) in (tuple, list) else item.values() if type(item) is dict else ()
    return len(held) >= _HELD or id(item) in held or any(id(p) in held for p in parts if type(p) not in _SIGNALS)


def _common(scopes: list[Scope]) -> Scope:
    """Return the fields that all have, without a tenant unless it is one and the same."""
    first = scopes[0].attribution
    differ = [key for key, value in first.fields if any(each.attribution.get(key) != value for each in scopes)]
    common = first.without(*differ)
    return Scope(common, "carried" if common.tenant_id else "none")


def _given(item: object, claim: Scope | None, who: Caller, here: Scope, place: object) -> Scope | None:
    """Return what is in force at a consumer that got `item`; None to leave it as it is."""
    base = _base(here)
    if base.attribution.tenant_id is not None and base.opener is not None and base.opener == place:
        return base
    if claim is None and _kind(item) == _NOTHING:
        return None if who.site.collects else base
    scope = None if claim is None else _merged(claim, who, base)
    if who.site.collects and (scope is not None or isinstance(here, _Given)):
        members = []
        if isinstance(here, _Gathered):
            members = here.members
        elif isinstance(here, _Given):
            members = [_Member(None, here.item)]
        if len(members) > _GATHERED_KEPT:
            members = _still_there(members)
        return _Gathered([*members, _Member(item, scope)], base, who, place)
    return base if scope is None else _Given(scope, base, who, place)


def _counting(of: Any, claim: Scope | None, who: Caller) -> Scope | None:
    """Return the claim, None for one on what comes from a stack unless `who` certainly takes work from it."""
    if claim is not None and _is_stack(of) and not (who.loops and who.direct and not who.site.puts_back):
        return None
    return claim


def _base(here: Scope) -> Scope:
    if isinstance(here, _Given):
        return here.base
    return EMPTY if here.opener is _OF_ITEM else here


def _merged(claim: Scope, who: Caller, base: Scope) -> Scope:
    """Return the scope of an item at a consumer whose own is `base`."""
    own, found = base.attribution, claim.attribution
    if own.tenant_id is None:
        if own and all(own.get(key) is None for key in _PERSONAL):
            found = own.merged(dict(found.fields))
    elif own.tenant_id != found.tenant_id:
        inherited = base.opener is not None or base.hop == "carried"
        if not (inherited and who.loops and who.direct and not who.site.puts_back):
            return context.adopted(base, {"tenant_id": found.tenant_id or "?"})
    return Scope(found, "carried")


def _is_consumer(who: Caller | None) -> bool:
    return who is not None and (who.loops or who.root)


# -- the wrappers -----------------------------------------------------------------------------------------------------


_stacks: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _is_stack(of: Any) -> bool:
    """Return whether the last item comes out first: most often that is a pool, not a line of work."""
    cls = type(of)
    known = _stacks.get(cls)
    if known is None:
        known = any(each.__name__ == "LifoQueue" and each.__module__ in _MODULES for each in cls.__mro__)
        _stacks[cls] = known
    return known


def note_put(of: Any, item: object) -> _Beside | None:
    """Remember in which scope `item` is put. Return what has to undo it if it does not get in."""
    try:
        here = _put_from(item)
        if here is EMPTY and type(item).__weakrefoffset__ == 0 and id(of) not in _beside:
            return None
        kind = _kind(item)
        if not here.attribution and id(of) not in _beside and kind != _OBJECT:
            return None
        beside = _beside_of(of)
        return beside if beside.put(item, kind, here) else None
    except Exception as fault:
        faults.note("queues.put", fault)
        return None


def claimed(of: Any, item: object) -> Scope | None:
    """Return the scope that `item` takes along itself, None if it makes no claim."""
    if note_put(of, item) is None:
        return None
    return _beside_of(of).got(item)


_serving: list[None] = []
"""Not empty in a process that is a manager."""


def brought(parcel: tuple[object, tuple[tuple[str, str], ...]] | None) -> None:
    """A manager's client asks this thread to put what is in `parcel`, an item and its fields."""
    if parcel is not None:
        _serving[:] = [None]
        _thread.brought = parcel[0], Scope(Attribution(parcel[1]), "carried")
    elif _serving:
        _thread.brought = None


def _put_from(item: object) -> Scope:
    found = getattr(_thread, "brought", None) if _serving else None
    return found[1] if found is not None and found[0] is item else in_force()


def note_attempt(of: Any, awaits: bool) -> None:
    """A consumer asks for its next item: the last one is done, unless it gathers."""
    here = in_variable()
    if here is EMPTY:
        return
    try:
        if isinstance(here, _Given):
            who = caller(frames_above(sys._getframe(2)))
            if _is_consumer(who) and who is not None and not who.site.collects and (who.site.awaited or not awaits):
                enter(here.base)
                context.moved()
        elif here.opener is not _OF_ITEM:
            _beside_of(of).took(here)
    except Exception as fault:
        faults.note("queues.attempt", fault)


def note_got(of: Any, item: object, here: Scope) -> object:
    """Put the scope of `item` in force where the running code is a consumer. `here` was in force as it asked.

    Return what the consumer gets: the item, in a parcel where a manager hands it on to another process.
    """
    beside = _beside.get(id(of))
    claim = None if beside is None else beside.got(item)
    if claim is not None and _serving and user_of(sys._getframe(2)) == ("multiprocessing.managers", "serve_client"):
        return Parcel(item, claim.attribution.fields)
    note_arrived(of, item, claim, here)
    return item


def note_arrived(of: Any, item: object, claim: Scope | None, here: Scope) -> None:
    """Do the same for an item that has brought its scope itself, or None."""
    if claim is None and not isinstance(here, _Given) and not _lent:
        return
    try:
        who = caller(frames_above(sys._getframe(1)))
        if who is None:  # asyncio itself called: the getter runs in a task of its own
            _hand_over(of, item, claim, here)
        elif _is_consumer(who):
            given = _given(item, _counting(of, claim, who), who, here, context.place())
            if given is not None and given is not in_variable():
                enter(given)
                context.moved()
    except Exception as fault:
        faults.note("queues.get", fault)


def _put(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    item = args[0] if args else kwargs.get("item")
    beside = note_put(instance, item)
    if beside is None:
        return wrapped(*args, **kwargs)
    try:
        return wrapped(*args, **kwargs)
    except BaseException:
        beside.undo(item)
        raise


def _get(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = in_variable()
    if here is not EMPTY:
        note_attempt(instance, False)
    item = wrapped(*args, **kwargs)
    if _beside or _lent or here is not EMPTY:
        return note_got(instance, item, here)
    return item


def _popped(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`LifoQueue._get`: what comes out."""
    item = wrapped(*args, **kwargs)
    try:
        _beside_of(instance).came_out(item)
    except Exception as fault:
        faults.note("queues.popped", fault)
    return item


def _get_later(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if in_variable() is not EMPTY:
        note_attempt(instance, True)
    return wrapped(*args, **kwargs)


def _let_go() -> None:
    here = in_variable()
    if isinstance(here, _Given):
        here.let_go(sys._getframe(1))


def _begins(of: Context | None) -> None:
    """A task or a thread is about to begin in a copy of the context here, or in the context `of`."""
    try:
        _let_go()
        if of is not None:
            of.run(_let_go)
    except RuntimeError:  # it is entered already
        pass
    except Exception as fault:
        faults.note("queues.begins", fault)


def _create_task(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A task copies what its creator has in force, after the last item of a consumer that has ended too."""
    if _lasting:
        _idle[0] = 0
        _begins(kwargs.get("context"))
    else:
        _idle[0] += 1
        if _idle[0] > _PATIENCE:
            _creating.rest(lambda: bool(_lasting))
    return wrapped(*args, **kwargs)


# -- getters that run in a task or a thread of their own --------------------------------------------------------------


def _hand_over(of: Any, item: object, claim: Scope | None, here: Scope) -> None:
    """Nobody of the app called: give the item's scope to the task that waits for this getter, if one certainly does."""
    tasks: Any = sys.modules.get("asyncio.tasks")
    task = None if tasks is None or tasks.events._get_running_loop() is None else tasks.current_task()
    if task is None:
        _thread.got = of, item, claim  # `_in_executor` asks for it
    elif not _deliver(of, task, item, claim):
        _beside_of(of).loosen()
        if isinstance(here, _Given):
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
    beside = _beside_of(of)
    given: Scope | None = None
    if _is_consumer(who) and who is not None:
        given = (
            _base(here)
            if kept and beside.loose
            else _given(item, _counting(of, claim, who), who, here, weakref.ref(task))
        )
    if given is not None:
        own.run(enter, given)
        if kept and isinstance(given, _Given):
            beside.lent.add(given)
            _lent.add(given)
    return True


def _in_executor(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`run_in_executor(None, queue.get)` and `to_thread(queue.get)`: the item goes to the task that awaits it."""
    function = args[1] if len(args) > 1 else kwargs.get("func")
    if _lasting:
        runner = getattr(function, "func", None)
        of_work = getattr(runner, "__self__", None)
        _begins(of_work if type(of_work) is Context else None)
    of = _got_from(function)
    if of is None or function is None:
        return wrapped(*args, **kwargs)
    futures: list[Any] = []

    def settle(got: tuple[Any, object, Scope | None]) -> None:
        try:
            if futures and not futures[0].done() and not _deliver(got[0], futures[0], got[1], got[2]):
                _beside_of(got[0]).loosen()
        except Exception as fault:
            faults.note("queues.settle", fault)

    def get(*more: Any) -> Any:
        _thread.got = None
        item = function(*more)
        got, _thread.got = _thread.got or (of, item, None), None
        if not instance.is_closed():
            instance.call_soon_threadsafe(settle, got)
        return item

    args = (args[0], get, *args[2:]) if len(args) > 1 else args
    future = wrapped(*args, **kwargs) if len(args) > 1 else wrapped(*args, **{**kwargs, "func": get})
    futures.append(future)
    return future


def _got_from(function: Any) -> Any:
    """Return the queue whose `get` is to be called, None for any other function."""
    while isinstance(function, functools.partial):
        inner = function.func
        carried = getattr(inner, "__name__", None) == "run" and type(getattr(inner, "__self__", None)) is Context
        function = function.args[0] if carried and function.args else inner
    if getattr(function, "__name__", None) in ("get", "get_nowait"):
        of = getattr(function, "__self__", None)
        of_processes = sys.modules.get("multiprocessing.queues")
        kinds = (of_processes.Queue, of_processes.SimpleQueue) if of_processes is not None else ()
        return of if isinstance(of, (queue.Queue, SimpleQueue, *kinds)) else None
    return None


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


# -- SimpleQueue ------------------------------------------------------------------------------------------------------

_Simple = queue.SimpleQueue
_STDLIB = ("concurrent.futures", "multiprocessing", "logging")


class _AlsoOlder(type):
    """`isinstance` holds for the instances that were made before, and for those that the standard library makes."""

    def __instancecheck__(cls, instance: object) -> bool:
        return type.__instancecheck__(cls, instance) or (cls is SimpleQueue and isinstance(instance, _Simple))


class SimpleQueue(_Simple, metaclass=_AlsoOlder):  # type: ignore[type-arg]
    """The type that stands for `queue.SimpleQueue`, whose own methods, of a C type, nobody can wrap."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is SimpleQueue:
            module = sys._getframe(1).f_globals.get("__name__")
            if isinstance(module, str) and module.startswith(_STDLIB):
                return _Simple(*args, **kwargs)
        return _Simple.__new__(cls, *args, **kwargs)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if _simple_on:
            note_put(self, item)
        _Simple.put(self, item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        if _simple_on:
            note_put(self, item)
        _Simple.put_nowait(self, item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        here = in_variable()
        if here is not EMPTY and _simple_on:
            note_attempt(self, False)
        item = _Simple.get(self, block, timeout)
        if (_beside or _lent or here is not EMPTY) and _simple_on:
            note_got(self, item, here)
        return item

    def get_nowait(self) -> Any:
        here = in_variable()
        if here is not EMPTY and _simple_on:
            note_attempt(self, False)
        item = _Simple.get_nowait(self)
        if (_beside or _lent or here is not EMPTY) and _simple_on:
            note_got(self, item, here)
        return item


SimpleQueue.__name__ = SimpleQueue.__qualname__ = "SimpleQueue"
SimpleQueue.__module__ = "queue"
_simple_on: list[None] = []


def replace_simple_queue() -> Callable[[], None]:
    """Let `queue.SimpleQueue` be a type of ours for the queues that are made from now on. Return what ends that."""
    _simple_on[:] = [None]
    if queue.SimpleQueue is _Simple:
        queue.SimpleQueue = SimpleQueue  # type: ignore[misc]

    def end() -> None:
        _simple_on.clear()
        _term[0] = object()
        if queue.SimpleQueue is SimpleQueue:
            queue.SimpleQueue = _Simple  # type: ignore[misc]

    return end


def patches() -> tuple[Patch, ...]:
    """Return the rows of the standard library's queues."""

    def row(module: str, path: str, wrapper: Any, *, hot: bool = True) -> Patch:
        return Patch(module, path, wrapper, "queues", module.partition(".")[0], hot=hot)

    return (
        row("queue", "Queue.put", _put),
        row("queue", "Queue.get", _get),
        row("queue", "LifoQueue._get", _popped),
        row("asyncio.queues", "LifoQueue._get", _popped),
        row("asyncio.base_events", "BaseEventLoop.run_in_executor", _in_executor),
        row("asyncio.queues", "Queue.put_nowait", _put),
        row("asyncio.base_events", "BaseEventLoop.create_task", _create_task)._replace(standby=_creating),
        row("asyncio.queues", "Queue.get", _get_later, hot=False),  # it stays a coroutine function
        row("asyncio.queues", "Queue.get_nowait", _get),
    )
