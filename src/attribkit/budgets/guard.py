"""Holding calls against budgets: reserve before the wire, settle after it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.budgets import holders
from attribkit.budgets.account import Account
from attribkit.budgets.admission import PATIENCE, Admission, Turn
from attribkit.budgets.growth import Growth
from attribkit.budgets.journal import Journal
from attribkit.budgets.keeper import LEASE, Keeper
from attribkit.budgets.notices import Notice, Teller, refusal
from attribkit.budgets.plans import Plans, downgrade_of
from attribkit.budgets.policy import Budget, Threshold
from attribkit.budgets.reservations import UNITS, WAIT, Local, Plan, Reservation, Wait, WorstCase
from attribkit.budgets.store import Store
from attribkit.calls import LLMCall
from attribkit.errors import BudgetExceeded, BudgetStoreBusy, BudgetStoreDown
from attribkit.money import to_pico
from attribkit.storage.forks import let_go_at_fork
from attribkit.usage.model import NO_USAGE, Usage

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["BudgetGuard"]

_CLOSING = 10.0
"""Seconds for which a process that ends waits for the store."""


class BudgetGuard:
    """Budgets held at a store that many processes may share. Nothing is opened before the first call that matches."""

    def __init__(
        self,
        budgets: Iterable[Budget],
        *,
        store: Callable[[], Store],
        bounds: WorstCase,
        journals: str | None = None,
        also: Callable[[Notice], Any] | None = None,
        keep: bool = True,
        patience: float = PATIENCE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._open_store, self._bounds, self._also = store, bounds, also
        self._journals, self._keep, self._patience, self._now = journals, keep, patience, now
        self._closed = self._fork_lock = False
        self._begin()
        self._plans = Plans(budgets, self._account, now)
        let_go_at_fork(self, "thread")

    def _begin(self) -> None:
        """Begin with nothing held: at first, and in a forked child."""
        self._teller = Teller(self._also)
        self._account = account = Account(keep=self._keep, now=self._now, teller=self._teller)
        self._admission = Admission(account, journals=self._journals, patience=self._patience, now=self._now)
        self._growth = Growth(account, self._bounds, self._teller, keep=self._keep, now=self._now)
        self._opening = threading.Lock()
        self._keeper: Keeper | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._charging: set[Future[None]] = set()

    # -- reserve ------------------------------------------------------------------------------------------------------

    def reserve(
        self,
        call: LLMCall,
        attribution: Attribution,
        operation_id: str,
        *,
        wait: bool = True,
        turn: Turn | None = None,
    ) -> Reservation | Wait | None:
        """Hold the worst case of `call` in every budget that matches, None when none does.

        Raises BudgetExceeded when one of them has no room; then nothing is held anywhere. With `wait=False`, WAIT is
        returned where the answer would block: over a network, while another process has the store, in a queue. `later`
        is for callers that may not block then.
        """
        now, account = self._now(), self._account
        if account.store is None and not self._ready(wait) and not wait:
            return WAIT
        plan = self._plans.of(attribution, call.model, now)
        if not plan[2]:
            return None
        reservation = downgrade = None
        single = plan.single
        if single is not None:  # as nearly every call has it: one look at the prices, one at the counter
            worst = self._bounds.worst_case(call, attribution)
            usd = worst[0]
            if usd is not None:
                reservation = Reservation(account, plan.locals, (usd,), operation_id)
                reservation.size = worst[4]
                if not worst[3]:
                    reservation.output, reservation.stated, reservation.who = worst[2], False, attribution
                with account.lock:
                    if single.held - single.busy - single.owed >= usd and not single.dead:
                        single.busy += usd
                        reservation.single = single
                        return reservation
        elif plan.downgrades:
            downgrade = downgrade_of(plan)
        while True:
            if reservation is None:
                reservation = self._prepared(plan, call, attribution, downgrade, operation_id)
                if account.claim(reservation):
                    return reservation
            refused = self._admission.take(plan, reservation, now, wait, turn)
            if refused is None:
                if plan.downgrades and downgrade is None:
                    # The store's answer may say that a threshold is passed: the call is cheaper than what it holds.
                    _change(reservation, downgrade_of(plan, reservation), call)
                return reservation
            if refused is WAIT:
                return WAIT
            cheapest = plan.downgrades[-1][1] if plan.downgrades else None
            if cheapest is None or downgrade is cheapest:
                assert isinstance(refused, BudgetExceeded)
                raise refused
            downgrade, reservation = cheapest, None

    def later(self, call: LLMCall, attribution: Attribution, operation_id: str) -> Future[Reservation | Wait | None]:
        """Reserve in another thread. A call that has to wait for room leaves it, so that others are asked for."""
        from concurrent.futures import Future

        future: Future[Reservation | Wait | None] = Future()
        turn, context = Turn(stays=False), copy_context()  # what a budget has to say is put on the caller's span

        def ask() -> None:
            try:
                found = self.reserve(call, attribution, operation_id, turn=turn)
            except BaseException as error:
                self._admission.leave(turn)
                future.set_exception(error)
                return
            if found is WAIT and turn.local is not None and not turn.stays:
                turn.stays = True
                turn.local.queue.later(partial(context.copy().run, ask))  # the context itself is still in use here
                return
            self._admission.leave(turn)
            future.set_result(found)

        future.set_running_or_notify_cancel()
        try:
            self._threads.submit(context.run, ask)
        except RuntimeError:  # the interpreter ends, and starts no more threads
            ask()
        return future

    def _prepared(
        self, plan: Plan, call: LLMCall, who: Attribution, downgrade: Threshold | None, operation_id: str
    ) -> Reservation:
        """Return the reservation that is asked for; nothing is held by it yet."""
        if not plan.priced:
            return Reservation(self._account, plan.locals, (1,) * len(plan.locals), operation_id)
        tier = model = None
        if downgrade is not None:
            tier, model = downgrade.tier, dict(downgrade.models).get(call.model or "")
        worst = self._bounds.worst_case(call, who, model=model, tier=tier)
        usd = worst[0]
        if usd is None:
            wanted = (None, worst[1], 1)
            asked = tuple(wanted[UNITS[local.limit.budget.unit]] for local in plan.locals)
            amounts = self._unpriced(plan, asked, call, operation_id)
        elif plan.only_usd:
            amounts = (usd,) * len(plan.locals)
        else:
            amounts = tuple((usd, worst[1], 1)[UNITS[local.limit.budget.unit]] for local in plan.locals)
        reservation = Reservation(self._account, plan.locals, amounts, operation_id)
        reservation.size = worst[4]
        if downgrade is not None:
            reservation.tier, reservation.model = tier, model
        if not worst[3]:
            reservation.output, reservation.stated, reservation.who = worst[2], False, who
        return reservation

    def _unpriced(
        self, plan: Plan, amounts: tuple[int | None, ...], call: LLMCall, operation_id: str
    ) -> tuple[int, ...]:
        found = []
        for local, amount in zip(plan.locals, amounts, strict=True):
            if amount is None:
                budget = local.limit.budget
                amount = 0
                if budget.unpriced == "reserve" and budget.ceiling is not None:
                    amount = to_pico(budget.ceiling)
                elif budget.unpriced == "reject" and not budget.dry_run:
                    why = f"{call.model or 'the model'} has no price, and the budget takes no unpriced calls"
                    raise refusal(local, operation_id, reason=why)
                else:
                    self._teller.unpriced(local, call.model)
            found.append(amount)
        return tuple(found)

    # -- settle -------------------------------------------------------------------------------------------------------

    def settle(
        self, reservation: object, usd: Decimal | None, usage: Usage = NO_USAGE, call: LLMCall | None = None
    ) -> None:
        """Replace what `reservation` holds by what the call used; what is not known costs what it held."""
        assert isinstance(reservation, Reservation)
        tokens = None
        if usage.known:
            asked, made = usage.input_tokens, usage.output_tokens
            tokens = asked + made
            if call is not None and reservation.size >= 0 and usage.estimated is None:
                self._bounds.learn(call, reservation.size, asked, made)
        account = self._account
        if usd is None:
            account.end(reservation, (None, tokens, 1))
            return
        pico = to_pico(usd)
        single = reservation.single
        if single is not None and reservation.account is account:
            amount = reservation.amounts[0]
            with account.lock:
                if (
                    single.quiet
                    and single.lent
                    and pico <= amount
                    and single.held - single.busy - single.owed >= pico - amount
                    and not (reservation.closed or single.queue.waiting)
                ):
                    reservation.closed = True
                    single.busy -= amount
                    single.owed += pico
                    single.settled += pico
                    if single.slot >= 0 and account.journal is not None:
                        account.journal.put(single.slot, single.settled)
                    return
        account.end(reservation, (pico, tokens, 1))

    def release(self, reservation: object) -> None:
        """Give back what `reservation` holds: the call came to nothing."""
        assert isinstance(reservation, Reservation)
        self._account.end(reservation, (0, 0, 0))

    def charge(
        self, call: LLMCall, attribution: Attribution, operation_id: str, usd: Decimal | None, usage: Usage = NO_USAGE
    ) -> None:
        """Count a call that nobody held against anything before it was made: no limit can refuse it any more.

        What it spends beyond a limit is counted, and the budget says so once in each window.
        """
        if self._account.store is not None:
            self._charge(call, attribution, operation_id, usd, usage)
            return

        def later() -> None:  # opening it may take a while, and the caller may be an event loop
            try:
                self._ready(True)
                self._charge(call, attribution, operation_id, usd, usage)
            except Exception as fault:
                faults.note("budgets.charge", fault)

        charge = self._threads.submit(later)
        self._charging.add(charge)
        charge.add_done_callback(self._charging.discard)

    def _charge(
        self, call: LLMCall, attribution: Attribution, operation_id: str, usd: Decimal | None, usage: Usage
    ) -> None:
        plan = self._plans.of(attribution, call.model, self._now())
        if not plan.locals:
            return
        reservation = Reservation(self._account, plan.locals, (0,) * len(plan.locals), operation_id)
        if usd is None:
            with contextlib.suppress(BudgetExceeded):  # of a budget that takes no unpriced calls
                reservation.unknown = (0,) * len(plan.locals)
                reservation.unknown = self._prepared(plan, call, attribution, None, operation_id).amounts
        self.settle(reservation, usd, usage)

    def grow(self, reservation: object, call: LLMCall, made: int) -> int:
        """Hold more for a stream that has made so many output tokens, and return up to how many it may be left alone.

        It never raises and never waits: where the store's answer would take time, it is asked on the thread that keeps
        this process's share. The stream goes on in any case. What it has made already is held even where the limit has
        no room for it, so that nobody else gets it, and the budget says once in each window that calls outgrow it.
        """
        assert isinstance(reservation, Reservation)
        return self._growth.grow(reservation, call, made)

    # -- what is left -------------------------------------------------------------------------------------------------

    def left(
        self, budget: str, attribution: Attribution, model: str | None = None, *, wait: bool = True
    ) -> Decimal | None:
        """Return which share of a budget is left for calls with `attribution`: not spent, and not reserved.

        The least of its windows, as far as this process has heard; a counter that it has not heard of is looked up at
        the store, over a network only with `wait`. None when the calls are none of the budget's, or nothing is known.
        """
        if self._account.store is None and not self._ready(wait):
            return None
        plan = self._plans.of(attribution, model, self._now())
        found = None
        for local in plan.locals:
            if local.limit.budget.name == budget:
                if not local.heard and not self._listened(local, wait):
                    return None
                left = max(Decimal(0), 1 - local.level(0))
                found = left if found is None else min(found, left)
        return found

    def _listened(self, local: Local, wait: bool) -> bool:
        account = self._account
        store = account.store
        if store is None or self._now() < account.down_until or not (wait or store.direct):
            return False
        try:
            account.tell(store, [local], wait=wait)
        except BudgetStoreBusy:
            return False
        except BudgetStoreDown as error:
            account.down(error)
            return False
        return True

    # -- between this process and the store ---------------------------------------------------------------------------

    def keep(self) -> None:
        """Do what is due: return shares, tell what is owed, hold more for streams that have grown."""
        store = self._account.store
        if store is not None:
            self._account.resync(store)
            self._account.tell_due(store)
            self._growth.grow_due(store)

    def flush(self) -> bool:
        """Tell the store all that is settled here; False when it does not answer."""
        charging = tuple(self._charging)
        if charging:
            from concurrent.futures import wait

            if wait(charging, _CLOSING).not_done:
                return False
        store = self._account.store
        if store is None:
            return not self._account.owing
        try:
            self._account.resync(store)
            self._account.tell_all(store)
        except (BudgetStoreBusy, BudgetStoreDown) as error:
            self._account.down(error)
            return False
        return True

    def _ready(self, wait: bool) -> bool:
        """Open the store. False when that is not possible now."""
        account, plans = self._account, self._plans
        if not wait or self._now() < account.down_until:
            return False
        with self._opening:
            if account.store is not None:
                return True
            try:
                store = self._open_store()
                store.beat(holders.this_process(account.holder), LEASE, self._now())
                plans.declare(store)
                if self._journals is not None:
                    account.journal = Journal(holders.journal_path(self._journals, account.holder))
                plans.refresh(store)
            except (BudgetStoreBusy, BudgetStoreDown, OSError) as error:
                account.down(error)
                return False
            account.store = store
            if self._keep and not self._closed:
                self._keeper = Keeper(
                    account, plans, self._admission, due=self.keep, journals=self._journals, now=self._now
                )
            return True

    def close(self) -> None:
        """Tell the store everything, give back everything, and leave no trace of this process there."""
        self._closed = True
        account = self._account
        if self._keeper is not None:
            self._keeper.stop(_CLOSING)
        store = account.store
        if store is not None:
            if self.flush() and self._landed():
                try:
                    store.bury(account.holder, {}, self._now(), forget=True)
                    if account.journal is not None:
                        account.journal.close(remove=True)
                        account.journal = None
                except (BudgetStoreBusy, BudgetStoreDown) as error:
                    account.down(error)
            store.close()
        account.store = None
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _landed(self) -> bool:
        """Wait for what is on the way to the store: it may not arrive after this process is forgotten there."""
        until = time.monotonic() + _CLOSING
        while any(local.flights for local in list(self._account.locals.values())):
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)
        return self._keeper is None or self._keeper.stopped

    @property
    def _threads(self) -> ThreadPoolExecutor:
        """Where the store is asked for callers that may not block."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            with self._account.lock:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(32, "attribkit-reserve")
        return self._executor

    def before_fork(self) -> None:
        """Keep the lock, so that the child finds nothing half done."""
        self._fork_lock = self._account.lock.acquire(timeout=2.0)

    def after_fork_in_parent(self) -> None:
        """Give the lock back."""
        if self._fork_lock:
            self._account.lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: what the parent holds is the parent's."""
        self._closed = False
        self._begin()
        self._plans.begin(self._account)


def _change(reservation: Reservation, downgrade: Threshold | None, call: LLMCall) -> None:
    if downgrade is not None:
        reservation.tier = downgrade.tier
        reservation.model = dict(downgrade.models).get(call.model or "")
