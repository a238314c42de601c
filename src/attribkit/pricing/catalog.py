"""The bundled price catalog: dated rows per seller and model, read from one JSON file per seller when first asked."""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from attribkit.errors import PriceDataError
from attribkit.pricing.meters import unit_of

__all__ = ["FORMAT", "Catalog", "Shard", "check_shard", "in_force", "instant"]

FORMAT = 1
_BUNDLED = os.path.join(os.path.dirname(__file__), "data")
_NOT_CARDS = frozenset(
    (
        "from", "source", "basis", "checked", "note", "withdrawn", "free", "steps", "regions", "uplift", "hours",
        "fees", "strict_regions",
    )
)  # fmt: skip


class Shard:
    """All models of one seller."""

    __slots__ = ("fees", "models", "names", "schedules", "seller", "strict_regions")

    def __init__(self, seller: str, data: Mapping[str, Any]) -> None:
        if data.get("format") != FORMAT:
            raise PriceDataError(f"{seller}: price data of format {data.get('format')!r}; this version reads {FORMAT}")
        self.seller = seller
        self.models: Mapping[str, Any] = data["models"]
        self.fees: Mapping[str, str] = data.get("fees", {})
        self.schedules: Mapping[str, Any] = data.get("schedules", {})
        self.strict_regions: bool = data.get("strict_regions", False)
        names = {name: name for name in self.models}
        for model, entry in self.models.items():
            for name in entry.get("names", ()):
                names[name] = model
        for name in list(names):
            names.setdefault(name.lower(), names[name])
        self.names = names
        """Every name a model is known by, to the key in `models`."""


class Catalog:
    """Index and shards of one directory. Shards load on first use; a broken file raises PriceDataError."""

    def __init__(self, directory: str = _BUNDLED) -> None:
        self.directory = directory
        index = _read(os.path.join(directory, "index.json"))
        self.version: str = index["version"]
        self.built: str = index["built"]
        self.sellers: Mapping[str, Any] = index["sellers"]
        self.infer: tuple[tuple[str, str], ...] = tuple((prefix, seller) for prefix, seller in index["infer"])
        aliases = {seller: seller for seller in self.sellers}
        for seller, entry in self.sellers.items():
            for alias in entry.get("aliases", ()):
                aliases[alias] = seller
        self.aliases = aliases
        """What SDKs, gateways and OpenTelemetry call a seller, to the seller."""
        self._shards: dict[str, Shard] = {}

    @staticmethod
    @cache
    def bundled() -> Catalog:
        """Return the catalog that came with the package."""
        return Catalog()

    def shard(self, seller: str) -> Shard | None:
        """Return the models of `seller`, None when the catalog does not know it."""
        shard = self._shards.get(seller)
        if shard is None and seller in self.sellers:
            shard = self._shards[seller] = Shard(seller, _read(os.path.join(self.directory, f"{seller}.json")))
        return shard


def instant(text: str) -> int:
    """Return nanoseconds since the epoch of an ISO date (its midnight, UTC) or date-time."""
    if len(text) == 10:
        day = date.fromisoformat(text)
        return (day.toordinal() - 719_163) * 86_400 * 10**9
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1_000


def in_force(rows: list[dict[str, Any]], day: str) -> dict[str, Any]:
    """Return the row that holds on an ISO day (or at an ISO instant); the first one holds for all time before it."""
    rows = [row for row in rows if not row.get("withdrawn")]
    return max((row for row in rows[1:] if row["from"] <= day), key=lambda row: str(row["from"]), default=rows[0])


def check_shard(seller: str, data: Mapping[str, Any]) -> None:
    """Raise PriceDataError for the first thing in a shard that breaks the format, naming model, row and key."""
    shard = Shard(seller, data)
    for model, entry in shard.models.items():
        rows = entry.get("rows")
        if not rows:
            raise PriceDataError(f"{seller}/{model}: no price rows")
        before = ""
        for number, row in enumerate(rows):
            where = f"{seller}/{model}: row {number}"
            start = row.get("from", "")
            if number and start <= before:
                raise PriceDataError(f"{where}: `from` {start!r} is not after {before!r}")
            if start:
                try:
                    instant(start)
                except ValueError as error:
                    raise PriceDataError(f"{where}: `from` {start!r} is not an ISO date") from error
            before = start
            if not row.get("source"):
                raise PriceDataError(f"{where}: no `source`")
            _check_cards(where, row)
            for step in row.get("steps", ()):
                if type(step.get("over")) is not int:
                    raise PriceDataError(f"{where}: a step without a whole number `over`")
                _check_cards(f"{where}: step over {step['over']}", step)
            for region, cards in row.get("regions", {}).items():
                _check_cards(f"{where}: region {region}", cards)
            if "hours" in row and row["hours"]["schedule"] not in shard.schedules:
                raise PriceDataError(f"{where}: no schedule {row['hours']['schedule']!r}")


def _check_cards(where: str, row: Mapping[str, Any]) -> None:
    for name, card in row.items():
        if name in _NOT_CARDS or name == "over":
            continue
        if not isinstance(card, dict):
            raise PriceDataError(f"{where}: {name} is not a card of prices")
        for meter, price in card.items():
            if unit_of(meter) is None:
                raise PriceDataError(f"{where}: {name}.{meter}: no such meter")
            if not isinstance(price, str) or not price.replace(".", "", 1).isdigit():
                raise PriceDataError(f'{where}: {name}.{meter} = {price!r}: prices are decimal texts like "0.25"')


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        raise PriceDataError(f"{path}: cannot be read as price data: {error}") from error
    if not isinstance(data, dict):
        raise PriceDataError(f"{path}: is not a JSON object")
    return data
