"""OpenAI itself, and servers that take its request types: metadata in the body.

Read in the request types of openai 3.54: `metadata` of 16 pairs, keys of 64 and values of 512 characters;
`safety_identifier` of up to 128 characters, which OpenAI asks to hash. The user's own pairs go first. OpenAI refuses
metadata on a chat completion that is not stored, so it goes along only with `store: true` there, on Responses unless
`store` is false, and on runs and batches always. Handing in a run's tool outputs is no creation and takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import NOTHING, Silent
from attribkit.gateways.fitting import Entry, Pairs, entries, opaque
from attribkit.gateways.service_tiers import asked

__all__ = ["OpenAI"]

_METADATA = Pairs(16, 64, 512)
_ALWAYS = frozenset({"runs", "batches"})


def _kept(api: str, body: Mapping[str, Any]) -> bool:
    """Tell whether what this call creates is kept, so that it can have metadata."""
    if api == "chat":
        return body.get("store") is True
    if api == "responses":
        return body.get("store") is not False
    return api in _ALWAYS and "tool_outputs" not in body


class OpenAI(Silent):
    name: ClassVar[str] = "openai"
    request_id_header: ClassVar[str | None] = "x-request-id"
    body_apis: frozenset[str] = _ALWAYS | {"chat", "responses"}
    body_field: str | None = "metadata"

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if api not in self.body_apis or not attribution:
            return NOTHING
        ready, user = _facts(attribution, self.order)
        said: dict[str, Any] = {}
        if _kept(api, body):
            metadata, _ = _METADATA.merged(ready, body.get("metadata"))
            if metadata is not None:
                said["metadata"] = metadata
        if user is not None and api not in _ALWAYS and not (body.get("safety_identifier") or body.get("user")):
            said["safety_identifier"] = user
        return said

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return _METADATA.merged(_facts(attribution, self.order)[0], (body or NOTHING).get("metadata"))[1]

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked(self.tiers.get(tier, tier), api, body) if api in self.body_apis else NOTHING


@lru_cache(maxsize=1024)
def _facts(attribution: Attribution, order: tuple[str, ...]) -> tuple[tuple[Entry, ...], str | None]:
    user = attribution.get("user_id")
    identifier = opaque(attribution.get("tenant_id") or "", user) if user else None
    return _METADATA.ready(entries(attribution, order)), identifier
