"""A gateway of one's own: header templates, or a function that returns the headers.

In a template `{tenant_id}` stands for a field, `{json}` for all of them as a JSON object, and `{call_id}`,
`{operation_id}`, `{trace_id}`, `{span_id}`, `{traceparent}` for the ids of one attempt; `{{` and `}}` are braces. A
header whose placeholders are all empty is not sent. In a value, what a header cannot hold is written `%XX`, and so is
`%` and any character that the template itself puts between its placeholders, so that the parts can be told apart.

A function gets the `Attribution` and returns a map of headers. What its values cannot hold in a header is written
`%XX` too; nothing else is changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.errors import ConfigurationError
from attribkit.gateways.base import NOTHING, CallIds, Headers, Silent
from attribkit.gateways.fitting import (
    CALL_ROOM,
    HEADER_ROOM,
    PER_HEADER,
    entries,
    fitted,
    json_object,
    sendable,
    text_writer,
)
from attribkit.gateways.service_tiers import asked

__all__ = ["Custom"]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_OURS = frozenset(
    (
        *("authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "host"),
        *("keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
_IDS = {name: number for number, name in enumerate(CallIds._fields)}
_ID_LENGTH = 64
_LIMIT = 512
_OUTSIDE = re.compile(r"[^ -~]")

Function = Callable[[Attribution], Mapping[str, str]]


def _named(name: object, where: str) -> str:
    """Return a header's name in lower case; raise when it is none, or not for us to set."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _NOT_OURS:
        raise ConfigurationError(
            f"{where}: {name!r} is no header that a template can set; use a name of its own, as in x-cost-tags",
            name=where,
            value=name,
        )
    return name.lower()


class _Template:
    """One header: its name, and literal texts between placeholders."""

    __slots__ = ("fields", "literal", "name", "of_call", "parts", "write")

    def __init__(self, name: str, text: str, where: str) -> None:
        self.name = name
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(f"{where}: {text!r}: {error}", name=where, value=text) from None
        for _, field, spec, conversion in parsed:
            if field is not None and (spec or conversion or not re.fullmatch(r"[A-Za-z0-9_\-]+", field)):
                raise ConfigurationError(
                    f"{where}: {{{field}}} in {text!r} is no placeholder; allowed are a field's name, json, "
                    + ", ".join(CallIds._fields),
                    name=where,
                    value=text,
                    allowed=("json", *CallIds._fields),
                )
        self.parts = tuple((literal, field) for literal, field, _, _ in parsed)
        self.fields = frozenset(field for _, field in self.parts if field is not None)
        self.literal = "".join(literal for literal, _ in self.parts)
        if not self.literal.isascii() or not (self.literal or "x").isprintable():
            raise ConfigurationError(
                f"{where}: {text!r} holds characters that a header cannot; use printable ASCII", name=where, value=text
            )
        self.of_call = not self.fields.isdisjoint(_IDS)
        if self.of_call and not self.fields <= _IDS.keys():
            ids = ", ".join(sorted(self.fields & _IDS.keys()))
            raise ConfigurationError(
                f"{where}: {text!r} mixes ids of a call ({ids}) with attribution fields; give them a header each",
                name=where,
                value=text,
            )
        between = {char for char in self.literal if not char.isalnum() and char != " "}
        self.write = text_writer("".join(sorted(between)) if len(self.fields) > 1 else "")

    def filled(self, values: Callable[[str], str | None]) -> str:
        """Return the header's value, "" when every placeholder is empty."""
        found = [(literal, values(field) if field is not None else None) for literal, field in self.parts]
        if self.fields and not any(value for _, value in found):
            return ""
        return "".join(literal + (value or "") for literal, value in found).strip()


