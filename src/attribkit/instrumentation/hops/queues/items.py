"""What an item of a queue is: a value, an object, a resource that goes round, or a mere signal."""

from __future__ import annotations

import weakref
from typing import cast

__all__ = ["NOTHING", "OBJECT", "RESOURCE", "SIGNALS", "VALUE", "kind", "likeness"]

_CLOSERS = ("close", "aclose", "disconnect", "__exit__", "__aexit__")
_WORK = frozenset({"coroutine", "generator", "async_generator", "Task", "Future", "Context"})
NOTHING, VALUE, OBJECT, RESOURCE = range(4)
_kinds: weakref.WeakKeyDictionary[type, int] = weakref.WeakKeyDictionary()
SIGNALS = frozenset({type(None), bool, type(...), int, float})


def kind(item: object) -> int:
    """Return whether an item says nothing (an end marker, a slot number), is a value, an object, or a resource."""
    cls = type(item)
    if cls in SIGNALS:
        return NOTHING if cls is not int or -257 < cast(int, item) < 4096 else VALUE
    if cls is tuple or cls is list:
        return _kind_of_parts(cast("tuple[object, ...]", item))
    known = _kinds.get(cls)
    if known is None:
        if cls.__name__ not in _WORK and any(hasattr(cls, name) for name in _CLOSERS):
            known = RESOURCE
        else:
            known = OBJECT if cls.__weakrefoffset__ else VALUE
        _kinds[cls] = known
    return known


def _kind_of_parts(parts: tuple[object, ...] | list[object]) -> int:
    """A connection beside its time stamp is a resource; one beside a prompt is a job."""
    resource = False
    for part in parts[:8]:
        cls = type(part)
        if cls not in SIGNALS and cls is not tuple and cls is not list:
            if kind(part) != RESOURCE:
                return VALUE
            resource = True
    return RESOURCE if resource else VALUE


def likeness(item: object) -> int:
    """Return what a thing that is put back has in common with what came out; work can have it by chance."""
    try:
        return hash(item)
    except Exception:
        return id(item)
