"""Cloudflare AI Gateway: metadata as one JSON header of at most five entries.

developers.cloudflare.com/ai-gateway/observability/custom-metadata: strings, numbers or booleans; of more than five
entries only the first five are kept. Which five go in is the order of the dialect: of the well-known fields the first
that are set, then free dimensions by name; a route's `fields` setting names others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.gateways.metadata_header import MetadataHeader
from attribkit.gateways.service_tiers import asked

__all__ = ["Cloudflare"]


class Cloudflare(MetadataHeader):
    name: ClassVar[str] = "cloudflare"
    header: ClassVar[str] = "cf-aig-metadata"
    most: ClassVar[int] = 5
    request_id_header: ClassVar[str | None] = "cf-aig-log-id"

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked(self.tiers.get(tier, tier), api, body)
