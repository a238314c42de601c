"""Calls that wait for room: for what others hold, in queues, and in nobody else's way."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

import pytest
from budgets.made import ACME, call, guard

from attribkit.attribution import Attribution
from attribkit.budgets.memory import MemoryStore
from attribkit.budgets.policy import Budget
from attribkit.errors import BudgetExceeded

GLOBEX = Attribution.of({"tenant_id": "globex"})
QUEUE = {"action": "queue", "seconds": 20, "waiting": 60}


def far(**more: Any) -> Any:
    """Return a store of which every answer has to be waited for."""
    store = MemoryStore()
    store.direct = False
    return store


def test_calls_that_wait_for_room_are_in_no_other_tenants_way() -> None:
    at = guard(far(), Budget("each", limit="10", window="total", per="tenant_id", thresholds=[QUEUE]))
    held = at.reserve(call("10"), ACME, "")
    noisy = [at.later(call("1"), ACME, "") for _ in range(100)]
    quiet = [at.later(call("1"), GLOBEX, "") for _ in range(10)]
    for one in quiet:
        at.release(one.result(10))
    until = time.monotonic() + 10
    while sum(one.done() for one in noisy) < 40 and time.monotonic() < until:  # 60 may wait
        time.sleep(0.01)
    refused = [one for one in noisy if one.done()]
    assert len(refused) == 40 and all(isinstance(one.exception(), BudgetExceeded) for one in refused)
    waiting = [one for one in noisy if one not in refused]
    for one in waiting:
        one.add_done_callback(lambda done: at.release(done.result()))
    at.release(held)
    assert not wait(waiting, 10).not_done
    assert at._admission._queued == 0
    at.close()


def test_a_call_waits_a_moment_for_what_other_calls_hold(store: Any) -> None:
    at = guard(store, Budget("b", limit="10"), patience=20.0)
    held = at.reserve(call("10"), ACME, "")
    timer = threading.Timer(0.05, at.settle, (held, Decimal(4)))
    timer.start()
    at.settle(at.reserve(call("6"), ACME, ""), Decimal(6))
    timer.join()
    begun = time.monotonic()
    with pytest.raises(BudgetExceeded):  # what is spent does not come back
        at.reserve(call("1"), ACME, "")
    assert time.monotonic() - begun < 15
    at.close()


@pytest.mark.parametrize("thresholds", [[{"action": "reject"}], [{"action": "queue", "seconds": 0.01, "waiting": 1}]])
def test_a_budget_that_says_how_it_refuses_does_not_wait_longer(thresholds: Any) -> None:
    at = guard(MemoryStore(), Budget("b", limit="10", thresholds=thresholds), patience=20.0)
    at.reserve(call("10"), ACME, "")
    begun = time.monotonic()
    with pytest.raises(BudgetExceeded):
        at.reserve(call("1"), ACME, "")
    assert time.monotonic() - begun < 15
    at.close()


def test_nobody_is_refused_for_money_that_others_do_not_spend_in_the_end(store: Any) -> None:
    at, refused = guard(store, Budget("b", limit="5", window="total"), patience=20.0, keep=True), []

    def work() -> None:
        for _ in range(30):
            try:
                held = at.reserve(call("1"), ACME, "")
            except BudgetExceeded:
                refused.append(1)
                continue
            time.sleep(0.001)
            at.settle(held, Decimal("0.1"))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at.flush()
    (balance,) = store.balances("b")
    assert refused and balance.state.reserved == 0
    assert 4 * 10**12 < balance.state.spent <= 5 * 10**12, "a call's worst case is left, and calls were refused"
    at.close()


def test_what_a_budget_says_in_another_thread_is_said_in_the_callers_context() -> None:
    span: ContextVar[str] = ContextVar("span", default="")
    said = []
    budget = Budget("b", limit="1", dry_run=True)
    at = guard(far(), budget, also=lambda notice: said.append((notice.kind, span.get())))
    span.set("mine")
    at.release(at.later(call("2"), ACME, "").result(10))
    assert said == [("would_reject", "mine")]
    at.close()
