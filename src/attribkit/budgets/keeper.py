"""The thread that keeps a process's account: it gives shares back, tells what is owed, says that the process lives."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from attribkit import faults
from attribkit.budgets import holders
from attribkit.budgets.account import SHARE_SECONDS, Account
from attribkit.budgets.admission import Admission
from attribkit.budgets.plans import Plans
from attribkit.budgets.store import Store
from attribkit.errors import BudgetStoreBusy, BudgetStoreDown

__all__ = ["LEASE", "Keeper"]

LEASE = 30.0
"""Seconds for which a process counts as alive after it said so."""
_REFRESH_SECONDS = 1.0
_PRUNE_SECONDS = 3600.0


class Keeper:
    """Does what is due, until it is stopped."""

    def __init__(
        self,
        account: Account,
        plans: Plans,
        admission: Admission,
        *,
        due: Callable[[], None],
        journals: str | None,
        now: Callable[[], float],
    ) -> None:
        self._account, self._plans, self._admission = account, plans, admission
        self._due, self._journals, self._now = due, journals, now
        self._stopped = False
        self._refreshed = self._beaten = 0.0
        self._pruned = time.monotonic() - _PRUNE_SECONDS + random.uniform(10, 60)
        self._thread = threading.Thread(target=self._keeping, name="attribkit-budgets", daemon=True)
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Let it come to an end, and wait for that."""
        self._stopped = True
        self._account.wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(patience)

    @property
    def stopped(self) -> bool:
        return not self._thread.is_alive()

    def _keeping(self) -> None:
        account = self._account
        while not self._stopped:
            account.wake.wait(_REFRESH_SECONDS)
            account.wake.clear()
            try:
                while not self._stopped:
                    self._due()
                    if not account.lending and not account.owing:
                        break
                    time.sleep(SHARE_SECONDS / 4 if not account.owing else 0.001)
                if account.store is not None:
                    self._now_and_then(account.store)
            except (BudgetStoreBusy, BudgetStoreDown) as error:
                account.down(error)
                time.sleep(0.2)
            except Exception as fault:
                faults.note("budgets.keep", fault)
                time.sleep(0.2)

    def _now_and_then(self, store: Store) -> None:
        account, tick = self._account, time.monotonic()
        if tick - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = tick
            self._plans.refresh(store)
            self._plans.forget_ended()
            account.forget_unused(store, self._plans.forget)
        if tick - self._beaten >= LEASE / 6:
            if self._beaten and tick - self._beaten >= LEASE:
                account.doubt()
            self._beaten = tick
            store.beat(holders.this_process(account.holder), LEASE, self._now())
            self._admission.sweep(store, self._now())
            if self._journals is not None:
                holders.bury_left(store, account.holder, self._journals, self._now())
        if tick - self._pruned >= _PRUNE_SECONDS:
            self._pruned = tick
            store.prune(self._now())
