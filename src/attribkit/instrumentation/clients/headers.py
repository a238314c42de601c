"""Setting headers on a built HTTP request of httpx or httpx2, beside those that the user has set."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from attribkit.gateways.base import Headers
from attribkit.pipeline import Attempt

__all__ = ["put"]

_KEPT = 1024
_Rows = list[tuple[bytes, bytes, bytes]]
_Free = set[tuple[object, int, int]]
_lower_name = itemgetter(1)
_fast: dict[type, bool] = {}
_encoded: dict[str, bytes] = {}
"""Header names as bytes. A dialect has a handful of them; a template of the user's may have any."""
_prepared: dict[Headers, tuple[_Rows, _Free]] = {}
"""Headers that many requests have in common: as the library keeps them, and the requests that have none of their
names."""


def put(there: Any, attempt: Attempt, alike: object = None) -> Headers | None:
    """Set each of an attempt's headers that is not there yet; return those that were set, None for all of them.

    `alike`, where it is not None, says of a request that all its headers are its client's own, and where it goes: of
    two with the same one, and as many headers, one is looked at.
    """
    shared, fresh = attempt.shared, attempt.fresh
    fixed, free = _prepared.get(shared) or _prepare(shared)
    try:
        rows = there._list
        request = alike, len(rows), len(fresh)
        if request in free or _lacks(there, attempt.headers, free, request):
            rows += fixed
            for name, text in fresh:
                key = _encoded.get(name) or _encode(name)
                rows.append((key, key, text.encode()))
            return None
    except AttributeError:
        pass  # headers of another make
    added = []
    for name, value in attempt.headers:
        if name not in there:
            there[name] = value
            added.append((name, value))
    return tuple(added)


def _lacks(there: Any, ours: Headers, free: _Free, request: tuple[object, int, int]) -> bool:
    """Return whether headers that are a plain list have none of our names; remember it for those that are alike."""
    kind = type(there)
    fast = _fast.get(kind)
    if fast is None:
        fast = _fast[kind] = _keeps_a_plain_list(kind)
    if not fast:
        return False
    names = {name.encode() for name, _ in ours}
    if not names.isdisjoint(map(_lower_name, there._list)):
        return False
    if request[0] is not None and len(free) < _KEPT:
        free.add(request)
    return True


def _prepare(shared: Headers) -> tuple[_Rows, _Free]:
    rows = [(name.encode(), name.encode(), text.encode()) for name, text in shared]
    if len(_prepared) >= _KEPT:
        _prepared.clear()
    free: _Free = set()
    _prepared[shared] = rows, free
    return rows, free


def _encode(name: str) -> bytes:
    if len(_encoded) >= _KEPT:
        _encoded.clear()
    _encoded[name] = encoded = name.encode()
    return encoded


def _keeps_a_plain_list(kind: Any) -> bool:
    """Return whether headers of this class are a list of (name, lower-case name, value), as in httpx 0.23 to httpx2 2.

    Appending to it costs a tenth of `headers[name] = value`, which searches and encodes for each one.
    """
    try:
        made = kind({"A": "1"})
        made._list.append((b"b", b"b", b"2"))
        return dict(made) == {"a": "1", "b": "2"} and made._list[0] == (b"A", b"a", b"1")
    except Exception:
        return False
