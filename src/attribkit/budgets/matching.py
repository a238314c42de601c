"""Which budgets a call counts against, found without looking at each of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from attribkit.attribution import Attribution
from attribkit.budgets.policy import Budget, Rung
from attribkit.budgets.store import Counter, counter_id

__all__ = ["Budgets", "Limit", "counters_of"]


class Limit(NamedTuple):
    """One counter that a call counts against, with what it may hold."""

    counter: Counter
    budget: Budget
    rung: Rung
    amount: int
    """In whole units; -1: it only counts."""


class Budgets:
    """A fixed set of budgets, by what they match."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self.by_name = {budget.name: budget for budget in budgets}
        self._any: list[tuple[int, Budget]] = []
        self._by_value: dict[tuple[str, str], list[tuple[int, Budget]]] = {}
        fields = set[str]()
        for number, budget in enumerate(self.by_name.values()):
            fields.update(budget.per)
            fields.update(key for key, _ in budget.match)
            if not budget.match:
                self._any.append((number, budget))
                continue
            key, values = min(budget.match, key=lambda pair: len(pair[1]))
            for value in values:
                self._by_value.setdefault((key, value), []).append((number, budget))
        self.by_model = "model" in fields
        """Whether the model decides about any of them."""
        self.fields = frozenset(fields - {"model"})

    def __bool__(self) -> bool:
        return bool(self.by_name)

    def relevant(self, attribution: Attribution) -> tuple[tuple[str, str], ...]:
        """Return the fields of `attribution` that decide about anything here."""
        fields = self.fields
        return tuple(pair for pair in attribution.fields if pair[0] in fields)

    def matching(self, fields: tuple[tuple[str, str], ...], model: str | None) -> list[Budget]:
        """Return the budgets of a call, in the order in which they were given."""
        attribution = Attribution(fields)
        found = list(self._any)
        if self._by_value:
            for pair in (*fields, ("model", model or "")):
                found += self._by_value.get(pair, ())
        found.sort(key=lambda one: one[0])
        return [budget for _, budget in found if budget.matches(attribution, model)]


def counters_of(budget: Budget, attribution: Attribution, model: str | None, now: float) -> list[Limit]:
    """Return the counters of one budget that a call at `now` counts against."""
    key = {name: str(model if name == "model" else attribution.get(name)) for name in budget.per}
    text = json.dumps(key, ensure_ascii=False, sort_keys=True) if key else "{}"
    found = []
    for number, rung in enumerate(budget.rungs):
        window = rung.window
        start, end = window.span(now)
        kind = window.kind if number == 0 else "daily cap"
        counter = Counter(
            counter_id(budget.name, key, window=kind, timezone=budget.timezone, unit=budget.unit, start=start),
            budget.name, text, kind, budget.unit, start, end, window.slice, window.length,
        )  # fmt: skip
        amount = rung.limit
        for threshold in budget.thresholds:
            if threshold.action == "reject" and threshold.at < 1:
                amount = int(rung.limit * threshold.at)
                break
        found.append(Limit(counter, budget, rung, -1 if budget.dry_run else amount))
    return found
