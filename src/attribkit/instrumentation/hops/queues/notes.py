"""What is noted where an item passes: as it is put, as the next one is asked for, and as it is got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope, in_force
from attribkit.context import scope as in_variable
from attribkit.instrumentation.hops.queues.known import beside, lent, serving, thread
from attribkit.late import Late

if TYPE_CHECKING:
    from attribkit.instrumentation.hops.parcels import Fields
    from attribkit.instrumentation.hops.queues import claims, deliveries
else:
    claims, deliveries = Late(f"{__package__}.claims"), Late(f"{__package__}.deliveries")

__all__ = ["brought", "claimed", "note_arrived", "note_attempt", "note_got", "note_put"]


def note_put(of: object, item: object) -> claims.Beside | None:
    """Remember in which scope `item` is put. Return what has to undo it if it does not get in."""
    try:
        here = _put_from(item)
        if here is EMPTY and type(item).__weakrefoffset__ == 0 and id(of) not in beside:
            return None
        return claims.put(of, item, here)
    except Exception as fault:
        faults.note("queues.put", fault)
        return None


def claimed(of: object, item: object) -> Scope | None:
    """Return the scope that `item` takes along itself, None if it makes no claim."""
    there = note_put(of, item)
    return None if there is None else there.got(item)


def brought(parcel: tuple[object, Fields] | None) -> None:
    """A manager's client asks this thread to put what is in `parcel`, an item and its fields."""
    if parcel is not None:
        serving[:] = [None]
        thread.brought = parcel[0], Scope(Attribution(parcel[1]), "carried")
    elif serving:
        thread.brought = None


def _put_from(item: object) -> Scope:
    found: tuple[object, Scope] | None = getattr(thread, "brought", None) if serving else None
    return found[1] if found is not None and found[0] is item else in_force()


def note_attempt(of: object, awaits: bool) -> None:
    """A consumer asks for its next item: the last one is done, unless it gathers."""
    here = in_variable()
    if here is EMPTY:
        return
    try:
        deliveries.asked(of, here, awaits)
    except Exception as fault:
        faults.note("queues.attempt", fault)


def note_got(of: object, item: object, here: Scope) -> object:
    """Put the scope of `item` in force where the running code is a consumer. `here` was in force as it asked.

    Return what the consumer gets: the item, in a parcel where a manager hands it on to another process.
    """
    if here is EMPTY and not beside and not lent:
        return item
    try:
        return deliveries.got(of, item, here)
    except Exception as fault:
        faults.note("queues.get", fault)
        return item


def note_arrived(of: object, item: object, claim: Scope | None, here: Scope) -> None:
    """Do the same for an item that has brought its scope itself, or None."""
    if claim is None and here is EMPTY and not lent:
        return
    try:
        deliveries.arrived(of, item, claim, here)
    except Exception as fault:
        faults.note("queues.get", fault)
