"""Holding calls against budgets: reserve before the wire, settle after it. This guard keeps its counters in process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from attribkit.attribution import Attribution
from attribkit.budgets.policy import Budget
from attribkit.calls import LLMCall
from attribkit.errors import BudgetExceeded

__all__ = ["LocalGuard", "Reservation"]

_ZERO = Decimal(0)


class _Counter:
    __slots__ = ("reserved", "spent", "start")

    def __init__(self, start: datetime | None) -> None:
        self.start = start
        self.spent = self.reserved = _ZERO


class Reservation(NamedTuple):
    """What one call holds: an amount in each budget that it counts against."""

    amount: Decimal
    counters: tuple[_Counter, ...]


class LocalGuard:
    """Budgets whose spend is counted in this process, from its start."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        *,
        worst_case: Callable[[LLMCall], Decimal | None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._budgets = tuple(budgets)
        self._worst_case = worst_case
        self._now = now
        self._counters: dict[str, _Counter] = {}
        self._lock = threading.Lock()

    def reserve(self, call: LLMCall, attribution: Attribution, operation_id: str) -> Reservation | None:
        """Hold the worst case of `call` in every budget that matches, None when none does.

        Raises BudgetExceeded when one of them has no room; then nothing is held anywhere.
        """
        matching = [budget for budget in self._budgets if budget.matches(attribution)]
        if not matching:
            return None
        amount = self._worst_case(call) or _ZERO
        now = self._now()
        with self._lock:
            counters = []
            for budget in matching:
                start, end = budget.window_at(now)
                counter = self._counters.get(budget.name)
                if counter is None or counter.start != start:
                    counter = self._counters[budget.name] = _Counter(start)
                held = counter.spent + counter.reserved
                if held + amount > budget.limit or held >= budget.limit:
                    raise BudgetExceeded(
                        budget.name,
                        limit=budget.limit,
                        spent=counter.spent,
                        reserved=counter.reserved,
                        resets_at=end,
                        operation_id=operation_id,
                    )
                counters.append(counter)
            for counter in counters:
                counter.reserved += amount
        return Reservation(amount, tuple(counters))

    def settle(self, reservation: object, usd: Decimal | None) -> None:
        """Replace what `reservation` holds by what the call cost; an unpriced call costs what it held."""
        assert isinstance(reservation, Reservation)
        with self._lock:
            for counter in reservation.counters:
                counter.reserved -= reservation.amount
                counter.spent += reservation.amount if usd is None else usd
