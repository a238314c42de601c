"""Which tier a call gets: rules over its attribution, as data."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from attribkit.attribution import Attribution
from attribkit.errors import ConfigurationError

__all__ = ["TierPolicy"]

_REMEMBERED = 1024


class TierPolicy:
    """Picks a tier by rules. The first rule whose `when` holds decides; one without `when` always holds.

    A rule is `{"when": {"plan": "gold", "feature": ["summary", "search"]}, "tier": "priority"}`: every field named
    must be set and have that value, or one of those values. Any field can be named: tenant_id, plan, feature,
    workflow, ... A tier that the app has set itself (`attributed(tier=...)`) beats every rule.
    Raises ConfigurationError for a rule that cannot be read.
    """

    def __init__(self, rules: Sequence[Mapping[str, Any]]) -> None:
        self._rules = tuple(_rule(number, rule) for number, rule in enumerate(rules))
        self._applied: dict[Attribution, Attribution] = {}
        self._lock = threading.Lock()

    def pick(self, attribution: Attribution) -> str | None:
        """Return the tier for `attribution`, None when nothing asks for one."""
        return self.applied(attribution).get("tier")

    def applied(self, attribution: Attribution) -> Attribution:
        """Return `attribution` with the tier it gets, so that headers and rows can say it too."""
        found = self._applied.get(attribution)
        if found is None:
            found = attribution
            if attribution.get("tier") is None:
                fields = attribution.as_dict()
                for when, tier in self._rules:
                    if all(fields.get(key) in values for key, values in when):
                        found = attribution.merged({"tier": tier})
                        break
            with self._lock:
                while len(self._applied) >= _REMEMBERED:
                    del self._applied[next(iter(self._applied))]
                self._applied[attribution] = found
        return found

    def __bool__(self) -> bool:
        return bool(self._rules)


def _rule(number: int, rule: object) -> tuple[tuple[tuple[str, frozenset[str]], ...], str]:
    where = f"tiers[{number}]"
    if not isinstance(rule, Mapping) or not rule.keys() <= {"when", "tier"}:
        raise ConfigurationError(
            f'{where}={rule!r}: a rule is {{"when": {{"plan": "gold"}}, "tier": "priority"}}',
            name=where,
            value=rule,
            allowed=("when", "tier"),
        )
    tier, when = rule.get("tier"), rule.get("when") or {}
    if not isinstance(tier, str) or not tier:
        raise ConfigurationError(f"{where}.tier={tier!r}: must name a tier", name=f"{where}.tier", value=tier)
    if not isinstance(when, Mapping):
        raise ConfigurationError(f"{where}.when={when!r}: must map fields to values", name=f"{where}.when", value=when)
    conditions = []
    for key, value in when.items():
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple, set, frozenset)) or not all(isinstance(v, str) for v in values):
            raise ConfigurationError(
                f"{where}.when.{key}={value!r}: must be a text or a list of texts",
                name=f"{where}.when.{key}",
                value=value,
            )
        conditions.append((str(key), frozenset(values)))
    return tuple(conditions), tier
