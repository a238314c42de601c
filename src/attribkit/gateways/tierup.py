"""TierUp: the model is a tier, `tier-1` (speed), `tier-2` (balance), `tier-3` (intelligence) or `tier-4` (reasoning).

TierUp documents no field for metadata. Attribution goes along in headers under our own name, which an edge in front
of it, or TierUp itself, can read, and which collide with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.gateways.base import NOTHING, CallIds, Headers
from attribkit.gateways.metadata_header import MetadataHeader

__all__ = ["TierUp"]

_APIS = frozenset({"chat", "responses", "completions", "messages"})
_MODELS = {name: f"tier-{n}" for n, name in enumerate(("speed", "balance", "intelligence", "reasoning"), 1)}
_MODELS |= {f"tier-{n}": f"tier-{n}" for n in range(1, 5)} | {str(n): f"tier-{n}" for n in range(1, 5)}


class TierUp(MetadataHeader):
    name: ClassVar[str] = "tierup"
    header: ClassVar[str] = "x-attribkit-metadata"

    def call_headers(self, ids: CallIds) -> Headers:
        if ids.traceparent is None:
            return (("x-attribkit-call-id", ids.call_id),)
        return (("x-attribkit-call-id", ids.call_id), ("traceparent", ids.traceparent))

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the model id that stands for `tier`: who asks for a tier gets it, whatever model the call names."""
        if api not in _APIS:
            return NOTHING
        model = _MODELS.get(self.tiers.get(tier, tier).lower())
        return {"model": model} if model is not None else NOTHING
