"""What fits where: values made sendable, and as many of them as a target's limits hold.

The rules, the same for every target:

1. A control character or half of a surrogate pair cannot be carried anywhere: it becomes `_`, and the value ends in
   `~` and 8 hex digits of the SHA-256 of what it was, so that it stays apart from other values.
2. A value over the target's limit is shortened (`attribkit.attribution.shortened`, the same ending). Lengths are
   counted in UTF-16 units, as gateways written in JavaScript count them.
3. A character that the carrier cannot hold is escaped: `\\uXXXX` in JSON, `%XX` (UTF-8, as in URLs) in header text,
   `=XX` (as in quoted-printable) at Bedrock. Escapes are reversible; `%` and `=` themselves are escaped there too.
   What its escapes would bring over 1,024 bytes is shortened first.
4. Fields go in by order (well-known ones as `WELL_KNOWN` lists them, then free dimensions by name) for as long as
   there is room; one that has none is left out and reported, and a shorter one after it may still go in.
5. All our headers together, with their names, stay under 8 KB; 512 bytes of that are kept for the ids of a call.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attribkit.attribution import Attribution, shortened

__all__ = [
    "CALL_ROOM",
    "HEADER_ROOM",
    "PER_HEADER",
    "Entry",
    "Pairs",
    "digest",
    "entries",
    "fitted",
    "in_json",
    "in_text",
    "json_object",
    "opaque",
    "sendable",
    "text_writer",
]

HEADERS_TOTAL = 8192
CALL_ROOM = 512
HEADER_ROOM = HEADERS_TOTAL - CALL_ROOM
"""Bytes for the headers that an attribution sets. Node refuses requests with over 16 KB of headers in all."""
VALUE_ROOM = 1024
_ENDING = 9
"""Characters that tell a shortened value from others."""
PER_HEADER = 4
"""Bytes around a name and a value on the wire: ": " and the line's end."""

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_UNSENDABLE = "[\x00-\x1f\x7f-\x9f\ud800-\udfff]"


def digest(text: str) -> str:
    """Return 8 hex digits that tell `text` from others."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def opaque(*parts: str) -> str:
    """Return an id of 64 hex digits that stands for `parts` and does not show them."""
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def sendable(text: str) -> str:
    """Return `text` without the characters that no carrier takes (rule 1)."""
    if text.isascii() and text.isprintable():
        return text
    clean = re.sub(_UNSENDABLE, "_", text)
    return text if clean == text else f"{clean}~{digest(text)}"


def in_json(text: str) -> str:
    """Return `text` as a JSON string, in ASCII."""
    return json.dumps(text)


def text_writer(reserved: str = "", *, sign: str = "%", allowed: str = _PRINTABLE) -> Callable[[str], str]:
    """Return a function that escapes, byte by byte in UTF-8, what a text cannot hold.

    That is all but the `allowed` ASCII characters, the characters in `reserved`, `sign` itself, and a space at either
    end, which HTTP would trim.
    """
    holds = frozenset(allowed) - frozenset(reserved + sign)
    written = [chr(byte) if chr(byte) in holds else f"{sign}{byte:02X}" for byte in range(256)]
    space = f"{sign}20"

    def write(text: str) -> str:
        if not holds.issuperset(text):
            text = "".join([written[byte] for byte in text.encode()])
        if text[:1] == " " or text[-1:] == " ":
            left, right = len(text) - len(text.lstrip(" ")), len(text.rstrip(" "))
            text = space * left + text[left:right] + space * (len(text) - max(left, right))
        return text

    return write


in_text = text_writer()
"""Escape what a header value cannot hold: all but printable ASCII, spaces at the ends, and `%`."""


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def fitted(text: str, limit: int, write: Callable[[str], str] | None = None, room: int = VALUE_ROOM) -> str:
    """Return `text` in at most `limit` characters, as `write` puts it and then within `room` bytes (rules 1 to 3)."""
    text = sendable(text)
    keep = min(len(text), limit, room)
    while True:
        cut = shortened(text, keep)
        written = write(cut) if write is not None else cut
        units, length = _units(cut), len(written)
        if (units <= limit and length <= room) or keep <= _ENDING:
            return written
        keep = max(_ENDING, min(keep - 1, keep * limit // units, keep * room // length))


def entries(attribution: Attribution, order: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the fields, clean and in the order in which they go in."""
    fields = Attribution.of(dict(attribution.fields)).as_dict()
    first = [(key, fields.pop(key)) for key in order if key in fields]
    return first + list(fields.items())


def json_object(
    pairs: Iterable[tuple[str, str]], *, limit: int, room: int, most: int = 1 << 30
) -> tuple[str, tuple[str, ...]]:
    """Return a JSON object of as many `pairs` as fit, and the keys that did not. Room is in bytes."""
    parts: list[str] = []
    left: list[str] = []
    room -= 2
    for key, value in pairs:
        part = f"{in_json(key)}:{fitted(value, limit, in_json)}"
        if len(parts) < most and len(part) + 1 <= room:
            parts.append(part)
            room -= len(part) + 1
        else:
            left.append(key)
    return "{" + ",".join(parts) + "}", tuple(left)


Entry = tuple[str, str, str]
"""A field, and the name and value that it has in a map."""


class Pairs:
    """A map of strings in a request's body, with the target's limits on it."""

    def __init__(
        self,
        most: int,
        max_key: int,
        max_value: int,
        *,
        write_key: Callable[[str], str] | None = None,
        write: Callable[[str], str] | None = None,
    ) -> None:
        self.most, self.max_key, self.max_value = most, max_key, max_value
        self._write_key, self._write = write_key, write

    def ready(self, pairs: Iterable[tuple[str, str]]) -> tuple[Entry, ...]:
        """Return `pairs` as they can be sent. The same for every request, so worth keeping."""
        return tuple(
            (
                key,
                _written(key, self.max_key, self._write_key),
                _written(value, self.max_value, self._write),
            )
            for key, value in pairs
        )

    def merged(self, ready: Iterable[Entry], user: object = None) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Return what the user set followed by as much of `ready` as fits, and the fields that did not fit.

        None instead of a map when there is nothing to set: all is there already, or what the user set is no map.
        """
        if user is None:
            user = {}
        if not isinstance(user, Mapping):
            return None, tuple(key for key, _, _ in ready)
        map_: dict[str, Any] = dict(user)
        left: list[str] = []
        for key, name, value in ready:
            if name in user:
                continue
            if len(map_) >= self.most or name in map_:
                left.append(key)
            else:
                map_[name] = value
        return (map_ if len(map_) > len(user) else None), tuple(left)


def _written(text: str, limit: int, write: Callable[[str], str] | None) -> str:
    return fitted(text, limit) if write is None else fitted(text, limit, write, room=limit)
