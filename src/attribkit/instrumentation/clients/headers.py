"""Setting headers on a built HTTP request of httpx or httpx2, beside those that the user has set."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from attribkit.gateways.base import Headers

__all__ = ["put"]

_NAMES_KEPT = 1024
_lower_name = itemgetter(1)
_fast: dict[type, bool] = {}
_encoded: dict[str, bytes] = {}
"""Header names as bytes. A dialect has a handful of them; a template of the user's may have any."""


def put(there: Any, ours: Headers) -> Headers:
    """Set each of `ours` that is not there yet; return those that were set."""
    kind = type(there)
    fast = _fast.get(kind)
    if fast is None:
        fast = _fast[kind] = _keeps_a_plain_list(kind)
    if fast:
        rows = there._list
        taken = {*map(_lower_name, rows)}
        fresh = []
        for name, text in ours:
            key = _encoded.get(name) or _encode(name)
            if key in taken:
                break
            fresh.append((key, key, text.encode()))
        else:
            rows += fresh
            return ours
    added = []
    for name, value in ours:
        if name not in there:
            there[name] = value
            added.append((name, value))
    return tuple(added)


def _encode(name: str) -> bytes:
    if len(_encoded) >= _NAMES_KEPT:
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
