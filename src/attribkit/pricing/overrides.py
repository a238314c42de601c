"""An organisation's own prices over the catalog: contract prices, discounts, free sellers, deployment names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from attribkit.errors import PriceDataError
from attribkit.pricing.catalog import instant
from attribkit.pricing.meters import FEES, PRICES, unit_of, unit_price

__all__ = ["Overrides", "Rule", "discounted", "read_overrides"]

_SINCE, _UNTIL = -(1 << 62), 1 << 62
_KEYS = {
    "price": {"seller", "model", "from", "until", "tier", "note"},
    "discount": {"seller", "model", "from", "until", "percent", "fees", "note"},
    "free": {"seller", "model", "from", "until", "reason", "note"},
    "name": {"seller", "name", "model", "note"},
}


class Rule(NamedTuple):
    """One override: for which calls, between which instants, and what it does to their prices."""

    kind: str
    seller: str
    model: str
    """A model name, or a pattern with * and ?."""
    since: int
    until: int
    tier: str
    prices: Mapping[str, Decimal]
    """Unit prices by meter (kind "price")."""
    factor: Decimal
    """What is paid of the list price (kind "discount")."""
    fees: bool
    """Whether the discount holds for fees (searches, requests) too."""
    reason: str

    def matches(self, seller: str, names: Iterable[str]) -> bool:
        """Return whether the rule is for this seller and any of these names of a model."""
        if self.seller not in (seller, "*"):
            return False
        if self.model == "*":
            return True
        if "*" in self.model or "?" in self.model:
            from fnmatch import fnmatchcase

            return any(fnmatchcase(name, self.model) for name in names)
        return self.model in names


class Overrides:
    """All rules in force, the first match of each kind winning; and the names given to deployments."""

    def __init__(self, rules: tuple[Rule, ...], names: Mapping[tuple[str, str], str], digest: str) -> None:
        self.rules, self.names, self.digest = rules, names, digest

    def find(self, seller: str, names: Iterable[str], tier: str, ns: int) -> tuple[Rule | None, int, int]:
        """Return the rule for a call at `ns`, and the span in which this answer holds.

        A contract price or "free" goes before a discount.
        """
        known = tuple(names)
        since, until = _SINCE, _UNTIL
        best: Rule | None = None
        for rule in self.rules:
            if not rule.matches(seller, known) or (rule.kind == "price" and rule.tier not in (tier, "*")):
                continue
            for edge in (rule.since, rule.until):
                if edge <= ns:
                    since = max(since, edge)
                else:
                    until = min(until, edge)
            if rule.since <= ns < rule.until and (
                best is None or (best.kind == "discount" and rule.kind != "discount")
            ):
                best = rule
        return best, since, until


def read_overrides(
    sources: Iterable[Mapping[str, Any] | str | os.PathLike[str]] | Mapping[str, Any] | str | os.PathLike[str],
) -> Overrides:
    """Return the rules of mappings and TOML or JSON files, earlier sources first.

    Raises PriceDataError that names the file, the row and the key for whatever breaks the format.
    """
    if isinstance(sources, Mapping | str | os.PathLike):
        sources = (sources,)
    rules: list[Rule] = []
    names: dict[tuple[str, str], str] = {}
    seen: list[str] = []
    for source in sources:
        where, data = _load(source)
        if data:
            seen.append(json.dumps(data, sort_keys=True, default=str))
        for kind, rows in data.items():
            if kind not in _KEYS:
                raise PriceDataError(f"{where}: {kind!r} is not one of {', '.join(_KEYS)}")
            if not isinstance(rows, list):
                raise PriceDataError(f"{where}: {kind} is not a list of rows ([[{kind}]] in TOML)")
            for number, row in enumerate(rows, 1):
                _read_row(f"{where}: {kind} row {number}", kind, row, rules, names)
    return Overrides(tuple(rules), names, _digest(seen))


def _digest(texts: list[str]) -> str:
    if not texts:
        return ""
    import hashlib

    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def _read_row(where: str, kind: str, row: Any, rules: list[Rule], names: dict[tuple[str, str], str]) -> None:
    if not isinstance(row, Mapping):
        raise PriceDataError(f"{where}: is not a table")
    unknown = [key for key in row if key not in _KEYS[kind] and not (kind == "price" and unit_of(key))]
    if unknown:
        raise PriceDataError(f"{where}: {unknown[0]!r} is not a key of a {kind}")
    seller = _text(where, row, "seller", "*" if kind == "discount" else None)
    model = _text(where, row, "model", None if kind in ("price", "name") else "*")
    if kind == "name":
        names[seller, _text(where, row, "name", None).lower()] = model
        return
    since, until = _date(where, row, "from", _SINCE), _date(where, row, "until", _UNTIL)
    if until <= since:
        raise PriceDataError(f"{where}: `until` {row['until']} is not after `from` {row['from']}")
    prices = {key: unit_price(key, str(_number(where, row, key))) for key in row if unit_of(key)}
    factor = Decimal(1)
    if kind == "price" and not prices:
        raise PriceDataError(f'{where}: no price; name meters, for example input = "2.50" (USD per million tokens)')
    if kind == "discount":
        percent = _number(where, row, "percent")
        if percent > 100:
            raise PriceDataError(f"{where}: percent = {percent}: a discount is from 0 to 100")
        factor = PRICES.divide(100 - percent, Decimal(100))
    reason = _text(where, row, "reason", "free by the organisation's own prices") if kind == "free" else ""
    tier = _text(where, row, "tier", "standard") if kind == "price" else ""
    rules.append(Rule(kind, seller, model, since, until, tier, prices, factor, row.get("fees") is True, reason))


def discounted(prices: Mapping[str, Decimal], rule: Rule) -> dict[str, Decimal]:
    """Return `prices` with the rule's discount taken off; fees only when the rule says so."""
    return {
        meter: price if meter in FEES and not rule.fees else PRICES.multiply(price, rule.factor)
        for meter, price in prices.items()
    }


def _load(source: Mapping[str, Any] | str | os.PathLike[str]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(source, Mapping):
        return "overrides", source
    path = os.fspath(source)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if path.endswith(".json"):
            data = json.loads(text, parse_float=Decimal)
        else:
            import tomllib

            data = tomllib.loads(text, parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise PriceDataError(f"{path}: cannot be read as prices: {error}") from error
    if not isinstance(data, dict):
        raise PriceDataError(f"{path}: is not a table of rows")
    return path, data


def _text(where: str, row: Mapping[str, Any], key: str, default: str | None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str) or not value:
        raise PriceDataError(f"{where}: {key} = {value!r} is not a name")
    return value


def _number(where: str, row: Mapping[str, Any], key: str) -> Decimal:
    value = row.get(key)
    try:
        # a float from a mapping is taken as it was written, never as its binary fraction
        number = Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite() or number < 0:
        raise PriceDataError(f'{where}: {key} = {value!r} is not an amount; write it like "2.50"')
    return number


def _date(where: str, row: Mapping[str, Any], key: str, default: int) -> int:
    value = row.get(key)
    if value is None:
        return default
    try:
        return instant(value if isinstance(value, str) else value.isoformat())
    except (ValueError, AttributeError) as error:
        raise PriceDataError(f"{where}: {key} = {value!r} is not an ISO date") from error
