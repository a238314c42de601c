"""Which counters the calls of one kind count against: found once, and kept while their windows last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.budgets.account import Account
from attribkit.budgets.matching import Budgets, counters_of
from attribkit.budgets.policy import Budget, Threshold
from attribkit.budgets.reservations import NO_PLAN, Plan, Reservation
from attribkit.budgets.store import Store
from attribkit.errors import ConfigurationError

__all__ = ["Plans", "downgrade_of"]

_KEPT = 8192


class Plans:
    """The budgets in force, and the plans that were made from them for one process."""

    def __init__(self, declared: Iterable[Budget], account: Account, now: Callable[[], float]) -> None:
        self.declared = {budget.name: budget for budget in declared}
        self._now = now
        self._budgets = Budgets(self.declared.values())
        self.by_model = self._budgets.by_model
        """Whether the model decides about any budget."""
        self.begin(account)

    def begin(self, account: Account) -> None:
        """Make plans for `account` from now on."""
        self._account = account
        self._version = -1
        self._made: dict[tuple[Any, str | None], Plan] = {}
        self._latest: tuple[Attribution | None, str | None, Plan] = None, None, NO_PLAN

    def of(self, attribution: Attribution, model: str | None, now: float) -> Plan:
        """Return the plan of the calls that `attribution` makes to `model` at `now`."""
        model = model if self.by_model else None
        latest = self._latest
        if latest[0] is attribution and latest[1] == model:
            plan: Plan | None = latest[2]
        else:
            plan = self._made.get((attribution, model))
            if plan is not None:
                self._latest = attribution, model, plan
        if plan is None or not plan[0] <= now < plan[1]:
            plan = self._plan(attribution, model, now)
        return plan

    def _plan(self, attribution: Attribution, model: str | None, now: float) -> Plan:
        budgets = self._budgets
        fields = budgets.relevant(attribution)
        plan = self._made.get((fields, model))
        if plan is None or not plan.since <= now < plan.until:
            slim = Attribution(fields)
            limits = [
                limit for budget in budgets.matching(fields, model) for limit in counters_of(budget, slim, model, now)
            ]
            with self._account.lock:
                locals = tuple(self._account.local(limit) for limit in limits)
            ends = [limit.counter.end for limit in limits if limit.counter.end is not None]
            downgrades = [
                (local, one) for local in locals for one in local.limit.budget.thresholds if one.action == "downgrade"
            ]
            downgrades.sort(key=lambda pair: pair[1].at)
            queues = [one for local in locals for one in local.limit.budget.thresholds if one.action == "queue"]
            plan = Plan(
                max((limit.counter.start for limit in limits), default=0),
                min(ends, default=float("inf")),
                locals,
                any(limit.budget.unit != "calls" for limit in limits) or bool(downgrades),
                all(limit.budget.unit == "usd" for limit in limits),
                tuple(downgrades),
                max(queues, key=lambda one: one.seconds) if queues else None,
                not any(one.action in ("queue", "reject") for limit in limits for one in limit.budget.thresholds),
                locals[0] if len(locals) == 1 and limits[0].budget.unit == "usd" and not downgrades else None,
            )
        with self._account.lock:
            if budgets is self._budgets:
                if len(self._made) >= _KEPT:
                    self.forget()
                self._made[fields, model] = self._made[attribution, model] = plan
        return plan

    def forget(self) -> None:
        """Make every plan anew when it is asked for again."""
        self._made.clear()
        self._latest = None, None, NO_PLAN

    def forget_ended(self) -> None:
        """Forget the plans of windows that are over."""
        now = self._now()
        with self._account.lock:
            if any(plan.until <= now for plan in self._made.values()):
                self._made = {key: plan for key, plan in self._made.items() if plan.until > now}
                self._latest = None, None, NO_PLAN

    def declare(self, store: Store) -> None:
        """Let the store know what this process declares, unless it does."""
        known = store.definitions()
        for name, budget in self.declared.items():
            table = budget.as_dict()
            if known.get(name, (None, "declared")) not in ((table, "declared"), (table, "set")):
                store.define(table, "declared")

    def refresh(self, store: Store) -> None:
        """Take over budgets that were set, changed or removed at the store."""
        version = store.version()
        if version == self._version:
            return
        found = dict(self.declared)
        for name, (table, origin) in store.definitions().items():
            if origin == "removed":
                found.pop(name, None)
            elif origin == "set":
                try:
                    found[name] = _with_calls(Budget(**table), self.declared.get(name))
                except (ConfigurationError, TypeError) as error:
                    faults.note("budgets.definition", error)
        with self._account.lock:
            self._budgets = Budgets(found.values())
            self.by_model = self._budgets.by_model
            self.forget()
            self._version = version


def _with_calls(budget: Budget, declared: Budget | None) -> Budget:
    """Return a budget of the store with the functions that this process has declared for the same thresholds: functions
    cannot be written down."""
    calls = {one[:2]: one.call for one in declared.thresholds if one.call is not None} if declared is not None else {}
    if not calls:
        return budget
    thresholds = [one._replace(call=calls.get(one[:2])) for one in budget.thresholds]
    return Budget(**{**budget.as_dict(), "thresholds": thresholds})


def downgrade_of(plan: Plan, held: Reservation | None = None) -> Threshold | None:
    """Return the highest threshold that is passed, not counting what the call itself holds."""
    found = None
    own = dict(zip(held.locals, held.amounts, strict=True)) if held is not None else {}
    for local, threshold in plan.downgrades:
        if local.level(own.get(local, 0)) >= threshold.at:
            found = threshold
    return found
