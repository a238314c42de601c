"""Streams that outgrow what they hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attribkit.budgets.account import Account
from attribkit.budgets.notices import Teller
from attribkit.budgets.reservations import UNITS, Reservation, WorstCase
from attribkit.budgets.store import Store
from attribkit.calls import LLMCall
from attribkit.errors import BudgetStoreBusy, BudgetStoreDown

__all__ = ["Growth"]

_MOST = 10_000
"""Streams that may wait for their reservation to grow."""


class Growth:
    """Holds more for streams. Where the store's answer takes time, the thread that keeps the account asks for it."""

    def __init__(
        self, account: Account, bounds: WorstCase, teller: Teller, *, keep: bool, now: Callable[[], float]
    ) -> None:
        self._account, self._bounds, self._teller, self._keep, self._now = account, bounds, teller, keep, now
        self._due: deque[tuple[Reservation, LLMCall, int]] = deque()

    def grow(self, reservation: Reservation, call: LLMCall, made: int) -> int:
        """Hold more for a stream that has made so many output tokens; return up to how many it may be left alone."""
        reservation.output = max(2 * made, reservation.output)
        if reservation.closed or reservation.account is not self._account:
            return reservation.output
        store = self._account.at_once()
        if store is not None:
            try:
                self._grown(store, reservation, call, made, wait=not self._keep)
                return reservation.output
            except BudgetStoreBusy:
                pass
            except BudgetStoreDown as error:
                self._account.down(error)
                return reservation.output
        if len(self._due) < _MOST:
            self._due.append((reservation, call, made))
            self._account.wake.set()
        return reservation.output

    def grow_due(self, store: Store) -> None:
        """Ask for those streams that could not."""
        while self._due:
            reservation, call, made = self._due.popleft()
            if not reservation.closed:
                self._grown(store, reservation, call, made, wait=True)

    def _grown(self, store: Store, reservation: Reservation, call: LLMCall, made: int, *, wait: bool) -> None:
        for output, forced in ((reservation.output, False), (made, True)):
            worst = self._bounds.worst_case(
                call, reservation.who, model=reservation.model, tier=reservation.tier, output=output
            )
            wanted = (worst[0] or 0, worst[1], 1)
            more = tuple(
                max(0, wanted[UNITS[local.limit.budget.unit]] - amount)
                for local, amount in zip(reservation.locals, reservation.amounts, strict=True)
            )
            if not any(more):
                return
            extra = Reservation(self._account, reservation.locals, more, reservation.operation_id)
            refused = None
            if not self._account.claim(extra):
                answer, local = self._account.ask(store, extra, self._now(), wait=wait, forced=forced)
                refused = None if answer is None else local
            if refused is None:
                break
            with self._account.lock:
                told, refused.overran = refused.overran, True
            if not told:
                detail = f"a stream has outgrown its reservation at {made} tokens"
                self._teller.tell("overrun", refused, detail=detail)
        with self._account.lock:
            if not reservation.closed:
                reservation.locals, reservation.single = extra.locals, None
                reservation.amounts = tuple(map(sum, zip(reservation.amounts, more, strict=True)))
                return
        self._account.end(extra, (0, 0, 0))
