"""What a request asks the loopback gateway to do wrong, or differently: faults, slow streams, other usage."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["HEADER", "PLAIN", "Behaviour", "Behaviours"]

HEADER = "x-loopback"
_MARKER = re.compile(r"\[\[loopback ([^\[\]]{1,400})\]\]")
_PAIR = re.compile(r"([a-z_-]+)=([^\s;,]+)")
_UNSET: Any = object()


class Behaviour(NamedTuple):
    """How to answer. Every field has a default that means "as a good gateway would"."""

    status: int = 200
    """An error status to answer with."""
    retry_after_ms: int | None = 1
    """Goes with an error status as `retry-after-ms`; negative leaves the header out."""
    body: str = "error"
    """The body of an error status: error (OpenAI-shaped), html, empty, garbage (cut JSON)."""
    html: int = 0
    """Answer an HTML page with this status (200 or 502, say)."""
    hang: float = 0
    """Seconds to say nothing; then the reply comes, if the client is still there. -1: for good."""
    drop: int = -1
    """Cut the connection after this many chunks of a stream; 0 before any byte of any reply."""
    redirect: str = ""
    """Answer 307 with this location. `{path}` in it stands for the request's own path."""
    delay_ms: int = 0
    """Time before the first byte."""
    slow_ms: int = 0
    """Time between the chunks of a stream."""
    chunks: int = 0
    """The number of chunks of content in a stream; 0: a few words each."""
    model: str = ""
    """The model to name in the reply."""
    tier: str = ""
    """The service tier to name in the reply; `null` for none."""
    finish: str = ""
    """Another finish reason."""
    usage: Any = _UNSET
    """Answer this in the place of the usage object, whatever it is."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further response headers."""

    @property
    def states_usage(self) -> bool:
        """True when `usage` was given (it may be None)."""
        return self.usage is not _UNSET


PLAIN = Behaviour()
_TYPES = {name: type(value) for name, value in PLAIN._asdict().items() if isinstance(value, int | float | str)}
_TYPES["retry_after_ms"] = int


def _read(fields: Mapping[str, Any]) -> Behaviour:
    known: dict[str, Any] = {}
    for key, value in fields.items():
        name = key.replace("-", "_")
        if name in ("count", "id", "contains", "path"):
            continue
        if name not in Behaviour._fields:
            raise ValueError(f"{key} is not something the gateway can do; it knows {', '.join(Behaviour._fields)}")
        if name == "headers":
            value = tuple((str(k), str(v)) for k, v in (value.items() if isinstance(value, Mapping) else value))
        elif name in _TYPES:
            value = _TYPES[name](value)
        known[name] = value
    return Behaviour(**known)


class _Rule(NamedTuple):
    contains: str
    path: str
    times: int | None
    behaviour: Behaviour
    used: list[int]


class Behaviours:
    """Finds the behaviour of each request: the `x-loopback` header, a `[[loopback ...]]` marker in the body, or a rule
    that was posted beforehand, in this order."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._seen: dict[str, int] = {}

    def clear(self) -> None:
        """Forget rules and counts."""
        self._rules.clear()
        self._seen.clear()

    def add(self, rule: Mapping[str, Any]) -> None:
        """Add a rule: fields of `Behaviour`, with `contains` (text of the body), `path` (its end) and `count`."""
        count = rule.get("count")
        self._rules.append(
            _Rule(
                str(rule.get("contains") or ""),
                str(rule.get("path") or ""),
                None if count is None else int(count),
                _read(rule),
                [0],
            )
        )

    def of(self, header: str | None, path: str, text: str) -> Behaviour:
        """Return how to answer one request; counts it where a count limits the behaviour."""
        if header is None and "[[loopback " in text:
            marker = _MARKER.search(text)
            header = marker.group(1) if marker else None
        if header is not None:
            fields: dict[str, Any] = dict(_PAIR.findall(header.replace("\\", "")))
            if "usage" in fields:
                fields["usage"] = json.loads(fields["usage"])
            if "count" in fields:
                key = header if "id" in fields else f"{header}\n{path}\n{text}"
                seen = self._seen[key] = self._seen.get(key, 0) + 1
                if seen > int(fields["count"]):
                    return PLAIN
            return _read(fields)
        for rule in self._rules:
            if (not rule.contains or rule.contains in text) and path.endswith(rule.path):
                if rule.times is not None and rule.used[0] >= rule.times:
                    continue
                rule.used[0] += 1
                return rule.behaviour
        return PLAIN
