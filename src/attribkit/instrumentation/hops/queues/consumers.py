"""What is in force at a consumer: the scope of the item that it got, until it asks for the next one."""

from __future__ import annotations

import sys
from types import FrameType

from attribkit import context
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope, enter
from attribkit.instrumentation.hops.frames import frames_above
from attribkit.instrumentation.hops.queues.callsites import Caller
from attribkit.instrumentation.hops.queues.known import OF_ITEM, creating, lasting, term

__all__ = ["Given", "base_of", "is_consumer", "merged"]

_PERSONAL = ("user_id", "session_id", "workflow_id", "workflow")


class Given(Scope):
    """The scope of an item, in force at its consumer until the next one.

    It ends with the function that got the item, and with the loop in which it did. What was started meanwhile in
    another task or thread keeps it.
    """

    __slots__ = ("__weakref__", "base", "code", "frame", "item", "lines", "place", "term")

    def __init__(self, item: Scope, base: Scope, who: Caller, place: object) -> None:
        for name in _REST:
            setattr(self, name, getattr(EMPTY, name))
        self.opener = OF_ITEM
        self.origin = context.placed(EMPTY).origin
        self.since = context.opened_so_far()
        self.item = item
        self.base = base
        """What is in force there without an item."""
        self.place = place
        self.frame, self.code, self.lines = id(who.frame), who.frame.f_code, who.site.lines
        self.term = term[0]
        lasting.add(self)
        creating.wake()

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
        if self.term is not term[0]:
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


def base_of(here: Scope) -> Scope:
    if isinstance(here, Given):
        return here.base
    return EMPTY if here.opener is OF_ITEM else here


def merged(claim: Scope, who: Caller, base: Scope) -> Scope:
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


def is_consumer(who: Caller | None) -> bool:
    return who is not None and (who.loops or who.root)
