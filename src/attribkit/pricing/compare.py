"""What differs between two catalogs: models, and prices of models that both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, NamedTuple

from attribkit.pricing.catalog import Catalog, in_force

__all__ = ["Difference", "differences"]

_NOT_CARDS = frozenset(("from", "source", "basis", "checked", "note", "withdrawn", "free", "hours", "fees", "list"))


class Difference(NamedTuple):
    """One thing that differs: a model that only one catalog has, or one of its prices."""

    seller: str
    model: str
    what: str
    """"model", or the price: "standard.input", "over 272000: batch.output", "eu: standard.input"."""
    before: str | None
    after: str | None


def differences(before: Catalog, after: Catalog, *, at: date | None = None) -> Iterator[Difference]:
    """Yield what differs between the prices in force on a day (today), sorted by seller and model."""
    day = (at or date.today()).isoformat()
    for seller in sorted({*before.sellers, *after.sellers}):
        old, new = before.shard(seller), after.shard(seller)
        mine, theirs = (old.models if old else {}), (new.models if new else {})
        for model in sorted({*mine, *theirs}):
            if model not in mine and not (old and model in old.names):
                yield Difference(seller, model, "model", None, "new")
            elif model not in theirs and not (new and model in new.names):
                yield Difference(seller, model, "model", "there", None)
            elif model in mine and model in theirs:
                yield from _prices(
                    seller, model, in_force(mine[model]["rows"], day), in_force(theirs[model]["rows"], day)
                )


def _prices(seller: str, model: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    mine, theirs = dict(_flat(before)), dict(_flat(after))
    for what in sorted({*mine, *theirs}):
        if mine.get(what) != theirs.get(what):
            yield Difference(seller, model, what, mine.get(what), theirs.get(what))


def _flat(row: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    if row.get("free"):
        yield f"{where}free", str(row["free"])
    for key, value in row.items():
        if key == "steps":
            for step in value:
                cards = {name: card for name, card in step.items() if name != "over"}
                yield from _flat(cards, f"{where}over {step['over']}: ")
        elif key == "regions":
            for region, cards in value.items():
                yield from _flat(cards, f"{where}{region}: ")
        elif key == "uplift":
            for region, factor in value.items():
                yield f"{where}{region}: x", str(factor)
        elif key not in _NOT_CARDS and isinstance(value, Mapping):
            for meter, price in value.items():
                yield f"{where}{key}.{meter}", str(price)
