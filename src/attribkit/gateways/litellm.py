"""LiteLLM Proxy: tags for budgets and spend reports, spend metadata for the logs, its own call id set to ours.

Run against 1.106.2. `x-litellm-tags` is split at commas and knows no escape, so a comma inside a value is written
`%2C` (and `%` as `%25`), which LiteLLM leaves as it is. `x-litellm-spend-logs-metadata` is JSON and holds the values
as they are. Session and trace: either of `x-litellm-session-id` and `x-litellm-trace-id` sets both, and where both are
sent the session is lost; so only the session is sent, and the trace comes from `traceparent`. A call id over 256
characters would be replaced in silence; ours has 36.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import CallIds, Headers, Silent
from attribkit.gateways.fitting import HEADER_ROOM, PER_HEADER, entries, fitted, in_json, in_text, text_writer

__all__ = ["LiteLLM"]

_TAGS, _METADATA = "x-litellm-tags", "x-litellm-spend-logs-metadata"
_OWN = {"user_id": "x-litellm-customer-id", "session_id": "x-litellm-session-id"}
_TAG_LIMIT = 256
_in_tag = text_writer(",")


class LiteLLM(Silent):
    name: ClassVar[str] = "litellm"
    request_id_header: ClassVar[str | None] = "x-litellm-call-id"
    cost_header: ClassVar[str | None] = "x-litellm-response-cost"

    def _said(self, attribution: Attribution) -> tuple[Headers, tuple[str, ...]]:
        room = HEADER_ROOM - len(_TAGS) - len(_METADATA) - 2 * PER_HEADER - 2
        tags: list[str] = []
        metadata: list[str] = []
        own: list[tuple[str, str]] = []
        left: list[str] = []
        for key, value in entries(attribution, self.order):
            if key == "tier":
                value = self.tiers.get(value, value)
            tag = f"{key}:{fitted(value, _TAG_LIMIT, _in_tag, room=_TAG_LIMIT)}"
            entry = f"{in_json(key)}:{fitted(value, 1024, in_json)}"
            cost = len(tag) + len(entry) + 2
            header = _OWN.get(key)
            text = ""
            if header is not None:
                text = fitted(value, _TAG_LIMIT, in_text, room=_TAG_LIMIT)
                cost += len(header) + len(text) + PER_HEADER
            if cost > room:
                left.append(key)
                continue
            room -= cost
            tags.append(tag)
            metadata.append(entry)
            if header is not None:
                own.append((header, text))
        if not tags:
            return (), tuple(left)
        return ((_TAGS, ",".join(tags)), (_METADATA, "{" + ",".join(metadata) + "}"), *own), tuple(left)

    def headers(self, attribution: Attribution) -> Headers:
        return self._said(attribution)[0]

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return self._said(attribution)[1]

    def call_headers(self, ids: CallIds) -> Headers:
        if ids.traceparent is None:
            return (("x-litellm-call-id", ids.call_id),)
        return (("x-litellm-call-id", ids.call_id), ("traceparent", ids.traceparent))
