"""OpenRouter: who the call is for stands in the body, beside what the user set there.

Read in the openrouter SDK 1.3.84 and on openrouter.ai/docs/guides/features/broadcast: `user`, `metadata` (16 pairs,
keys of 64 and values of 512 characters), `trace` (trace_id, trace_name, span_name and free keys), and the session (256
characters) as the header `x-session-id`, which a `session_id` in the body beats. OpenRouter keeps one session with one
upstream provider. The id of a request is the reply's own `id`; the cost is in its usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import NOTHING, Headers, Silent
from attribkit.gateways.fitting import Entry, Pairs, entries, fitted, in_text
from attribkit.gateways.service_tiers import asked

__all__ = ["OpenRouter"]

_METADATA = Pairs(16, 64, 512)
_TRACE = Pairs(16, 64, 512)
_IN_TRACE = (("trace_id", "workflow_id"), ("trace_name", "workflow"), ("span_name", "agent"))
_APART = ("session_id", "user_id")
"""Fields that have a place of their own."""


class OpenRouter(Silent):
    name: ClassVar[str] = "openrouter"
    body_apis: frozenset[str] = frozenset({"chat", "responses"})
    body_field: str | None = "metadata"

    def headers(self, attribution: Attribution) -> Headers:
        session = attribution.get("session_id")
        return (("x-session-id", fitted(session, 256, in_text, room=256)),) if session else ()

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if api not in self.body_apis or not attribution:
            return NOTHING
        user, ready, trace = _facts(attribution, self.order)
        metadata, _ = _METADATA.merged(ready, body.get("metadata"))
        traced, _ = _TRACE.merged(trace, body.get("trace"))
        said: dict[str, Any] = {}
        if metadata is not None:
            said["metadata"] = metadata
        if traced is not None:
            said["trace"] = traced
        if user is not None and body.get("user") is None:
            said["user"] = user
        return said

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return _METADATA.merged(_facts(attribution, self.order)[1], (body or NOTHING).get("metadata"))[1]

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked(self.tiers.get(tier, tier), api, body)


@lru_cache(maxsize=1024)
def _facts(attribution: Attribution, order: tuple[str, ...]) -> tuple[str | None, tuple[Entry, ...], tuple[Entry, ...]]:
    pairs = entries(attribution, order)
    fields = dict(pairs)
    user = fields.get("user_id")
    return (
        fitted(user, 256) if user is not None else None,
        _METADATA.ready(pair for pair in pairs if pair[0] not in _APART),
        _TRACE.ready((name, fields[key]) for name, key in _IN_TRACE if key in fields),
    )
