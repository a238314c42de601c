"""Models in a ledger that have no price."""

from __future__ import annotations

from typing import NamedTuple

from attribkit.ledger.base import LedgerStore, Question
from attribkit.pricing.engine import PriceEngine
from attribkit.usage.model import Usage

__all__ = ["Gap", "price_gaps"]

_PROBE = Usage((("input", 1), ("output", 1)))
_EMBEDDED = Usage((("input", 1),))
_NOT_TOKENS = ("images", "speech", "transcriptions", "videos", "moderations")


class Gap(NamedTuple):
    """A kind of call in the ledger that has no price."""

    provider: str
    model: str | None
    tier: str | None
    region: str | None
    calls: int
    """Of this kind, in the range that was asked for."""
    unpriced_calls: int
    reason: str


def price_gaps(store: LedgerStore, engine: PriceEngine, question: Question = Question()) -> list[Gap]:  # noqa: B008
    """Return the kinds of calls without a price, most calls first: those whose rows say so, and those that the prices
    of today would not cover any more. Rows that are unpriced because nobody stated a usage are no gap."""
    by = ("provider", "model", "service_tier", "region", "api")
    found: dict[tuple[str, str | None, str | None, str | None, bool], list[int]] = {}
    for group in store.query(question._replace(by=by)):
        provider, model, tier, region, api = group.key
        if group.input_tokens + group.output_tokens == 0 or api in _NOT_TOKENS:
            continue
        counts = found.setdefault((provider or "", model, tier, region, api == "embeddings"), [0, 0])
        counts[0] += group.calls
        counts[1] += group.unpriced_calls
    gaps = []
    for (provider, model, tier, region, embedded), (calls, unpriced) in found.items():
        probe = _EMBEDDED if embedded else _PROBE
        cost = engine.cost(probe, provider=provider, model=model, service_tier=tier, region=region)
        if cost.usd is None:
            gaps.append(Gap(provider, model, tier, region, calls, unpriced, cost.reason or "no price"))
    return sorted(gaps, key=lambda gap: (-gap.calls, gap.provider, gap.model or ""))
