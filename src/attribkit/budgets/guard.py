"""Holding calls against budgets: reserve before the wire, settle after it.

What a process holds of a counter it took from the store before. Far from the limit it takes a share for calls to come,
so that most calls are decided in the process; near it each call is decided at the store. A share that is not used up
goes back within a tenth of a second, and nobody is refused while shares are out.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.budgets import holders
from attribkit.budgets.journal import Journal
from attribkit.budgets.matching import Budgets, Limit, counters_of
from attribkit.budgets.notices import Notice, told
from attribkit.budgets.policy import Budget, Threshold, amount_of
from attribkit.budgets.queues import Queue
from attribkit.budgets.store import Answer, Move, State, Store
from attribkit.calls import LLMCall
from attribkit.errors import BudgetExceeded, BudgetStoreBusy, BudgetStoreDown, ConfigurationError
from attribkit.ids import new_id
from attribkit.money import to_pico
from attribkit.storage.forks import let_go_at_fork
from attribkit.usage.model import NO_USAGE, Usage

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["WAIT", "BudgetGuard", "Reservation", "Worst"]

SHARE_SECONDS = 0.1
"""How long a local share stays out."""
_SHARE_CALLS = 32
_ASK_AGAIN = 0.02
"""How often a process asks again for the calls that wait for room."""
_IN_A_ROW, _REFUSED_SECONDS = 8, 0.02
"""After so many refusals in a row calls are refused for so long without asking the store."""
_SHARE_PATIENCE = 1.0
"""How long a call that would be refused waits for shares to come back."""
_SWEEP_SECONDS = 0.1
_REFRESH_SECONDS = 1.0
_LEASE = 30.0
_CLOSING = 10.0
_GROWING = 10_000
"""Streams that may wait for their reservation to grow."""
_PLANS = 8192
_UNUSED_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0
_UNITS = {"usd": 0, "tokens": 1, "calls": 2}


class Worst(NamedTuple):
    """The most that a call can use."""

    usd: int | None
    """Pico-dollars; None when the call has no price."""
    tokens: int
    output: int = 0
    """The output tokens that are in it."""
    stated: bool = True
    """Whether the call itself bounds its output; else it is what was learned from calls like it."""
    size: int = 0
    """The bytes of its prompt."""


class _Wait:
    """Told instead of a reservation: this call has to wait, and the caller said that it cannot."""

    operation_id = tier = model = None

    def __repr__(self) -> str:
        return "WAIT"


WAIT = _Wait()


class WorstCase(Protocol):
    """Where the most that a call can use is known, and learned."""

    def worst_case(
        self,
        call: LLMCall,
        who: Attribution | None = None,
        *,
        model: str | None = None,
        tier: str | None = None,
        output: int | None = None,
    ) -> Worst: ...
    def learn(self, call: LLMCall, size: int, input_tokens: int, output_tokens: int) -> None: ...


class _Local:
    """What this process has in one counter, and what it last heard of it."""

    __slots__ = ("busy", "dead", "extra", "flights", "heard", "held", "lent", "lent_at", "limit", "outgrown", "overran",
                 "owed", "queue", "quiet", "refusals", "refused_at", "reserved", "settled", "sharing", "slot", "spent",
                 "uncertain", "used", "warned")  # fmt: skip

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.held = self.busy = self.owed = self.lent = self.settled = 0
        self.spent = self.reserved = self.extra = 0
        self.used = self.lent_at = self.refused_at = 0.0
        self.refusals = 0
        self.slot = -1
        self.flights = self.warned = 0
        self.uncertain = self.dead = False
        self.heard = self.outgrown = self.overran = self.sharing = False
        self.queue = Queue()
        self.quiet = not limit.budget.thresholds
        """Whether it says nothing on the way to its limit."""

    def level(self, own: int) -> Decimal:
        """Return which share of the limit is spent or reserved, as far as is known, without what one call holds."""
        limit = self.limit.rung.limit + self.extra
        used = self.spent + self.reserved - self.held + self.busy + self.owed - own
        return Decimal(used) / limit if limit else Decimal(1)


class _Plan(NamedTuple):
    """The counters of the calls of one kind, while all of their windows last."""

    since: float
    until: float
    locals: tuple[_Local, ...]
    priced: bool
    only_usd: bool
    downgrades: tuple[tuple[_Local, Threshold], ...]
    queue: Threshold | None
    single: _Local | None = None
    """The only counter, where it counts USD and no threshold changes a call."""


_NO_PLAN = _Plan(0, 0, (), False, False, (), None)


class Reservation:
    """What one call holds in each counter that it counts against."""

    tier: str | None = None
    """The tier that the call is to have instead of its own."""
    model: str | None = None
    """The model that the call is to have instead of its own."""
    output = 0
    """Output tokens up to which the call is covered, where it does not bound them itself."""
    stated = True
    who: Attribution | None = None
    size = -1
    closed = False
    unknown: tuple[int, ...] | None = None
    """What it costs where nothing is known of what it used, where that is not what it holds."""
    single: _Local | None = None
    """The only counter, where it was decided in this process."""

    def __init__(
        self, generation: int, locals: tuple[_Local, ...], amounts: tuple[int, ...], operation_id: str
    ) -> None:
        self.generation, self.locals, self.amounts = generation, locals, amounts
        self.operation_id = operation_id

    def amount_of(self, local: _Local) -> int:
        """Return what is asked of one counter."""
        return self.amounts[self.locals.index(local)]


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
        now: Callable[[], float] = time.time,
    ) -> None:
        self._declared = {budget.name: budget for budget in budgets}
        self._budgets = Budgets(self._declared.values())
        self._by_model = self._budgets.by_model
        self._open_store, self._bounds, self._also = store, bounds, also
        self._journals, self._keep, self._now = journals, keep, now
        self._generation = 0
        self._opening = threading.Lock()
        self._start()
        self._executor: ThreadPoolExecutor | None = None
        self._fork_lock = False
        let_go_at_fork(self, "thread")

    def _start(self) -> None:
        """Begin with nothing held: at first, and in a forked child."""
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._holder = new_id()
        self._journal: Journal | None = None
        self._plans: dict[tuple[Any, str | None], _Plan] = {}
        self._latest: tuple[Attribution | None, str | None, _Plan] = None, None, _NO_PLAN
        self._locals: dict[str, _Local] = {}
        self._lending: dict[str, _Local] = {}
        self._owing: dict[str, _Local] = {}
        self._wake = threading.Event()
        self._keeper: threading.Thread | None = None
        self._closed = False
        self._swept = 0.0
        self._queued = 0
        self._version = -1
        self._told: set[str] = set()
        self._down_until = 0.0
        self._growing: deque[tuple[Reservation, LLMCall, int]] = deque()
        self._charging: set[Future[None]] = set()

    # -- reserve ------------------------------------------------------------------------------------------------------

    def reserve(
        self, call: LLMCall, attribution: Attribution, operation_id: str, *, wait: bool = True
    ) -> Reservation | _Wait | None:
        """Hold the worst case of `call` in every budget that matches, None when none does.

        Raises BudgetExceeded when one of them has no room; then nothing is held anywhere. With `wait=False`, WAIT is
        returned where the answer would block: over a network, while another process has the store, in a queue.
        """
        now = self._now()
        if self._store is None and not self._ready(wait) and not wait:
            return WAIT
        model = call.model if self._by_model else None
        latest = self._latest
        if latest[0] is attribution and latest[1] == model:
            plan: _Plan | None = latest[2]
        else:
            plan = self._plans.get((attribution, model))
            if plan is not None:
                self._latest = attribution, model, plan
        if plan is None or not plan[0] <= now < plan[1]:
            plan = self._plan(attribution, model, now)
        if not plan[2]:
            return None
        reservation = downgrade = None
        single = plan.single
        if single is not None:  # as nearly every call has it: one look at the prices, one at the counter
            worst = self._bounds.worst_case(call, attribution)
            usd = worst[0]
            if usd is not None:
                reservation = Reservation(self._generation, plan.locals, (usd,), operation_id)
                reservation.size = worst[4]
                if not worst[3]:
                    reservation.output, reservation.stated, reservation.who = worst[2], False, attribution
                with self._lock:
                    if single.held - single.busy - single.owed >= usd and not single.dead:
                        single.busy += usd
                        reservation.single = single
                        return reservation
        elif plan.downgrades:
            downgrade = self._downgrade(plan)
        while True:
            if reservation is None:
                reservation = self._prepared(plan, call, attribution, downgrade, operation_id)
            if self._claim(reservation):
                return reservation
            refused = self._take(plan, reservation, now, wait)
            if refused is None:
                if plan.downgrades and downgrade is None:
                    # The store's answer may say that a threshold is passed: the call is cheaper than what it holds.
                    self._change(reservation, self._downgrade(plan, reservation), call)
                return reservation
            if refused is WAIT:
                return WAIT
            cheapest = plan.downgrades[-1][1] if plan.downgrades else None
            if cheapest is None or downgrade is cheapest:
                assert isinstance(refused, BudgetExceeded)
                raise refused
            downgrade, reservation = cheapest, None

    def _prepared(
        self, plan: _Plan, call: LLMCall, who: Attribution, downgrade: Threshold | None, operation_id: str
    ) -> Reservation:
        """Return the reservation that is asked for; nothing is held by it yet."""
        if not plan.priced:
            return Reservation(self._generation, plan.locals, (1,) * len(plan.locals), operation_id)
        tier = model = None
        if downgrade is not None:
            tier, model = downgrade.tier, dict(downgrade.models).get(call.model or "")
        worst = self._bounds.worst_case(call, who, model=model, tier=tier)
        usd = worst[0]
        if usd is None:
            wanted = (None, worst[1], 1)
            asked = tuple(wanted[_UNITS[local.limit.budget.unit]] for local in plan.locals)
            amounts = self._unpriced(plan, asked, call, operation_id)
        elif plan.only_usd:
            amounts = (usd,) * len(plan.locals)
        else:
            amounts = tuple((usd, worst[1], 1)[_UNITS[local.limit.budget.unit]] for local in plan.locals)
        reservation = Reservation(self._generation, plan.locals, amounts, operation_id)
        reservation.size = worst[4]
        if downgrade is not None:
            reservation.tier, reservation.model = tier, model
        if not worst[3]:
            reservation.output, reservation.stated, reservation.who = worst[2], False, who
        return reservation

    def _change(self, reservation: Reservation, downgrade: Threshold | None, call: LLMCall) -> None:
        if downgrade is not None:
            reservation.tier = downgrade.tier
            reservation.model = dict(downgrade.models).get(call.model or "")

    def _unpriced(
        self, plan: _Plan, amounts: tuple[int | None, ...], call: LLMCall, operation_id: str
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
                    raise self._refusal(local, operation_id, reason=why)
                elif f"{budget.name} {call.model}" not in self._told:
                    if len(self._told) < 1000:
                        self._told.add(f"{budget.name} {call.model}")
                    self._tell("unpriced", local, detail=f"model {call.model}")
            found.append(amount)
        return tuple(found)

    def _claim(self, reservation: Reservation) -> bool:
        """Take what is asked for out of what this process holds already, all or nothing."""
        with self._lock:
            if len(reservation.locals) == 1:
                local, amount = reservation.locals[0], reservation.amounts[0]
                if local.held - local.busy - local.owed < amount or local.dead:
                    return False
                local.busy += amount
                return True
            for local, amount in zip(reservation.locals, reservation.amounts, strict=True):
                if local.held - local.busy - local.owed < amount or local.dead:
                    return False
            for local, amount in zip(reservation.locals, reservation.amounts, strict=True):
                local.busy += amount
        return True

    def _take(self, plan: _Plan, reservation: Reservation, now: float, wait: bool) -> BudgetExceeded | _Wait | None:
        """Take from the store what is asked for. None: it is held."""
        store = self._store
        if store is None or now < self._down_until:
            return self._without_store(reservation)
        if plan.queue is None:
            full = self._known_full(reservation)
            if full is not None:
                return self._refusal(full, reservation.operation_id)
        if not store.direct and not wait:
            return WAIT
        patience = time.monotonic() + _SHARE_PATIENCE
        queued_until = 0.0
        queue = place = None
        try:
            while True:
                answer, local = self._asked(store, reservation, now, wait)
                if answer is None:
                    return None
                state = answer.states[answer.refused]
                if state.reserved and self._sweep(store, now):
                    continue
                tick = time.monotonic()
                # A share may come back; what is spent does not.
                left = local.limit.amount + state.extra - state.spent
                lent = state.lent > 0 and left >= reservation.amount_of(local) and tick < patience
                if not lent and plan.queue is not None and not queued_until:
                    with self._lock:
                        if self._queued >= plan.queue.waiting:
                            return self._refusal(local, reservation.operation_id, state)
                        if not wait:
                            return WAIT
                        self._queued += 1
                    queued_until = tick + plan.queue.seconds
                if not lent and tick >= queued_until:
                    if left < reservation.amount_of(local):
                        local.refusals += 1
                        local.refused_at = tick
                    return self._refusal(local, reservation.operation_id, state)
                if not wait:
                    return WAIT
                if queue is None:
                    queue = local.queue
                    place = queue.join()
                assert place is not None
                queue.wait(place, _ASK_AGAIN, max(patience if lent else 0.0, queued_until))
                now = self._now()
                if now >= plan.until:  # the window that was full has ended while the call waited
                    with self._lock:
                        reservation.locals = tuple(self._local(limit) for limit in self._again(reservation, now))
        except BudgetStoreBusy:
            return self._without_store(reservation) if wait else WAIT
        except BudgetStoreDown as error:
            self._down(error)
            return self._without_store(reservation)
        finally:
            if queue is not None and place is not None:
                queue.leave(place)
            if queued_until:
                with self._lock:
                    self._queued -= 1

    def _known_full(self, reservation: Reservation) -> _Local | None:
        """Return a counter that has just refused several calls in a row because all of it is spent: in a burst of
        refused calls the store is asked for a part of them only."""
        for local, amount in zip(reservation.locals, reservation.amounts, strict=True):
            spent = 0 <= local.limit.amount < local.spent + amount - local.extra
            recently = local.refusals >= _IN_A_ROW and time.monotonic() - local.refused_at < _REFUSED_SECONDS
            if recently and spent and amount:
                return local
        return None

    def _again(self, reservation: Reservation, now: float) -> list[Limit]:
        """Return the limits of a reservation in the windows of now."""
        import json

        found = []
        for local in reservation.locals:
            limit = local.limit
            key = json.loads(limit.counter.key)
            model = key.pop("model", None)
            same = counters_of(limit.budget, Attribution(tuple(sorted(key.items()))), model, now)
            found.append(same[limit.budget.rungs.index(limit.rung)])
        return found

    def _asked(
        self, store: Store, reservation: Reservation, now: float, wait: bool, *, forced: bool = False
    ) -> tuple[Answer | None, _Local]:
        """Ask the store once. (None, ...): all is held; else the answer that refuses, and where. What is `forced` is
        held whatever the limits say."""
        claimed, asked, moves, before = [], [], [], []
        shared: tuple[_Local, ...] = ()
        with self._lock:
            if any(local.dead for local in reservation.locals):
                reservation.locals = tuple(self._local(local.limit) for local in reservation.locals)
            for local, amount in zip(reservation.locals, reservation.amounts, strict=True):
                if local.held - local.busy - local.owed >= amount:
                    local.busy += amount
                    claimed.append((local, amount))
                    continue
                share = 0
                if self._keep and now - local.used < SHARE_SECONDS and not (forced or local.sharing):
                    share = max(0, min(amount * _SHARE_CALLS, local.limit.amount // 32))
                    local.sharing = share > 0
                    shared += (local,) if share else ()
                local.used = now
                asked.append((local, amount))
                before.append(self._out(local))
                moves.append(self._move(local, before[-1], amount, share))
                if forced:
                    moves[-1] = moves[-1]._replace(limit=-1)
        if not moves:
            return None, reservation.locals[0]
        try:
            answer = store.exchange(self._holder, moves, now, wait=wait)
        except BaseException as error:
            with self._lock:
                for local, amount in claimed:
                    local.busy -= amount
                for (local, _), out in zip(asked, before, strict=True):
                    self._undo(local, out, certain=isinstance(error, BudgetStoreBusy))
                for local in shared:
                    local.sharing = False
            raise
        notices: list[tuple[Any, ...]] = []
        with self._lock:
            for local in shared:
                local.sharing = False
            for (local, amount), state, share in zip(asked, answer.states, answer.shares, strict=True):
                local.flights -= 1
                local.spent, local.reserved, local.extra = state[:3]
                local.heard = True
                if answer.refused < 0:
                    local.refusals = 0
                    local.held += amount + share
                    local.busy += amount
                    if share:
                        local.lent += share
                        local.lent_at = now
                        self._lending[local.limit.counter.id] = local
                self._passed(local, notices)
            if answer.refused >= 0:
                for local, amount in claimed:
                    local.busy -= amount
        self._say(notices)
        if answer.refused < 0:
            self._tell_dry(asked)
            if self._lending and not self._wake.is_set():
                self._wake.set()
            return None, asked[0][0]
        return answer, asked[answer.refused][0]

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
        if usd is None:
            self._end(reservation, (None, tokens, 1))
            return
        pico = to_pico(usd)
        single = reservation.single
        if single is not None and reservation.generation == self._generation:
            amount = reservation.amounts[0]
            with self._lock:
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
                    if single.slot >= 0 and self._journal is not None:
                        self._journal.put(single.slot, single.settled)
                    return
        self._end(reservation, (pico, tokens, 1))

    def charge(
        self, call: LLMCall, attribution: Attribution, operation_id: str, usd: Decimal | None, usage: Usage = NO_USAGE
    ) -> None:
        """Count a call that nobody held against anything before it was made: no limit can refuse it any more.

        What it spends beyond a limit is counted, and the budget says so once in each window.
        """
        if self._store is None:  # opening it may take a while, and the caller may be an event loop

            def later() -> None:
                self._ready(True)
                self._charge(call, attribution, operation_id, usd, usage)

            charge = self.threads.submit(later)
            self._charging.add(charge)
            charge.add_done_callback(self._charging.discard)
        else:
            self._charge(call, attribution, operation_id, usd, usage)

    def _charge(
        self, call: LLMCall, attribution: Attribution, operation_id: str, usd: Decimal | None, usage: Usage
    ) -> None:
        now = self._now()
        model = call.model if self._budgets.by_model else None
        plan = self._plans.get((attribution, model))
        if plan is None or not plan.since <= now < plan.until:
            plan = self._plan(attribution, model, now)
        if not plan.locals:
            return
        reservation = Reservation(self._generation, plan.locals, (0,) * len(plan.locals), operation_id)
        if usd is None:
            with contextlib.suppress(BudgetExceeded):  # of a budget that takes no unpriced calls
                reservation.unknown = (0,) * len(plan.locals)
                reservation.unknown = self._prepared(plan, call, attribution, None, operation_id).amounts
        self.settle(reservation, usd, usage)

    def release(self, reservation: object) -> None:
        """Give back what `reservation` holds: the call came to nothing."""
        assert isinstance(reservation, Reservation)
        self._end(reservation, (0, 0, 0))

    def _end(self, reservation: Reservation, used: tuple[int | None, ...]) -> None:
        if reservation.closed or reservation.generation != self._generation:
            return
        direct = []
        notices: list[tuple[Any, ...]] = []
        with self._lock:
            if reservation.closed:
                return
            reservation.closed = True
            for place, (local, amount) in enumerate(zip(reservation.locals, reservation.amounts, strict=True)):
                actual = used[_UNITS[local.limit.budget.unit]]
                if actual is None:
                    actual = amount if reservation.unknown is None else reservation.unknown[place]
                local.busy -= amount
                if actual:
                    local.owed += actual
                    local.settled += actual
                    if self._journal is not None and local.slot >= 0:
                        self._journal.put(local.slot, local.settled)
                    if actual > amount:
                        local.outgrown, local.quiet = True, False
                    if local.limit.budget.thresholds or local.outgrown:
                        self._passed(local, notices)
                if not local.lent or local.held < local.busy + local.owed:
                    direct.append(local)
                    self._owing[local.limit.counter.id] = local
                if local.queue.waiting:
                    local.queue.stir()
        if notices:
            self._say(notices)
        if direct:
            store = self._store
            if store is not None and (store.direct or not self._keep) and self._now() >= self._down_until:
                try:
                    self._flush(store, direct, wait=not store.direct)
                    return
                except BudgetStoreBusy:
                    pass
                except BudgetStoreDown as error:
                    self._down(error)
            self._wake.set()

    def grow(self, reservation: object, call: LLMCall, made: int) -> int:
        """Hold more for a stream that has made so many output tokens, and return up to how many it may be left alone.

        It never raises and never waits: where the store's answer would take time, it is asked on the thread that keeps
        this process's share. The stream goes on in any case. What it has made already is held even where the limit has
        no room for it, so that nobody else gets it, and the budget says once in each window that calls outgrow it.
        """
        assert isinstance(reservation, Reservation)
        reservation.output = max(2 * made, reservation.output)
        if reservation.closed or reservation.generation != self._generation:
            return reservation.output
        store = self._store
        if store is not None and (store.direct or not self._keep) and self._now() >= self._down_until:
            try:
                self._grown(store, reservation, call, made, wait=not self._keep)
                return reservation.output
            except BudgetStoreBusy:
                pass
            except BudgetStoreDown as error:
                self._down(error)
                return reservation.output
        if len(self._growing) < _GROWING:
            self._growing.append((reservation, call, made))
            self._wake.set()
        return reservation.output

    def _grown(self, store: Store, reservation: Reservation, call: LLMCall, made: int, *, wait: bool) -> None:
        for output, forced in ((reservation.output, False), (made, True)):
            worst = self._bounds.worst_case(
                call, reservation.who, model=reservation.model, tier=reservation.tier, output=output
            )
            wanted = (worst[0] or 0, worst[1], 1)
            more = tuple(
                max(0, wanted[_UNITS[local.limit.budget.unit]] - amount)
                for local, amount in zip(reservation.locals, reservation.amounts, strict=True)
            )
            if not any(more):
                return
            extra = Reservation(reservation.generation, reservation.locals, more, reservation.operation_id)
            refused = None
            if not self._claim(extra):
                answer, local = self._asked(store, extra, self._now(), wait, forced=forced)
                refused = None if answer is None else local
            if refused is None:
                break
            with self._lock:
                told, refused.overran = refused.overran, True
            if not told:
                self._tell("overrun", refused, detail=f"a stream has outgrown its reservation at {made} tokens")
        with self._lock:
            if not reservation.closed:
                reservation.locals, reservation.single = extra.locals, None
                reservation.amounts = tuple(map(sum, zip(reservation.amounts, more, strict=True)))
                return
        self.release(extra)

    # -- between this process and the store ---------------------------------------------------------------------------

    def _out(self, local: _Local) -> tuple[int, int, int]:
        """Put what is idle and what is owed on the way to the store. Under the lock."""
        back, lent, owed = max(0, local.held - local.busy), local.lent, local.owed
        local.held -= back
        local.lent = local.owed = 0
        local.flights += 1
        return back, lent, owed

    def _undo(self, local: _Local, out: tuple[int, int, int], *, certain: bool) -> None:
        back, lent, owed = out
        local.flights -= 1
        local.owed += owed
        if certain:
            local.held += back
            local.lent += lent
        else:  # the store may have done it all the same: count on nothing, and ask when it answers again
            local.uncertain = True
        self._owing[local.limit.counter.id] = local

    def _move(self, local: _Local, out: tuple[int, int, int], take: int = 0, share: int = 0) -> Move:
        limit = local.limit
        if local.slot < 0 and self._journal is not None:
            local.slot = self._journal.slot(limit.counter.id)
        far = max(share * 8, limit.amount // 10)
        return Move(limit.counter, limit.amount, local.settled, out[0], out[1], take, share, far)

    def _flush(self, store: Store, locals: Sequence[_Local], *, wait: bool) -> None:
        """Tell the store what was spent, and give back what is idle."""
        with self._lock:
            before = []
            moves = []
            for local in locals:
                self._lending.pop(local.limit.counter.id, None)
                self._owing.pop(local.limit.counter.id, None)
                before.append(self._out(local))
                moves.append(self._move(local, before[-1]))
        try:
            answer = store.exchange(self._holder, moves, self._now(), wait=wait)
        except BaseException as error:
            with self._lock:
                for local, out in zip(locals, before, strict=True):
                    self._undo(local, out, certain=isinstance(error, BudgetStoreBusy))
            raise
        notices: list[tuple[Any, ...]] = []
        with self._lock:
            for local, state in zip(locals, answer.states, strict=True):
                local.flights -= 1
                local.spent, local.reserved, local.extra = state[:3]
                local.heard = True
                if local.limit.budget.thresholds or local.outgrown:
                    self._passed(local, notices)
        if notices:
            self._say(notices)

    def flush(self) -> bool:
        """Tell the store all that is settled here; False when it does not answer."""
        for charge in tuple(self._charging):
            with contextlib.suppress(Exception):
                charge.result(_CLOSING)
        store = self._store
        if store is None:
            return not self._owing
        with self._lock:
            due = list({**self._owing, **self._lending}.values())
        try:
            for start in range(0, len(due), 64):
                self._flush(store, due[start : start + 64], wait=True)
        except (BudgetStoreBusy, BudgetStoreDown) as error:
            self._down(error)
            return False
        return True

    def keep(self) -> None:
        """Do what is due: return shares, tell what is owed, look for changed definitions, say that we live."""
        store, now = self._store, self._now()
        if store is None:
            return
        with self._lock:
            late = [one for one in self._lending.values() if abs(now - one.lent_at) >= SHARE_SECONDS]
            due = list({id(one): one for one in (*self._owing.values(), *late)}.values())
        for start in range(0, len(due), 64):
            self._flush(store, due[start : start + 64], wait=True)
        while self._growing:
            reservation, call, made = self._growing.popleft()
            if not reservation.closed and reservation.generation == self._generation:
                self._grown(store, reservation, call, made, wait=True)
        self._resync(store)

    def _doubt(self) -> None:
        """This process has slept for longer than its lease: another may have buried it."""
        with self._lock:
            for local in self._locals.values():
                local.uncertain = True

    def _resync(self, store: Store) -> None:
        """After a failure: hold at the store just what is held here, and here no more than there."""
        with self._lock:
            for local in [one for one in self._locals.values() if one.uncertain and not one.flights]:
                held = next((h.held for h in store.holds(self._holder) if h.counter == local.limit.counter.id), 0)
                if held > local.held:
                    move = Move(local.limit.counter, -1, local.settled, held - local.held, held)
                    store.exchange(self._holder, [move], self._now())
                local.held = min(local.held, held)
                local.uncertain = False

    def _keeping(self, generation: int) -> None:
        refreshed = beaten = 0.0
        pruned = time.monotonic() - _PRUNE_SECONDS + random.uniform(10, 60)
        while not self._closed and generation == self._generation:
            self._wake.wait(_REFRESH_SECONDS)
            self._wake.clear()
            try:
                while not self._closed and generation == self._generation:
                    self.keep()
                    if not self._lending and not self._owing:
                        break
                    time.sleep(SHARE_SECONDS / 4 if not self._owing else 0.001)
                tick = time.monotonic()
                store = self._store
                if store is not None and tick - refreshed >= _REFRESH_SECONDS:
                    refreshed = tick
                    self._refresh(store)
                    self._prune(store)
                if store is not None and tick - beaten >= _LEASE / 6:
                    if beaten and tick - beaten >= _LEASE:
                        self._doubt()
                    beaten = tick
                    store.beat(self._me(), _LEASE, self._now())
                    self._sweep(store, self._now())
                    if self._journals is not None:
                        holders.bury_left(store, self._holder, self._journals, self._now())
                if store is not None and tick - pruned >= _PRUNE_SECONDS:
                    pruned = tick
                    store.prune(self._now())
            except (BudgetStoreBusy, BudgetStoreDown) as error:
                self._down(error)
                time.sleep(0.2)
            except Exception as fault:
                faults.note("budgets.keep", fault)
                time.sleep(0.2)

    def _prune(self, store: Store) -> None:
        """Forget counters that nobody uses, so that memory follows what is in use and not what ever was."""
        now = self._now()
        with self._lock:
            if any(plan.until <= now for plan in self._plans.values()):
                self._plans = {key: plan for key, plan in self._plans.items() if plan.until > now}
                self._latest = None, None, _NO_PLAN
            idle = [
                one
                for one in self._locals.values()
                if now - one.used > _UNUSED_SECONDS or now >= (one.limit.counter.end or now + 1)
            ]
        for start in range(0, len(idle), 64):
            with self._lock:  # nobody may begin anew with a counter while the store forgets what it had
                some = [
                    one
                    for one in idle[start : start + 64]
                    if not (one.held or one.busy or one.owed or one.flights or one.uncertain)
                ]
                moves = [Move(one.limit.counter, -1, one.settled, forget=True) for one in some]
                if not moves:
                    continue
                try:
                    store.exchange(self._holder, moves, now, wait=False)
                except BudgetStoreBusy:
                    return
                self._forget_plans()
                for local in some:
                    local.dead = True
                    del self._locals[local.limit.counter.id]
                    if local.slot >= 0 and self._journal is not None:
                        self._journal.drop(local.slot)

    def _sweep(self, store: Store, now: float) -> bool:
        """Bury processes that have died. True when one of them held something."""
        tick = time.monotonic()
        if tick - self._swept < _SWEEP_SECONDS:
            return False
        self._swept = tick
        return holders.bury_dead(store, self._holder, self._journals, now) > 0

    # -- opening and closing ------------------------------------------------------------------------------------------

    def _ready(self, wait: bool) -> bool:
        """Open the store. False when that is not possible now."""
        if not wait or self._now() < self._down_until:
            return False
        self._opening.acquire()
        try:
            if self._store is not None:
                return True
            store = self._open_store()
            now = self._now()
            store.beat(self._me(), _LEASE, now)
            for budget in self._declared.values():
                store.define(budget.as_dict(), "declared")
            if self._journals is not None:
                self._journal = Journal(holders.journal_path(self._journals, self._holder))
            self._refresh(store)
            self._store = store
            if self._keep:
                self._keeper = threading.Thread(
                    target=self._keeping, args=(self._generation,), name="attribkit-budgets", daemon=True
                )
                self._keeper.start()
            return True
        except (BudgetStoreBusy, BudgetStoreDown, OSError) as error:
            self._down(error)
            return False
        finally:
            self._opening.release()

    def _me(self) -> Any:
        return holders.this_process(self._holder)

    def _refresh(self, store: Store) -> None:
        """Take over budgets that were set, changed or removed at the store."""
        version = store.version()
        if version == self._version:
            return
        found = dict(self._declared)
        for name, (table, origin) in store.definitions().items():
            if origin == "removed":
                found.pop(name, None)
            elif origin == "set":
                try:
                    found[name] = Budget(**table)
                except (ConfigurationError, TypeError) as error:
                    faults.note("budgets.definition", error)
        with self._lock:
            self._budgets = Budgets(found.values())
            self._by_model = self._budgets.by_model
            self._forget_plans()
            self._version = version

    def close(self) -> None:
        """Tell the store everything, give back everything, and leave no trace of this process there."""
        self._closed = True
        self._wake.set()
        store = self._store
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(_CLOSING)
        if store is not None and self.flush() and self._landed():
            try:
                store.bury(self._holder, {}, self._now(), forget=True)
                if self._journal is not None:
                    self._journal.close(remove=True)
                    self._journal = None
            except (BudgetStoreBusy, BudgetStoreDown) as error:
                self._down(error)
        if store is not None:
            store.close()
        self._store = None
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _landed(self) -> bool:
        """Wait for what is on the way to the store: it may not arrive after this process is forgotten there."""
        until = time.monotonic() + _CLOSING
        while any(local.flights for local in list(self._locals.values())):
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)
        return self._keeper is None or not self._keeper.is_alive()

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Where async callers let a reservation wait."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            with self._lock:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(32, "attribkit-reserve")
        return self._executor

    def before_fork(self) -> None:
        """Keep the lock, so that the child finds nothing half done."""
        self._fork_lock = self._lock.acquire(timeout=2.0)

    def after_fork_in_parent(self) -> None:
        """Give the lock back."""
        if self._fork_lock:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: what the parent holds is the parent's."""
        self._generation += 1
        self._opening = threading.Lock()
        self._executor = None
        self._start()

    def _forget_plans(self) -> None:
        self._plans.clear()
        self._latest = None, None, _NO_PLAN

    # -- plans --------------------------------------------------------------------------------------------------------

    def _plan(self, attribution: Attribution, model: str | None, now: float) -> _Plan:
        budgets = self._budgets
        fields = budgets.relevant(attribution)
        plan = self._plans.get((fields, model))
        if plan is None or not plan.since <= now < plan.until:
            slim = Attribution(fields)
            limits = [
                limit for budget in budgets.matching(fields, model) for limit in counters_of(budget, slim, model, now)
            ]
            with self._lock:
                locals = tuple(self._local(limit) for limit in limits)
            ends = [limit.counter.end for limit in limits if limit.counter.end is not None]
            downgrades = [
                (local, one) for local in locals for one in local.limit.budget.thresholds if one.action == "downgrade"
            ]
            downgrades.sort(key=lambda pair: pair[1].at)
            queues = [one for local in locals for one in local.limit.budget.thresholds if one.action == "queue"]
            plan = _Plan(
                max((limit.counter.start for limit in limits), default=0),
                min(ends, default=float("inf")),
                locals,
                any(limit.budget.unit != "calls" for limit in limits) or bool(downgrades),
                all(limit.budget.unit == "usd" for limit in limits),
                tuple(downgrades),
                max(queues, key=lambda one: one.seconds) if queues else None,
                locals[0] if len(locals) == 1 and limits[0].budget.unit == "usd" and not downgrades else None,
            )
        with self._lock:
            if budgets is self._budgets:
                if len(self._plans) >= _PLANS:
                    self._forget_plans()
                self._plans[fields, model] = self._plans[attribution, model] = plan
        return plan

    def _local(self, limit: Limit) -> _Local:
        local = self._locals.get(limit.counter.id)
        if local is None:
            local = self._locals[limit.counter.id] = _Local(limit)
        elif local.limit != limit:
            local.limit = limit
            local.quiet = not (limit.budget.thresholds or local.outgrown)
        return local

    def _downgrade(self, plan: _Plan, held: Reservation | None = None) -> Threshold | None:
        """Return the highest threshold that is passed, not counting what the call itself holds."""
        found = None
        own = dict(zip(held.locals, held.amounts, strict=True)) if held is not None else {}
        for local, threshold in plan.downgrades:
            if local.level(own.get(local, 0)) >= threshold.at:
                found = threshold
        return found

    def left(
        self, budget: str, attribution: Attribution, model: str | None = None, *, wait: bool = True
    ) -> Decimal | None:
        """Return which share of a budget is left for calls with `attribution`: not spent, and not reserved.

        The least of its windows, as far as this process has heard; a counter that it has not heard of is looked up at
        the store, over a network only with `wait`. None when the calls are none of the budget's, or nothing is known.
        """
        now = self._now()
        if self._store is None and not self._ready(wait):
            return None
        model = model if self._by_model else None
        plan = self._plans.get((attribution, model))
        if plan is None or not plan.since <= now < plan.until:
            plan = self._plan(attribution, model, now)
        found = None
        for local in plan.locals:
            if local.limit.budget.name == budget:
                if not local.heard and not self._listened(local, wait):
                    return None
                left = max(Decimal(0), 1 - local.level(0))
                found = left if found is None else min(found, left)
        return found

    def _listened(self, local: _Local, wait: bool) -> bool:
        store = self._store
        if store is None or self._now() < self._down_until or not (wait or store.direct):
            return False
        try:
            self._flush(store, [local], wait=wait)
        except BudgetStoreBusy:
            return False
        except BudgetStoreDown as error:
            self._down(error)
            return False
        return True

    # -- what it says -------------------------------------------------------------------------------------------------

    def _refusal(
        self, local: _Local, operation_id: str, state: State | None = None, *, reason: str | None = None
    ) -> BudgetExceeded:
        import json

        limit = local.limit
        unit, end = limit.budget.unit, limit.counter.end
        spent, reserved, extra = state[:3] if state is not None else (local.spent, local.reserved, local.extra)
        return BudgetExceeded(
            limit.budget.name,
            limit=amount_of(max(limit.amount, 0) + extra, unit),
            spent=amount_of(spent, unit),
            reserved=amount_of(reserved, unit),
            resets_at=datetime.fromtimestamp(end, UTC) if end is not None else None,
            operation_id=operation_id or None,
            unit=unit,
            window=limit.counter.window,
            key=json.loads(limit.counter.key),
            reason=reason,
        )

    def _without_store(self, reservation: Reservation) -> BudgetExceeded | None:
        """Decide by what each budget says of a store that does not answer."""
        for local in reservation.locals:
            if local.limit.budget.store_down == "closed" and local.limit.amount >= 0:
                why = "its store does not answer, and the budget is closed while it does not"
                return self._refusal(local, reservation.operation_id, reason=why)
        reservation.unknown, reservation.amounts = reservation.amounts, (0,) * len(reservation.amounts)
        return None

    def _down(self, error: Exception) -> None:
        if not isinstance(error, BudgetStoreBusy):
            self._down_until = self._now() + 1.0
        if "store" not in self._told:
            self._told.add("store")
            import logging

            logging.getLogger("attribkit.budgets").warning(
                "the budget store does not answer (%s); calls are let go or refused as each budget says",
                type(error.__cause__ or error).__name__,
            )

    def _passed(self, local: _Local, notices: list[tuple[Any, ...]]) -> None:
        """Note the thresholds that the spend has passed since the last look. Under the lock."""
        thresholds = local.limit.budget.thresholds
        limit = local.limit.rung.limit + local.extra
        if local.outgrown and not local.overran and local.spent + local.owed > limit:
            local.overran = True
            notices.append((local, None))
        while local.warned < len(thresholds):
            one = thresholds[local.warned]
            if not limit or Decimal(local.spent + local.owed) / limit < one.at:
                return
            local.warned += 1
            if one.action == "warn":
                notices.append((local, one))

    def _say(self, notices: list[tuple[Any, ...]]) -> None:
        for local, one in notices:
            if one is None:
                self._tell("overrun", local)
                continue
            told(self._notice("warn", local, at=one.at), webhook=one.webhook, call=one.call, also=self._also)

    def _tell_dry(self, asked: Sequence[tuple[_Local, int]]) -> None:
        for local, amount in asked:
            limit = local.limit
            if limit.amount < 0 and amount and local.spent + local.reserved > limit.rung.limit + local.extra:
                self._tell("would_reject", local)

    def _tell(self, kind: str, local: _Local, *, detail: str = "") -> None:
        told(self._notice(kind, local, detail=detail), also=self._also)

    def _notice(self, kind: str, local: _Local, *, at: Decimal | None = None, detail: str = "") -> Notice:
        import json

        limit = local.limit
        unit = limit.budget.unit
        whole, spent = limit.rung.limit + local.extra, local.spent + local.owed
        return Notice(
            kind,
            limit.budget.name,
            json.loads(limit.counter.key),
            limit.counter.window,
            unit,
            amount_of(whole, unit),
            amount_of(spent, unit),
            at,
            detail,
        )