class Custom(Silent):
    """Raises ConfigurationError for a template that cannot be sent."""

    name: ClassVar[str] = "custom"

    def __init__(
        self,
        *,
        headers: Mapping[str, str] | Function,
        order: tuple[str, ...] = (),
        tiers: Mapping[str, str] = NOTHING,
        where: str = "headers",
    ) -> None:
        super().__init__(order=order, tiers=tiers)
        self._function: Function | None = None
        templates: list[_Template] = []
        if isinstance(headers, Mapping):
            for name, text in headers.items():
                if not isinstance(text, str):
                    raise ConfigurationError(f"{where}[{name!r}]: {text!r} is not a text", name=where, value=text)
                templates.append(_Template(_named(name, where), text, f"{where}[{name!r}]"))
        else:
            self._function = headers
        self._templates = tuple(template for template in templates if not template.of_call)
        of_call = [template for template in templates if template.of_call]
        self._of_call = tuple(
            (t.name, tuple((literal, _IDS[field] if field else None) for literal, field in t.parts)) for t in of_call
        )
        fixed = sum(len(t.name) + len(t.literal) + PER_HEADER for t in self._templates)
        ids = sum(len(t.name) + len(t.literal) + PER_HEADER + _ID_LENGTH * len(t.parts) for t in of_call)
        if fixed > HEADER_ROOM // 2 or ids > CALL_ROOM:
            raise ConfigurationError(
                f"{where}: the templates take {fixed} bytes and those of ids {ids}; "
                f"at most {HEADER_ROOM // 2} and {CALL_ROOM} are free",
                name=where,
            )

    def _said(self, attribution: Attribution) -> tuple[Headers, tuple[str, ...]]:
        if self._function is not None:
            return self._returned(attribution)
        pairs = [
            (key, self.tiers.get(value, value) if key == "tier" else value)
            for key, value in entries(attribution, self.order)
        ]
        fields = dict(pairs)
        said: list[tuple[str, str]] = []
        told: set[str] = set()
        left: list[str] = []
        room = HEADER_ROOM
        for template in self._templates:
            free = room - len(template.name) - len(template.literal) - PER_HEADER
            values = {
                field: fitted(fields[field], _LIMIT, template.write) for field in template.fields if field in fields
            }
            meant = set(values)
            untold: tuple[str, ...] = ()
            if "json" in template.fields:
                text, untold = json_object(pairs, limit=1024, room=free - sum(map(len, values.values())))
                values["json"] = text if text != "{}" else ""
                meant = set(fields)
            text = template.filled(values.get)
            if len(text) <= free + len(template.literal):
                left.extend(untold)
            else:
                text, untold = "", tuple(meant)
                left.extend(meant)
            if text:
                room -= len(template.name) + len(text) + PER_HEADER
                told |= meant.difference(untold)
                said.append((template.name, text))
        return tuple(said), tuple(key for key, _ in pairs if key in left and key not in told)

    def _returned(self, attribution: Attribution) -> tuple[Headers, tuple[str, ...]]:
        assert self._function is not None
        said: list[tuple[str, str]] = []
        left: list[str] = []
        room = HEADER_ROOM
        for name, value in self._function(attribution).items():
            name = _named(name, "the headers that the function returned")
            text = _OUTSIDE.sub(
                lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), sendable(str(value))
            ).strip()
            cost = len(name) + len(text) + PER_HEADER
            if cost > room:
                left.append(name)
            elif text:
                room -= cost
                said.append((name, text))
        return tuple(said), tuple(left)

    def headers(self, attribution: Attribution) -> Headers:
        return self._said(attribution)[0] if attribution else ()

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return self._said(attribution)[1] if attribution else ()

    def call_headers(self, ids: CallIds) -> Headers:
        said: list[tuple[str, str]] = []
        for name, parts in self._of_call:
            text, empty = "", True
            for literal, number in parts:
                text += literal
                if number is not None and (found := ids[number]) is not None:
                    text += found
                    empty = False
            if not empty:
                said.append((name, text))
        return tuple(said)

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `service_tier` for tiers that `tiers` gives a word for; others are for the templates to say."""
        word = self.tiers.get(tier)
        return asked(word, api, body) if word is not None else NOTHING
