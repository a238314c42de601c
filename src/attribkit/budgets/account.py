"""What this process has at the store: taken for calls, owed for calls that are over, lent for calls to come.

What a process holds of a counter it took from the store before. Far from the limit it takes a share for calls to come,
so that most calls are decided in the process; near it each call is decided at the store. A share that is not used up
goes back within a tenth of a second, and nobody is refused while shares are out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from attribkit.budgets.journal import Journal
from attribkit.budgets.matching import Limit
from attribkit.budgets.notices import Teller
from attribkit.budgets.reservations import UNITS, Local, Reservation
from attribkit.budgets.store import Answer, Move, Store
from attribkit.errors import BudgetStoreBusy, BudgetStoreDown
from attribkit.ids import new_id

__all__ = ["SHARE_SECONDS", "Account"]

SHARE_SECONDS = 0.1
"""How long a local share stays out."""
_SHARE_CALLS = 32
_DOWN_SECONDS = 1.0
"""For so long a store that did not answer is not asked again."""
_AT_ONCE = 64
"""Counters in one exchange."""
_UNUSED_SECONDS = 60.0
_APART_SECONDS, _APART_PATIENCE = 0.001, 5.0
_made = tuple.__new__  # a fifth of what a NamedTuple's own constructor takes


class Account:
    """The counters that this process holds something in. A forked child has an account of its own.

    Its lock is held for microseconds, and never while the store is asked: event loops take it.
    """

    def __init__(self, *, keep: bool, now: Callable[[], float], teller: Teller) -> None:
        self._keep, self._now, self._teller = keep, now, teller
        self.lock, self._making_out = threading.Lock(), threading.Lock()
        self.holder = new_id()
        self.store: Store | None = None
        self.journal: Journal | None = None
        self.locals: dict[str, Local] = {}
        self.lending: dict[str, Local] = {}
        self.owing: dict[str, Local] = {}
        self.wake = threading.Event()
        """Set when there is something to do for the thread that keeps the account."""
        self.down_until = 0.0

    def local(self, limit: Limit) -> Local:
        """Return what is here of a counter. Under the lock."""
        local = self.locals.get(limit.counter.id)
        if local is None:
            local = self.locals[limit.counter.id] = Local(limit)
        elif local.limit != limit:
            local.limit = limit
            local.quiet = not (limit.budget.thresholds or local.outgrown)
        return local

    def at_once(self) -> Store | None:
        """Return the store where it answers at once, and where no thread keeps the account; None while it is down."""
        store = self.store
        if store is None or not (store.direct or not self._keep) or self._now() < self.down_until:
            return None
        return store

    def down(self, error: Exception) -> None:
        """Take note that the store did not answer."""
        if not isinstance(error, BudgetStoreBusy):
            self.down_until = self._now() + _DOWN_SECONDS
        self._teller.down(error)

    # -- taking -------------------------------------------------------------------------------------------------------

    def claim(self, reservation: Reservation) -> bool:
        """Take what is asked for out of what this process holds already, all or nothing."""
        with self.lock:
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

    def ask(
        self, store: Store, reservation: Reservation, now: float, *, wait: bool, forced: bool = False
    ) -> tuple[Answer | None, Local]:
        """Ask the store once. (None, ...): all is held; else the answer that refuses, and where. What is `forced` is
        held whatever the limits say."""
        until = 0.0
        while (sent := self._collected(reservation, now, forced)) is None:
            if not wait or time.monotonic() >= (until := until or time.monotonic() + _APART_PATIENCE):
                raise BudgetStoreBusy("a counter is made out with the budget store just now")
            time.sleep(_APART_SECONDS)
        claimed, asked, moves, shared = sent
        if not moves:
            return None, reservation.locals[0]
        try:
            refused, states, shares = answer = store.exchange(self.holder, moves, now, wait=wait)
        except BaseException as error:
            with self.lock:
                for local, amount in claimed:
                    local.busy -= amount
                for local, _, move, owed in asked:
                    self._undo(local, move, owed, certain=isinstance(error, BudgetStoreBusy))
                for local in shared:
                    local.sharing = False
            raise
        notices: list[tuple[Any, ...]] = []
        dry = False
        with self.lock:
            for local in shared:
                local.sharing = False
            for place, (local, amount, _, _) in enumerate(asked):
                local.flights -= 1
                local.spent, local.reserved, local.extra, _ = states[place]
                local.heard = True
                if refused < 0:
                    share = shares[place]
                    local.refusals = 0
                    local.held += amount + share
                    local.busy += amount
                    if share:
                        local.lent += share
                        local.lent_at = now
                        self.lending[local.limit.counter.id] = local
                    dry = dry or local.limit.amount < 0
                if not local.quiet:
                    self._teller.passed(local, notices)
            if refused >= 0:
                for local, amount in claimed:
                    local.busy -= amount
        if notices:
            self._teller.say(notices)
        if refused >= 0:
            return answer, asked[refused][0]
        if dry:
            self._teller.dry([one[:2] for one in asked])
        if self.lending and not self.wake.is_set():
            self.wake.set()
        return None, asked[0][0]

    def _collected(self, reservation: Reservation, now: float, forced: bool) -> tuple[Any, Any, list[Move], Any] | None:
        """Return what this process has of a reservation, what it asks for with its moves, and for which counters a
        share too; None while one of them cannot be asked for."""
        claimed, asked, moves = [], [], []
        shared: tuple[Local, ...] = ()
        with self.lock:
            for local in reservation.locals:
                if local.dead or local.apart:
                    if any(one.apart for one in reservation.locals):
                        return None
                    reservation.locals = tuple(self.local(one.limit) for one in reservation.locals)
                    break
            for place, amount in enumerate(reservation.amounts):
                local = reservation.locals[place]
                if local.held - local.busy - local.owed >= amount:
                    local.busy += amount
                    claimed.append((local, amount))
                    continue
                share = 0
                if self._keep and now - local.used < SHARE_SECONDS and not (forced or local.sharing):
                    share = max(0, min(amount * _SHARE_CALLS, local.limit.amount // 32))
                    if share:
                        local.sharing = True
                        shared += (local,)
                local.used = now
                move, owed = self._sent(local, amount, share)
                asked.append((local, amount, move, owed))
                moves.append(move._replace(limit=-1) if forced else move)
        return claimed, asked, moves, shared

    # -- giving back --------------------------------------------------------------------------------------------------

    def end(self, reservation: Reservation, used: tuple[int | None, ...]) -> None:
        """Replace what a reservation holds by what was `used` in each unit; what is not known costs what it held."""
        if reservation.closed or reservation.account is not self:
            return
        direct = []
        notices: list[tuple[Any, ...]] = []
        with self.lock:
            if reservation.closed:
                return
            reservation.closed = True
            for place, amount in enumerate(reservation.amounts):
                local = reservation.locals[place]
                if local.dead:  # it was forgotten while a call that held nothing went on
                    local = self.local(local.limit)
                actual = used[UNITS[local.limit.budget.unit]]
                if actual is None:
                    actual = amount if reservation.unknown is None else reservation.unknown[place]
                local.busy -= amount
                if actual:
                    local.owed += actual
                    local.settled += actual
                    if self.journal is not None and local.slot >= 0:
                        self.journal.put(local.slot, local.settled)
                    if actual > amount:
                        local.outgrown, local.quiet = True, False
                    if not local.quiet:
                        self._teller.passed(local, notices)
                if not local.lent or local.held < local.busy + local.owed:
                    direct.append(local)
                    self.owing[local.limit.counter.id] = local
                if local.queue.waiting:
                    local.queue.stir()
        if notices:
            self._teller.say(notices)
        if direct:
            store = self.at_once()
            if store is not None:
                try:
                    self.tell(store, direct, wait=not store.direct)
                    return
                except BudgetStoreBusy:
                    pass
                except BudgetStoreDown as error:
                    self.down(error)
            self.wake.set()

    def tell(self, store: Store, locals: Sequence[Local], *, wait: bool) -> None:
        """Tell the store what was spent, and give back what is idle."""
        told, sent = [], []
        with self.lock:
            for local in locals:
                if local.apart:  # told when that is over
                    self.owing[local.limit.counter.id] = local
                    continue
                self.lending.pop(local.limit.counter.id, None)
                self.owing.pop(local.limit.counter.id, None)
                told.append(local)
                sent.append(self._sent(local, 0, 0))
        if not told:
            return
        try:
            answer = store.exchange(self.holder, [move for move, _ in sent], self._now(), wait=wait)
        except BaseException as error:
            with self.lock:
                for local, (move, owed) in zip(told, sent, strict=True):
                    self._undo(local, move, owed, certain=isinstance(error, BudgetStoreBusy))
            raise
        notices: list[tuple[Any, ...]] = []
        with self.lock:
            for place, local in enumerate(told):
                local.flights -= 1
                local.spent, local.reserved, local.extra, _ = answer[1][place]
                local.heard = True
                if not local.quiet:
                    self._teller.passed(local, notices)
        if notices:
            self._teller.say(notices)

    def tell_all(self, store: Store) -> None:
        """Tell what is owed, and give back every share."""
        with self.lock:
            due = list({**self.owing, **self.lending}.values())
        self._tell_some(store, due)

    def tell_due(self, store: Store) -> None:
        """Tell what is owed, and give back the shares that have been out for long enough."""
        now = self._now()
        with self.lock:
            late = [one for one in self.lending.values() if abs(now - one.lent_at) >= SHARE_SECONDS]
            due = list({id(one): one for one in (*self.owing.values(), *late)}.values())
        self._tell_some(store, due)

    def _tell_some(self, store: Store, due: Sequence[Local]) -> None:
        for start in range(0, len(due), _AT_ONCE):
            self.tell(store, due[start : start + _AT_ONCE], wait=True)

    def _sent(self, local: Local, take: int, share: int) -> tuple[Move, int]:
        """Put what is idle and what is owed on the way to the store: return that, and how much was owed. Under the
        lock."""
        limit, lent, owed = local.limit, local.lent, local.owed
        back = local.held - local.busy
        if back > 0:
            local.held = local.busy
        else:
            back = 0
        local.lent = local.owed = 0
        local.flights += 1
        if local.slot < 0 and self.journal is not None:
            local.slot = self.journal.slot(limit.counter.id)
        amount = limit.amount
        far = max(share * 8, amount // 10) if share else 0
        return _made(Move, (limit.counter, amount, local.settled, back, lent, take, share, far, False)), owed

    def _undo(self, local: Local, move: Move, owed: int, *, certain: bool) -> None:
        local.flights -= 1
        local.owed += owed
        if certain:
            local.held += move.back
            local.lent += move.lent_back
        else:  # the store may have done it all the same: count on nothing, and ask when it answers again
            local.uncertain = True
        self.owing[local.limit.counter.id] = local

    # -- staying at one with the store --------------------------------------------------------------------------------

    def doubt(self) -> None:
        """This process has slept for longer than its lease: another may have buried it."""
        with self.lock:
            for local in self.locals.values():
                local.uncertain = True

    def resync(self, store: Store) -> None:
        """After a failure: hold at the store just what is held here, and here no more than there."""
        with self._making_out:
            with self.lock:
                some = [(one, one.apart) for one in self.locals.values() if one.uncertain and not one.flights]
                for local, _ in some:
                    local.apart = True
            if not some:
                return
            try:
                there = {hold.counter: hold.held for hold in store.holds(self.holder)}
                for local, _ in some:
                    held = there.get(local.limit.counter.id)
                    with self.lock:
                        if held is None:  # the store has nothing of ours: what is owed is all that it is to be told
                            local.settled = local.owed
                            self._journaled(local)
                        held = held or 0
                        move = Move(local.limit.counter, -1, local.settled, held - local.held, held)
                    if move.back > 0:
                        store.exchange(self.holder, [move], self._now())
                    with self.lock:
                        local.held = min(local.held, held)
                        local.uncertain = False
            finally:
                with self.lock:
                    for local, was in some:
                        local.apart = local.uncertain and was

    def forget_unused(self, store: Store, forgotten: Callable[[], None]) -> None:
        """Forget counters that nobody uses, so that memory follows what is in use and not what ever was. `forgotten`
        is called under the lock when some are."""
        now = self._now()
        with self.lock:
            idle = [
                one
                for one in self.locals.values()
                if now - one.used > _UNUSED_SECONDS or now >= (one.limit.counter.end or now + 1)
            ]
        for start in range(0, len(idle), _AT_ONCE):
            with self.lock:
                some = [
                    one
                    for one in idle[start : start + _AT_ONCE]
                    if not (one.held or one.busy or one.owed or one.flights or one.uncertain or one.apart)
                ]
                for local in some:
                    local.apart = True
            if not some:
                continue
            moves = [Move(one.limit.counter, -1, one.settled, forget=True) for one in some]
            try:
                store.exchange(self.holder, moves, now, wait=False)
            except BudgetStoreBusy:
                with self.lock:
                    for local in some:
                        local.apart = False
                return
            except BaseException:  # it may have forgotten them all the same: they stay apart until `resync` knows
                for local in some:
                    local.uncertain = True
                raise
            with self.lock:
                forgotten()
                for local in some:
                    local.apart = False
                    self._forgotten(local)

    def _forgotten(self, local: Local) -> None:
        """Begin anew with a counter of which the store has forgotten what this process had. Under the lock."""
        if local.busy or local.owed:  # it was used meanwhile
            local.settled = local.owed
            self._journaled(local)
            return
        local.dead = True
        del self.locals[local.limit.counter.id]
        if local.slot >= 0 and self.journal is not None:
            self.journal.drop(local.slot)

    def _journaled(self, local: Local) -> None:
        if local.slot >= 0 and self.journal is not None:
            self.journal.put(local.slot, local.settled)
