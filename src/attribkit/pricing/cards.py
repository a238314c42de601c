"""From a catalog row to the prices of one kind of call: tier, region, context steps, hour."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from attribkit.pricing.catalog import Shard, instant
from attribkit.pricing.meters import FEES, PRICES, unit_price
from attribkit.pricing.schedule import window_at

__all__ = ["COMMITTED", "TIERS", "Card", "NoPrice", "card_at"]

TIERS = {
    "": "standard",
    "default": "standard",
    "standard": "standard",
    "standard_only": "standard",
    "auto": "standard",
    "on_demand": "standard",
    "unspecified": "standard",
    "performance": "priority",
    "fast": "fast",
}
"""What APIs call a tier, to the name of its card; other words are taken as they are."""

COMMITTED = {
    "reserved": "reserved capacity is billed by the month; the call adds nothing",
    "provisioned": "provisioned throughput is billed as a commitment; the call adds nothing",
    "scale": "scale tier is billed as purchased capacity; the call adds nothing",
}

_EVER, _NEVER = -(1 << 62), 1 << 62


class NoPrice(NamedTuple):
    """There is a model but no price for this kind of call, from `since` to `until`."""

    reason: str
    since: int
    until: int


class Card(NamedTuple):
    """Unit prices by meter for calls from `since` to `until`, and for longer prompts those of the last step passed."""

    prices: dict[str, Decimal]
    steps: tuple[tuple[int, dict[str, Decimal]], ...]
    """(threshold, prices): they hold for the whole call when its input tokens are more than the threshold."""
    since: int
    until: int
    date: str | None
    free: str | None
    """Why the row is free, when it is."""


def card_at(shard: Shard, model: str, *, tier: str, region: str | None, ns: int) -> Card | NoPrice:
    """Return the card of `shard`'s model at an instant. NoPrice says that none was published for it."""
    row, since, until = _row_at(shard.models[model]["rows"], ns)
    factor = Decimal(1)
    cards: Mapping[str, Any] = row
    if region and region != "global":
        regions = row.get("regions", {})
        uplift = row.get("uplift", {})
        if region in regions:
            cards = regions[region] or row  # an empty one: the row's own price holds there
        elif region in uplift:
            factor = Decimal(uplift[region])
        elif "*" in uplift and not region.startswith("global:"):
            factor = Decimal(uplift["*"])
        elif region != "in-region" and (shard.strict_regions or row.get("strict_regions")):
            known = ", ".join(sorted(regions)) or "none but global"
            return NoPrice(f"no price of {shard.seller}/{model} for region {region!r} (known: {known})", since, until)
    name = tier
    if "hours" in row:
        hours = row["hours"]
        inside, first, last = window_at(shard.schedules[hours["schedule"]], ns)
        since, until = max(since, first), min(until, last)
        if inside and tier == "standard":
            name = hours["card"]
    if row.get("free"):
        return Card({}, (), since, until, row.get("from"), row["free"])
    if name not in cards:
        return NoPrice(f"no {tier} price of {shard.seller}/{model} is published", since, until)
    fees = {**shard.fees, **row.get("fees", {})}
    steps = []
    for step in cards.get("steps", ()):
        if name in step:
            steps.append((step["over"], _compiled(step[name], factor, fees)))
        else:
            steps.append((step["over"], {}))  # priced up to here only; meters are then missing, and said to be
    return Card(_compiled(cards[name], factor, fees), tuple(steps), since, until, row.get("from"), None)


def _row_at(rows: list[dict[str, Any]], ns: int) -> tuple[dict[str, Any], int, int]:
    """Return the row in force and its span. The first row holds for all time before it: lists often learn of a model
    some days after its launch."""
    rows = [row for row in rows if not row.get("withdrawn")]
    chosen, since, until = rows[0], _EVER, _NEVER
    for row in rows[1:]:
        start = instant(row["from"])
        if start > ns:
            until = start
            break
        chosen, since = row, start
    return chosen, since, until


def _compiled(card: Mapping[str, str], factor: Decimal, fees: Mapping[str, str]) -> dict[str, Decimal]:
    prices = {}
    for meter, text in card.items():
        price = unit_price(meter, text)
        prices[meter] = price if factor == 1 or meter in FEES else PRICES.multiply(price, factor)
    for meter, text in fees.items():
        if meter not in prices:
            prices[meter] = unit_price(meter, text)
    return prices
