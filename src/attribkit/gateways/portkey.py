"""Portkey, hosted and open source: metadata as one JSON header, ids as trace headers.

Metadata values are strings of at most 128 characters, and `_user` is who Portkey's own analytics count by
(portkey.ai/docs/aigw/product/observability/metadata). The open-source gateway checks nothing and takes unreadable
metadata for none at all; its conditional routing reads `metadata.tier` (both run against 1.15.2). So a tier is one
more entry of the metadata, and needs no field in the body.
"""

from __future__ import annotations

from typing import ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import CallIds, Headers
from attribkit.gateways.fitting import entries
from attribkit.gateways.metadata_header import MetadataHeader

__all__ = ["Portkey"]


class Portkey(MetadataHeader):
    name: ClassVar[str] = "portkey"
    header: ClassVar[str] = "x-portkey-metadata"
    max_value: ClassVar[int] = 128
    request_id_header: ClassVar[str | None] = "x-portkey-trace-id"
    echoes: ClassVar[bool] = True

    def _entries(self, attribution: Attribution) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        own_user = attribution.get("_user") is not None
        for key, value in entries(attribution, self.order):
            if key == "tier":
                value = self.tiers.get(value, value)
            elif key == "user_id" and not own_user:
                pairs.append(("_user", value))
            pairs.append((key, value))
        return pairs

    def call_headers(self, ids: CallIds) -> Headers:
        call_id, operation_id, trace_id, _, traceparent = ids
        if trace_id is None or traceparent is None:
            return ("x-portkey-trace-id", operation_id), ("x-portkey-span-id", call_id)
        return ("x-portkey-trace-id", trace_id), ("x-portkey-span-id", call_id), ("traceparent", traceparent)
