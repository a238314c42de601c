"""Which tier a call gets: rules over its attribution, the time and what is left of a budget, as data."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, Protocol

from attribkit.attribution import Attribution
from attribkit.errors import ConfigurationError

__all__ = ["Left", "TierPolicy"]

_REMEMBERED = 1024
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_KEYS = ("when", "tier", "days", "from", "until", "timezone", "budget", "left_under", "left_over")
_DAY = 24 * 60


class Left(Protocol):
    """Tells which share of a budget is left for a call, None when the call is none of that budget's or it is not
    known. With `wait=False` it does not block."""

    def __call__(
        self, budget: str, attribution: Attribution, model: str | None, *, wait: bool = True
    ) -> Decimal | None: ...


class _Hours(NamedTuple):
    days: frozenset[int]
    begin: int
    """Minutes after midnight."""
    end: int
    zone: tzinfo

    def holds(self, now: float) -> bool:
        local = datetime.fromtimestamp(now, self.zone)
        day, minute = local.weekday(), local.hour * 60 + local.minute
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        # Over midnight: what begins on a day goes on in the early hours of the next.
        return (day in self.days and minute >= self.begin) or ((day - 1) % 7 in self.days and minute < self.end)


class _Rule(NamedTuple):
    when: tuple[tuple[str, frozenset[str]], ...]
    tier: str
    hours: _Hours | None = None
    budget: str | None = None
    under: Decimal | None = None
    over: Decimal | None = None


class TierPolicy:
    """Picks a tier by rules. The first rule that holds decides; one without conditions always holds.

    A rule is `{"when": {"plan": "gold", "feature": ["summary", "search"]}, "tier": "priority"}`: every field named
    must be set and have that value, or one of those values. Any field can be named: tenant_id, plan, feature,
    workflow, ... `days` ("mon-fri", or a list), `from` and `until` ("18:00"; over midnight where `until` is not after
    `from`) in `timezone` (an IANA name, UTC without it) say when it holds. `budget` with `left_under` or `left_over`
    ("20%" of its limit) says how much of a budget must be left for the call, spent and reserved taken off; a call that
    the budget does not match is none of the rule's. A tier that the app has set itself (`attributed(tier=...)`) beats
    every rule. `left` tells what is left of budgets; without it rules that name one never hold.
    Raises ConfigurationError for a rule that cannot be read.
    """

    def __init__(
        self, rules: Sequence[Mapping[str, Any]], *, left: Left | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._rules = tuple(_rule(number, rule) for number, rule in enumerate(rules))
        self._left, self._now = left, now
        self._changing = any(rule.hours or rule.budget for rule in self._rules)
        self._applied: dict[Attribution, Attribution] = {}
        self._matching: dict[Attribution, tuple[_Rule, ...]] = {}
        self._minute: tuple[int, frozenset[_Hours]] = -1, frozenset()
        self._lock = threading.Lock()

    def pick(self, attribution: Attribution, model: str | None = None) -> str | None:
        """Return the tier for `attribution`, None when nothing asks for one."""
        return self.applied(attribution, model).get("tier")

    def applied(self, attribution: Attribution, model: str | None = None, *, wait: bool = True) -> Attribution:
        """Return `attribution` with the tier it gets, so that headers and rows can say it too."""
        if not self._changing:
            found = self._applied.get(attribution)
            if found is None:
                rules = self._rules_of(attribution)
                found = attribution.merged({"tier": rules[0].tier}) if rules else attribution
                self._keep(self._applied, attribution, found)
            return found
        matching = self._matching.get(attribution)
        if matching is None:
            matching = self._rules_of(attribution)
            self._keep(self._matching, attribution, matching)
        for rule in matching:
            if (rule.hours is None or rule.hours in self._open()) and (
                rule.budget is None or self._is_left(rule, attribution, model, wait)
            ):
                return attribution.merged({"tier": rule.tier})
        return attribution

    def _rules_of(self, attribution: Attribution) -> tuple[_Rule, ...]:
        """Return the rules that can hold for `attribution`, up to the first that always does."""
        if attribution.get("tier") is not None:
            return ()
        fields, found = attribution.as_dict(), []
        for rule in self._rules:
            if all(fields.get(key) in values for key, values in rule.when):
                found.append(rule)
                if rule.hours is None and rule.budget is None:
                    break
        return tuple(found)

    def _open(self) -> frozenset[_Hours]:
        """Return the hours that hold in the minute of now."""
        now = self._now()
        minute, found = self._minute
        if minute != now // 60:
            found = frozenset(rule.hours for rule in self._rules if rule.hours is not None and rule.hours.holds(now))
            self._minute = int(now // 60), found
        return found

    def _is_left(self, rule: _Rule, attribution: Attribution, model: str | None, wait: bool) -> bool:
        if self._left is None:
            return False
        left = self._left(str(rule.budget), attribution, model, wait=wait)
        if left is None:
            return False
        return (rule.under is None or left < rule.under) and (rule.over is None or left > rule.over)

    def _keep(self, memory: dict[Attribution, Any], attribution: Attribution, found: Any) -> None:
        with self._lock:
            while len(memory) >= _REMEMBERED:
                del memory[next(iter(memory))]
            memory[attribution] = found

    def __bool__(self) -> bool:
        return bool(self._rules)


def _rule(number: int, rule: object) -> _Rule:
    where = f"tiers[{number}]"
    if not isinstance(rule, Mapping) or not rule.keys() <= set(_KEYS):
        raise ConfigurationError(
            f'{where}={rule!r}: a rule is {{"when": {{"plan": "gold"}}, "tier": "priority"}} and may have '
            f"{', '.join(_KEYS[2:])}",
            name=where,
            value=rule,
            allowed=_KEYS,
        )
    tier, when = rule.get("tier"), rule.get("when") or {}
    if not isinstance(tier, str) or not tier:
        raise _wrong(where, "tier", tier, "must name a tier")
    if not isinstance(when, Mapping):
        raise _wrong(where, "when", when, "must map fields to values")
    conditions = []
    for key, value in when.items():
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple, set, frozenset)) or not all(isinstance(v, str) for v in values):
            raise _wrong(where, f"when.{key}", value, "must be a text or a list of texts")
        conditions.append((str(key), frozenset(values)))
    budget = rule.get("budget")
    if budget is not None and (not isinstance(budget, str) or not budget):
        raise _wrong(where, "budget", budget, "must name a budget")
    under, over = _share(where, rule, "left_under"), _share(where, rule, "left_over")
    if (budget is None) != (under is None and over is None):
        raise _wrong(where, "budget", budget, 'goes with left_under or left_over, such as "20%"')
    return _Rule(tuple(conditions), tier, _hours(where, rule), budget, under, over)


def _hours(where: str, rule: Mapping[str, Any]) -> _Hours | None:
    if not any(key in rule for key in ("days", "from", "until")):
        if "timezone" in rule:
            raise _wrong(where, "timezone", rule["timezone"], "goes with days, from or until")
        return None
    from zoneinfo import ZoneInfo

    name = rule.get("timezone", "UTC")
    try:
        zone: tzinfo = UTC if name == "UTC" else ZoneInfo(name)
    except Exception:
        why = "is not known here; give an IANA name such as Europe/Berlin, or install tzdata"
        raise _wrong(where, "timezone", name, why) from None
    begin, end = _minutes(where, rule, "from", "00:00"), _minutes(where, rule, "until", "24:00")
    return _Hours(_days(where, rule.get("days", "mon-sun")), begin % _DAY, end, zone)


def _minutes(where: str, rule: Mapping[str, Any], key: str, default: str) -> int:
    text = rule.get(key, default)
    if not isinstance(text, str) or not _CLOCK.fullmatch(text):
        raise _wrong(where, key, text, 'must be a time of day, such as "18:00"')
    return int(text[:2]) * 60 + int(text[3:])


def _days(where: str, given: object) -> frozenset[int]:
    parts = given.split(",") if isinstance(given, str) else given
    found: set[int] = set()
    try:
        if not isinstance(parts, (list, tuple, set, frozenset)) or not parts:
            raise ValueError
        for part in parts:
            first, _, last = part.strip().lower().partition("-")
            begin = _DAYS.index(first)
            count = (_DAYS.index(last or first) - begin) % 7 + 1
            found |= {(begin + day) % 7 for day in range(count)}
    except (ValueError, AttributeError):
        raise _wrong(where, "days", given, 'must be days, such as "mon-fri" or ["sat", "sun"]') from None
    return frozenset(found)


def _share(where: str, rule: Mapping[str, Any], key: str) -> Decimal | None:
    value = rule.get(key)
    if value is None:
        return None
    try:
        share = Decimal(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else Decimal(str(value))
    except InvalidOperation:
        share = Decimal(-1)
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise _wrong(where, key, value, 'must be a share of the limit, such as "20%"')
    return share


def _wrong(where: str, key: str, value: object, why: str) -> ConfigurationError:
    return ConfigurationError(f"{where}.{key}={value!r}: {why}", name=f"{where}.{key}", value=value)
