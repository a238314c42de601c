"""The claims that stand beside each queue: in which scope each of its items was put."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

from attribkit import context
from attribkit.context import Scope
from attribkit.instrumentation.hops.queues.items import NOTHING, OBJECT, RESOURCE, kind, likeness
from attribkit.instrumentation.hops.queues.known import OF_ITEM, beside

__all__ = ["Beside", "beside_of", "is_stack", "put"]

_CLAIMS_KEPT = 64
"""Claims beyond twice the queue's size, before those are dropped whose item somebody took out by hand."""
_TAKERS_KEPT = 256
_OUT_KEPT = 4096
_MODULES = ("queue", "asyncio.queues")


class _Claim:
    """The scopes in which one object was put, as often as it is in the queue."""

    __slots__ = ("item", "scopes")

    def __init__(self, item: object, scope: Scope | None) -> None:
        self.item = item
        self.scopes: deque[Scope | None] = deque((scope,))


class Beside:
    """What stands beside one queue. Each step is one operation of a dict or a deque, so no lock is held: `put` may be
    called again from a signal handler or a finaliser in its own middle."""

    __slots__ = ("claims", "fifo", "lent", "loose", "out", "queue", "seen", "takers")

    def __init__(self, of: Any) -> None:
        key = id(of)
        self.queue = weakref.ref(of, lambda _: beside.pop(key, None))
        get = getattr(type(of), "_get", None)
        self.fifo = get is None or (get.__module__ in _MODULES and get.__qualname__ == "Queue._get")
        self.claims: dict[int, _Claim] = {}
        self.seen: dict[int, tuple[weakref.ref[Any], Scope | None]] = {}
        """Objects and the scope in which they were first put; None once they came in another."""
        self.takers: dict[object, str] = {}
        """Tasks and threads that took from the queue in a tenant's scope of their own."""
        self.lent: weakref.WeakSet[Any] = weakref.WeakSet()
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
        if fields and kind != NOTHING and kind != RESOURCE:
            took = self.takers.get(context.place()) if self.takers and here.opener is not OF_ITEM else None
            if (took is None or took != fields.tenant_id) and not (self.out and likeness(item) in self.out):
                scope = Scope(fields, "carried")
        if kind == OBJECT:
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
        self.out[likeness(item)] = None

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


def beside_of(of: Any) -> Beside:
    there: Beside | None = beside.get(id(of))
    if there is None:
        there = beside.setdefault(id(of), Beside(of))
    return there


_stacks: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def is_stack(of: Any) -> bool:
    """Return whether the last item comes out first: most often that is a pool, not a line of work."""
    cls = type(of)
    known = _stacks.get(cls)
    if known is None:
        known = any(each.__name__ == "LifoQueue" and each.__module__ in _MODULES for each in cls.__mro__)
        _stacks[cls] = known
    return known


def put(of: Any, item: object, here: Scope) -> Beside | None:
    """Remember that `item` is put into a queue in the scope `here`. Return what has to undo it if it does not get
    in."""
    of_item = kind(item)
    if not here.attribution and id(of) not in beside and of_item != OBJECT:
        return None
    there = beside_of(of)
    return there if there.put(item, of_item, here) else None
