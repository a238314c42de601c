"""Asking the store for one call until it is held or refused: it may wait for shares to come back, and in a queue."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

from attribkit.attribution import Attribution
from attribkit.budgets import holders
from attribkit.budgets.account import Account
from attribkit.budgets.matching import Limit, counters_of
from attribkit.budgets.notices import refusal
from attribkit.budgets.reservations import WAIT, Local, Plan, Reservation, Wait
from attribkit.budgets.store import Store
from attribkit.errors import BudgetExceeded, BudgetStoreBusy, BudgetStoreDown

__all__ = ["PATIENCE", "Admission", "Turn"]

_ASK_AGAIN = 0.02
"""How often a process asks again for the calls that wait for room."""
_IN_A_ROW, _REFUSED_SECONDS = 8, 0.02
"""After so many refusals in a row calls are refused for so long without asking the store."""
PATIENCE = 1.0
"""How long a call that would be refused waits for what others hold to come back."""
_SWEEP_SECONDS = 0.1


class Turn:
    """How a call waits for room: since when (monotonic), and until when in a queue that is bounded.

    One that does not `stay` asks the store once, and finds in `local` where it would have to wait.
    """

    __slots__ = ("begun", "local", "queued_until", "stays")

    def __init__(self, *, stays: bool = True) -> None:
        self.begun = time.monotonic()
        self.queued_until = 0.0
        self.local: Local | None = None
        self.stays = stays


class Admission:
    """Decides at the store what this process cannot decide by itself."""

    def __init__(
        self, account: Account, *, journals: str | None, patience: float = PATIENCE, now: Callable[[], float]
    ) -> None:
        self._account, self._journals, self._patience, self._now = account, journals, patience, now
        self._lock = threading.Lock()
        self._queued = 0
        self._swept = 0.0

    def take(
        self, plan: Plan, reservation: Reservation, now: float, wait: bool, turn: Turn | None = None
    ) -> BudgetExceeded | Wait | None:
        """Take from the store what is asked for. None: it is held. Whoever gives a `turn` ends it with `leave`."""
        account = self._account
        store = account.store
        if store is None or now < account.down_until:
            return _without_store(reservation)
        if plan.queue is None:
            full = _known_full(reservation)
            if full is not None:
                return refusal(full, reservation.operation_id)
        if not store.direct and not wait:
            return WAIT
        own = queue = place = None
        try:
            while True:
                answer, local = account.ask(store, reservation, now, wait=wait)
                if answer is None:
                    return None
                state = answer.states[answer.refused]
                if state.reserved and self.sweep(store, now):
                    continue
                if turn is None:
                    turn = own = Turn()
                tick = time.monotonic()
                # What is held may come back; what is spent does not.
                left = local.limit.amount + state.extra - state.spent
                held_until = turn.begun + (PATIENCE if state.lent > 0 else self._patience if plan.patient else 0.0)
                held = left >= reservation.amount_of(local) and tick < held_until
                if not held and plan.queue is not None and not turn.queued_until:
                    with self._lock:
                        if self._queued >= plan.queue.waiting:
                            return refusal(local, reservation.operation_id, state)
                        if not wait:
                            return WAIT
                        self._queued += 1
                    turn.queued_until = tick + plan.queue.seconds
                if not held and tick >= turn.queued_until:
                    if left < reservation.amount_of(local):
                        local.refusals += 1
                        local.refused_at = tick
                    return refusal(local, reservation.operation_id, state)
                if not wait:
                    return WAIT
                if not turn.stays:
                    turn.local = local
                    return WAIT
                if queue is None:
                    queue = local.queue
                    place = queue.join()
                assert place is not None
                queue.wait(place, _ASK_AGAIN, max(held_until if held else 0.0, turn.queued_until))
                now = self._now()
                if now >= plan.until:  # the window that was full has ended while the call waited
                    with account.lock:
                        reservation.locals = tuple(account.local(limit) for limit in _again(reservation, now))
        except BudgetStoreBusy:
            return _without_store(reservation) if wait else WAIT
        except BudgetStoreDown as error:
            account.down(error)
            return _without_store(reservation)
        finally:
            if queue is not None and place is not None:
                queue.leave(place)
            if own is not None:
                self.leave(own)

    def leave(self, turn: Turn) -> None:
        """End a turn: somebody else may wait in its stead."""
        if turn.queued_until:
            with self._lock:
                self._queued -= 1

    def sweep(self, store: Store, now: float) -> bool:
        """Bury processes that have died. True when one of them held something."""
        tick = time.monotonic()
        if tick - self._swept < _SWEEP_SECONDS:
            return False
        self._swept = tick
        return holders.bury_dead(store, self._account.holder, self._journals, now) > 0


def _known_full(reservation: Reservation) -> Local | None:
    """Return a counter that has just refused several calls in a row because all of it is spent: in a burst of refused
    calls the store is asked for a part of them only."""
    for local, amount in zip(reservation.locals, reservation.amounts, strict=True):
        spent = 0 <= local.limit.amount < local.spent + amount - local.extra
        recently = local.refusals >= _IN_A_ROW and time.monotonic() - local.refused_at < _REFUSED_SECONDS
        if recently and spent and amount:
            return local
    return None


def _again(reservation: Reservation, now: float) -> list[Limit]:
    """Return the limits of a reservation in the windows of now."""
    found = []
    for local in reservation.locals:
        limit = local.limit
        key = json.loads(limit.counter.key)
        model = key.pop("model", None)
        same = counters_of(limit.budget, Attribution(tuple(sorted(key.items()))), model, now)
        found.append(same[limit.budget.rungs.index(limit.rung)])
    return found


def _without_store(reservation: Reservation) -> BudgetExceeded | None:
    """Decide by what each budget says of a store that does not answer."""
    for local in reservation.locals:
        if local.limit.budget.store_down == "closed" and local.limit.amount >= 0:
            why = "its store does not answer, and the budget is closed while it does not"
            return refusal(local, reservation.operation_id, reason=why)
    reservation.unknown, reservation.amounts = reservation.amounts, (0,) * len(reservation.amounts)
    return None
