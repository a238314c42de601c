"""Setting headers on a built HTTP request of httpx or httpx2, beside those that the user has set."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from attribkit.gateways.base import Headers

__all__ = ["put"]

_lower_name = itemgetter(1)
_fast: dict[type, bool] = {}
_encoded: dict[str, bytes] = {}


def _encode(name: str) -> bytes:
    encoded = name.encode()
    if len(_encoded) < 256:
        _encoded[name] = encoded
    return encoded


def put(there: Any, ours: Headers) -> Headers:
    """Set each of `ours` that is not there yet; return those that were set."""
    kind = type(there)
    fast = _fast.get(kind)
    if fast is None:
        fast = _fast[kind] = _keeps_a_plain_list(kind)
    if fast:
        rows, fresh = there._list, []
        names = b"\n".join(map(_lower_name, rows))
        for name, value in ours:
            key = _encoded.get(name) or _encode(name)
            if key in names:  # perhaps as a part of another name: look closer
                break
            fresh.append((key, key, value.encode()))
        else:
            rows += fresh
            return ours
    added = []
    for name, value in ours:
        if name not in there:
            there[name] = value
            added.append((name, value))
    return tuple(added)


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
