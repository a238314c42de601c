"""Anthropic itself: `metadata.user_id`, an opaque id and nothing else.

Read in the request types of anthropic 2.12: a uuid or hash, no name, address or number of a person. It is the SHA-256
of tenant and user; of the tenant where no user is known. No other field can be said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import NOTHING, Silent
from attribkit.gateways.fitting import opaque
from attribkit.gateways.service_tiers import asked

__all__ = ["Anthropic"]


class Anthropic(Silent):
    name: ClassVar[str] = "anthropic"
    request_id_header: ClassVar[str | None] = "request-id"
    body_apis: frozenset[str] = frozenset({"messages"})

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if api not in self.body_apis:
            return NOTHING
        metadata = body.get("metadata")
        if metadata is None:
            metadata = NOTHING
        if not isinstance(metadata, Mapping) or metadata.get("user_id") is not None:
            return NOTHING
        user_id = _user_id(attribution)
        return {"metadata": {**metadata, "user_id": user_id}} if user_id is not None else NOTHING

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return tuple(key for key, _ in attribution if key not in ("tenant_id", "user_id", "tier"))

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked(self.tiers.get(tier, tier), api, body) if api in self.body_apis else NOTHING


@lru_cache(maxsize=1024)
def _user_id(attribution: Attribution) -> str | None:
    tenant, user = attribution.get("tenant_id"), attribution.get("user_id")
    return opaque(*(part for part in (tenant, user) if part)) if tenant or user else None
