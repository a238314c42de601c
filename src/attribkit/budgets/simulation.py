"""What budgets and tiers would have done to past calls."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import NamedTuple

from attribkit.attribution import Attribution
from attribkit.budgets.guard import BudgetGuard
from attribkit.budgets.memory import MemoryStore
from attribkit.budgets.notices import Notice
from attribkit.budgets.policy import Budget
from attribkit.budgets.reservations import Reservation, Worst
from attribkit.calls import LLMCall
from attribkit.errors import BudgetExceeded
from attribkit.money import from_pico

__all__ = ["Outcome", "Past", "Simulation", "simulate"]


class Past(NamedTuple):
    """One call as a ledger has it."""

    at: float
    """Seconds since the epoch."""
    attribution: Attribution
    model: str | None
    cost_pico: int | None
    tokens: int
    provider: str = ""
    api: str = ""


class Outcome(NamedTuple):
    """What one budget would have done, for one combination of its `per` fields and in all windows together."""

    budget: str
    key: dict[str, str]
    refused: int
    refused_pico: int
    """What the refused calls did cost."""
    first: float | None
    """When the first one would have been refused."""


class Simulation(NamedTuple):
    """What came of a replay."""

    calls: int
    refused: int
    refused_pico: int
    unpriced: int
    downgraded: int
    outcomes: tuple[Outcome, ...]
    notices: tuple[Notice, ...]
    tiers: dict[str, int]
    """Calls by the tier that they would have got; "" for none."""


Left = Callable[..., Decimal | None]


class _Known:
    """The worst case of a past call is what it cost."""

    now: Past

    def worst_case(self, call: LLMCall, who: Attribution | None = None, **_: object) -> Worst:
        return Worst(self.now.cost_pico, self.now.tokens)

    def learn(self, call: LLMCall, size: int, input_tokens: int, output_tokens: int) -> None:
        pass


def simulate(
    budgets: Iterable[Budget],
    past: Iterable[Past],
    *,
    tiers: Callable[[Callable[[], float], Left], Callable[[Attribution, str | None], Attribution]] | None = None,
) -> Simulation:
    """Replay calls, in the order of their time, against `budgets` that begin empty.

    Each call asks for just what it cost, one at a time: a real one reserves its worst case beside others, so near a
    limit it can be refused a little earlier. `tiers` is given the clock of the replay, and what tells
    how much of a budget is left in it, and returns what gives an attribution the tier that a policy picks for it.
    """
    clock, known = [0.0], _Known()
    notices: list[Notice] = []
    quiet = [_silent(budget) for budget in budgets]
    guard = BudgetGuard(quiet, store=MemoryStore, bounds=known, keep=False, now=lambda: clock[0], also=notices.append)
    applied = tiers(lambda: clock[0], guard.left) if tiers is not None else None
    calls = refused_calls = refused_pico = unpriced = downgraded = 0
    refused: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    by_tier: Count[str] = Count()
    for one in past:
        calls += 1
        clock[0], known.now = one.at, one
        attribution = applied(one.attribution, one.model) if applied is not None else one.attribution
        tier = attribution.get("tier") or ""
        unpriced += one.cost_pico is None
        call = LLMCall("past", one.provider, one.api, "", one.model)
        try:
            held = guard.reserve(call, attribution, "")
        except BudgetExceeded as refusal:
            refused_calls += 1
            refused_pico += one.cost_pico or 0
            facts = refused.setdefault((refusal.budget, tuple(sorted(refusal.key.items()))), [0, 0, one.at])
            facts[0] += 1
            facts[1] += one.cost_pico or 0
            by_tier["(refused)"] += 1
            continue
        if isinstance(held, Reservation):
            if held.tier is not None or held.model is not None:
                downgraded += 1
                tier = held.tier or tier
            guard.settle(held, None if one.cost_pico is None else from_pico(one.cost_pico))
        by_tier[tier] += 1
    outcomes = tuple(
        Outcome(name, dict(key), int(facts[0]), int(facts[1]), facts[2])
        for (name, key), facts in sorted(refused.items(), key=lambda item: -item[1][1])
    )
    guard.close()
    return Simulation(calls, refused_calls, refused_pico, unpriced, downgraded, outcomes, tuple(notices), dict(by_tier))


def _silent(budget: Budget) -> Budget:
    """Return a budget that tells nobody outside and lets nobody wait."""
    table = budget.as_dict()
    kept = []
    for threshold in table.pop("thresholds", ()):
        if threshold["action"] != "queue":
            kept.append({key: value for key, value in threshold.items() if key != "webhook"})
    return Budget(**table, thresholds=kept)
