"""What is in force where work is handed on, and the callable that takes it along, into another process too."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, TypeVar

from attribkit import context, faults
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope, adopted, in_force, restored

__all__ = ["Carried", "captured", "carried", "remembers", "started", "unowned"]

F = TypeVar("F")
_last: tuple[Scope, Scope | None] = (EMPTY, None)


def captured() -> Scope | None:
    """Return the scope for work that is handed on here, None when nothing is in force.

    It leaves behind which operation is under way: work elsewhere has operations of its own.
    """
    global _last
    here = in_force()
    last, moved = _last
    if here is last:
        return moved
    moved = Scope(here.attribution, "carried", since=here.since) if here.attribution.fields else None
    # An operation and an origin are kept alive by nobody else, and a scope of another kind changes.
    if type(here) is Scope and here.operation is None and here.origin is None:
        _last = (here, moved)
    return moved


def settled(made: Scope | None) -> Scope | None:
    """Return the scope for an object that was made in `made` and is started here.

    What is in force at the start counts, completed with what was in force where the object was made. Where the two name
    different tenants neither is certain, and the result has none.
    """
    here = captured()
    if made is None or made is here:
        return here
    found = adopted(here or EMPTY, made.attribution.as_dict())
    return Scope(found.attribution, "carried", since=found.since)


_MADE = "_attribkit_made"


def remembers(place: str) -> Callable[..., Any]:
    """Return a wrapper for `__init__` under which the object remembers the scope in which it was made. `place` names
    the hop if that fails."""

    def made(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = wrapped(*args, **kwargs)
        try:
            here = captured()
            if here is not None:
                instance.__dict__[_MADE] = here
        except Exception as fault:
            faults.note(place, fault)
        return result

    return made


def started(instance: Any) -> Scope | None:
    """Return the scope for an object that has remembered where it was made, and is started here."""
    return settled(instance.__dict__.pop(_MADE, None))


class Carried:
    """A callable that runs with a scope in force and leaves nothing behind. It pickles where its function does."""

    __slots__ = ("function", "scope")

    def __init__(self, scope: Scope, function: Callable[..., Any]) -> None:
        self.scope = scope
        self.function = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with restored(self.scope):
            return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.scope.attribution.fields, self.function)

    def __repr__(self) -> str:
        return repr(self.function)


def _unpickled(fields: tuple[tuple[str, str], ...], function: Callable[..., Any]) -> Carried:
    return Carried(Scope(Attribution(fields), "carried"), function)


def carried(scope: Scope, function: F) -> F:
    """Return `function` with `scope`; what is no callable is left for its taker to refuse."""
    return Carried(scope, function) if callable(function) else function  # type: ignore[return-value]


def unowned() -> contextvars.Context:
    """Return a copy of the context here in which nothing is in force: workers that serve everybody start in it."""
    copy = contextvars.copy_context()
    copy.run(context.disown)
    return copy
