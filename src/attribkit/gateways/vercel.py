"""Vercel AI Gateway: user and tags in the body, under `providerOptions.gateway`.

vercel.com/docs/ai-gateway/capabilities/custom-reporting. Vercel bills what is written: 0.075 USD for 1,000 values of
tags and users. So only tenant, workflow, feature and cost centre go along as tags, and the user; a route's `fields`
setting names others. Tags are plain strings, `field:value`, cut to 128 characters (no limit is documented).
A tier is `service_tier`, which every API of the gateway takes (vercel.com/docs/ai-gateway/capabilities/service-tiers).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import NOTHING, Silent
from attribkit.gateways.fitting import entries, fitted

__all__ = ["Vercel"]

_TAGGED = ("tenant_id", "workflow", "feature", "cost_center")
_TIERS = {"default": "default", "standard": "default", "flex": "flex", "priority": "priority"}


class Vercel(Silent):
    name: ClassVar[str] = "vercel"
    body_apis: frozenset[str] = frozenset({"chat", "responses", "messages"})

    def __init__(self, *, order: tuple[str, ...] = (), tiers: Mapping[str, str] = NOTHING) -> None:
        super().__init__(order=order or _TAGGED, tiers=tiers)

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if api not in self.body_apis or not attribution:
            return NOTHING
        options = _map(body.get("providerOptions"))
        gateway = _map(options.get("gateway")) if options is not None else None
        theirs = gateway.get("tags") if gateway is not None else None
        if options is None or gateway is None or not (theirs is None or isinstance(theirs, list)):
            return NOTHING
        user, tags, _ = _facts(attribution, self.order)
        said: dict[str, Any] = {}
        kept = theirs or []
        new = [tag for tag in tags if tag not in kept]
        if new:
            said["tags"] = [*kept, *new]
        if user is not None and body.get("user") is None and gateway.get("user") is None:
            said["user"] = user
        return {"providerOptions": {**options, "gateway": {**gateway, **said}}} if said else NOTHING

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return _facts(attribution, self.order)[2]

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        word = _TIERS.get(self.tiers.get(tier, tier))
        if word is None or api not in self.body_apis or body.get("service_tier") is not None:
            return NOTHING
        return {"service_tier": word}


def _map(value: object) -> Mapping[str, Any] | None:
    """Return a map that the user set, an empty one where there is none, None for what is no map."""
    if value is None:
        return NOTHING
    return value if isinstance(value, Mapping) else None


@lru_cache(maxsize=1024)
def _facts(attribution: Attribution, order: tuple[str, ...]) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """Return the user, the tags, and the fields that are neither."""
    pairs = entries(attribution, order)
    user = next((fitted(value, 128) for key, value in pairs if key == "user_id"), None)
    tags = tuple(f"{key}:{fitted(value, 127 - len(key))}" for key, value in pairs if key in order and key != "user_id")
    return user, tags, tuple(key for key, _ in pairs if key not in order and key not in ("user_id", "tier"))
