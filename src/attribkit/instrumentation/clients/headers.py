"""Setting headers on a built HTTP request of httpx or httpx2, beside those that the user has set."""

from __future__ import annotations

from typing import Any

from attribkit.gateways.base import Headers

__all__ = ["put"]

_fast: dict[type, bool] = {}


def put(there: Any, ours: Headers) -> list[str]:
    """Set each of `ours` that is not there yet; return the names that were set."""
    kind = there.__class__
    fast = _fast.get(kind)
    if fast is None:
        fast = _fast[kind] = _keeps_a_plain_list(kind)
    added = []
    if fast:
        rows = there._list
        have = {row[1] for row in rows}
        for name, value in ours:
            key = name.encode()
            if key not in have:
                rows.append((key, key, value.encode()))
                added.append(name)
        return added
    for name, value in ours:
        if name not in there:
            there[name] = value
            added.append(name)
    return added


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
