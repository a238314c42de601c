"""Items that a consumer gathers before it works on them: what they have in common is in force, or the one in hand."""

from __future__ import annotations

import sys
from collections import deque
from types import FrameType, ModuleType
from typing import Any, cast

from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope
from attribkit.instrumentation.hops.frames import frames_above
from attribkit.instrumentation.hops.queues.callsites import Caller
from attribkit.instrumentation.hops.queues.consumers import Given
from attribkit.instrumentation.hops.queues.items import SIGNALS
from attribkit.instrumentation.hops.queues.mentions import left_over, meant, values_of

__all__ = ["Gathered", "gathered"]

_GATHERED_KEPT = 64
_HELD = 20_000


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
            _part_references(parts, i) > _PART_ALONE for i, part in enumerate(parts) if type(part) not in SIGNALS
        )
    return False


def _still_there(members: list[_Member]) -> list[_Member]:
    """Return the members that can still be worked on. Of what is gone and not known to be done, its owners are left."""
    there = [member for member in members if _alive(member)]
    gone = {member.owner: member.scope for member in members if not member.used and not _alive(member)}
    return [*(_Member(None, scope) for scope in gone.values()), *there]


class Gathered(Given):
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


def gathered(here: Scope, item: object, scope: Scope | None, base: Scope, who: Caller, place: object) -> Gathered:
    """Return the scope of a consumer that has got one more item; `here` was in force as it asked."""
    members = []
    if isinstance(here, Gathered):
        members = here.members
    elif isinstance(here, Given):
        members = [_Member(None, here.item)]
    if len(members) > _GATHERED_KEPT:
        members = _still_there(members)
    return Gathered([*members, _Member(item, scope)], base, who, place)


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
    return len(held) >= _HELD or id(item) in held or any(id(p) in held for p in parts if type(p) not in SIGNALS)


def _common(scopes: list[Scope]) -> Scope:
    """Return the fields that all have, without a tenant unless it is one and the same."""
    first = scopes[0].attribution
    differ = [key for key, value in first.fields if any(each.attribution.get(key) != value for each in scopes)]
    common = first.without(*differ)
    return Scope(common, "carried" if common.tenant_id else "none")
