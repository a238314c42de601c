"""An organisation's own prices over the catalog: contract prices, discounts, free sellers, deployment names, and the
mark-up that its tenants are charged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

from attribkit.errors import PriceDataError
from attribkit.pricing.catalog import instant
from attribkit.pricing.meters import FEES, PRICES, unit_of, unit_price

if TYPE_CHECKING:
    from attribkit.attribution import Attribution

__all__ = ["Overrides", "Rule", "discounted", "read_overrides"]

_SINCE, _UNTIL = -(1 << 62), 1 << 62
_KEYS = {
    "price": {"seller", "model", "from", "until", "when", "tier", "note"},
    "discount": {"seller", "model", "from", "until", "when", "percent", "fees", "note"},
    "free": {"seller", "model", "from", "until", "when", "reason", "note"},
    "charge": {"seller", "model", "from", "until", "when", "percent", "on", "note"},
    "name": {"seller", "name", "model", "note"},
}
_MOST_GROUPS = 4_096
_MOST = 10**9
"""No unit is sold for more USD than this; what is written so is a slip."""
_MOST_PERCENT = {"discount": 100, "charge": 10_000}


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
    """What is paid of the list price (kind "discount"), or charged of the cost (kind "charge")."""
    fees: bool
    """Whether the discount holds for fees (searches, requests) too."""
    reason: str
    when: tuple[tuple[str, frozenset[str]], ...] = ()
    """Fields of the attribution and the values of which each must have one."""
    on_list: bool = False
    """Whether the charge is reckoned from the list price instead of the contracted cost."""

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
        self.fields = tuple(sorted({field for rule in rules for field, _ in rule.when}))
        """The fields of an attribution that any rule asks for."""
        self._groups: dict[tuple[str | None, ...], frozenset[int]] = {}

    def group(self, who: Attribution | None) -> frozenset[int] | None:
        """Return which conditional rules hold for `who`, by their place; None when there are no such rules."""
        if not self.fields:
            return None
        values = tuple(who.get(field) for field in self.fields) if who is not None else ()
        group = self._groups.get(values)
        if group is None:
            fields = dict(zip(self.fields, values, strict=False))
            group = frozenset(
                place
                for place, rule in enumerate(self.rules)
                if rule.when and all(fields.get(field) in allowed for field, allowed in rule.when)
            )
            if len(self._groups) >= _MOST_GROUPS:
                self._groups.clear()
            self._groups[values] = group
        return group

    def find(
        self, seller: str, names: Iterable[str], tier: str, ns: int, group: frozenset[int] | None = None
    ) -> tuple[Rule | None, Rule | None, int, int]:
        """Return the rule of the price and that of the charge for a call at `ns`, and the span in which they hold.

        A contract price or "free" goes before a discount, a rule with `when` before one without.
        """
        known = tuple(names)
        since, until = _SINCE, _UNTIL
        best: Rule | None = None
        charge: Rule | None = None
        for place, rule in enumerate(self.rules):
            if rule.when and (group is None or place not in group):
                continue
            if not rule.matches(seller, known) or (rule.kind == "price" and rule.tier not in (tier, "*")):
                continue
            for edge in (rule.since, rule.until):
                if edge <= ns:
                    since = max(since, edge)
                else:
                    until = min(until, edge)
            if not rule.since <= ns < rule.until:
                continue
            if rule.kind == "charge":
                charge = rule if charge is None or (rule.when and not charge.when) else charge
            elif best is None or _rank(rule) > _rank(best):
                best = rule
        return best, charge, since, until


def _rank(rule: Rule) -> tuple[bool, bool]:
    return rule.kind != "discount", bool(rule.when)


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
    seller = _text(where, row, "seller", "*" if kind in ("discount", "charge") else None)
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
    if kind in _MOST_PERCENT:
        percent = _number(where, row, "percent")
        if percent > _MOST_PERCENT[kind]:
            raise PriceDataError(f"{where}: percent = {percent}: a {kind} is from 0 to {_MOST_PERCENT[kind]}")
        factor = PRICES.divide(100 - percent if kind == "discount" else 100 + percent, Decimal(100))
    on = _text(where, row, "on", "cost") if kind == "charge" else "cost"
    if on not in ("cost", "list"):
        raise PriceDataError(f'{where}: on = {on!r}: a charge is reckoned on "cost" or on "list"')
    reason = _text(where, row, "reason", "free by the organisation's own prices") if kind == "free" else ""
    tier = _text(where, row, "tier", "standard") if kind == "price" else ""
    when = _when(where, row)
    rules.append(
        Rule(
            kind, seller, model, since, until, tier, prices, factor, row.get("fees") is True, reason, when, on == "list"
        )
    )


def _when(where: str, row: Mapping[str, Any]) -> tuple[tuple[str, frozenset[str]], ...]:
    stated = row.get("when") or {}
    if not isinstance(stated, Mapping):
        raise PriceDataError(f'{where}: when = {stated!r} is not a table of fields, {{tenant_id = "acme"}}')
    conditions = []
    for field, value in stated.items():
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not values or not all(isinstance(one, str) for one in values):
            raise PriceDataError(f"{where}: when.{field} = {value!r} is not a text or a list of texts")
        conditions.append((str(field), frozenset(values)))
    return tuple(conditions)


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
    if isinstance(value, bool) or not number.is_finite() or not 0 <= number <= _MOST:
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
