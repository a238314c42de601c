"""TrueFoundry AI Gateway: metadata as one JSON header, values of at most 128 characters
(truefoundry.com/docs/ai-gateway/request-headers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.gateways.base import CallIds, Headers
from attribkit.gateways.metadata_header import MetadataHeader
from attribkit.gateways.service_tiers import asked

__all__ = ["TrueFoundry"]


class TrueFoundry(MetadataHeader):
    name: ClassVar[str] = "truefoundry"
    header: ClassVar[str] = "x-tfy-metadata"
    max_value: ClassVar[int] = 128

    def call_headers(self, ids: CallIds) -> Headers:
        return (("traceparent", ids.traceparent),) if ids.traceparent is not None else ()

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked(self.tiers.get(tier, tier), api, body)
