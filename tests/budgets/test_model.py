"""Random schedules of reserve, settle, release, crash and clock jump, against a model that keeps the books by hand."""

from __future__ import annotations

import os
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from budgets.made import call, guard
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from attribkit.attribution import Attribution
from attribkit.budgets import holders
from attribkit.budgets.journal import Journal
from attribkit.budgets.memory import MemoryStore
from attribkit.budgets.policy import Budget
from attribkit.budgets.sqlite import SqliteStore
from attribkit.budgets.store import Counter
from attribkit.errors import BudgetExceeded

TENANTS = ("acme", "globex")
LIMITS = {"each": 10 * 10**12, "all": 15 * 10**12}
DAY = 86_400


class Books(RuleBasedStateMachine):
    """Three processes on one store. `spent` and `open` are what the model knows, by (budget, tenant or "", day)."""

    def make(self, folder: str) -> Any:
        return MemoryStore()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = self.make(self.folder.name)
        self.clock = [1_790_000_000.0]
        self.alive: list[Any] = []
        self.dead: list[str] = []
        self.spent: dict[Any, int] = {}
        self.open: list[tuple[Any, Any, int, list[Any]]] = []
        self.limits, self.highest = dict(LIMITS), dict(LIMITS)
        self.more: dict[Any, int] = {}  # what was topped up
        self.charged: dict[Any, int] = {}  # what nobody could refuse
        for _ in range(3):
            self.start()

    def start(self) -> None:
        at = guard(
            self.store,
            Budget("each", limit="10", window="day", per="tenant_id"),
            Budget("all", limit="15", window="day"),
            now=lambda: self.clock[0],
            journals=self.folder.name,
        )
        # Who is dead is told by the model: all of them are this one process.
        at._admission.sweep = lambda store, now: False
        self.alive.append(at)

    def keys(self, tenant: str) -> list[Any]:
        day = int(self.clock[0] // DAY)
        return [("each", tenant, day), ("all", "", day)]

    def held(self, key: Any) -> int:
        return sum(amount for _, _, amount, keys in self.open if key in keys)

    @rule(
        process=st.integers(0, 2),
        tenant=st.sampled_from(TENANTS),
        amount=st.integers(0, 8 * 10**12),
        back=st.floats(0, 1),
    )
    def one_call(self, process: int, tenant: str, amount: int, back: float) -> None:
        self.reserve(process, tenant, amount)
        if self.open and back < 0.5:
            self.settle(-1, back * 2)

    @rule(process=st.integers(0, 2), tenant=st.sampled_from(TENANTS), amount=st.integers(1, 8 * 10**12))
    def reserve(self, process: int, tenant: str, amount: int) -> None:
        keys = self.keys(tenant)
        at = self.alive[process]
        fits = all(
            self.spent.get(key, 0) + self.held(key) + amount <= self.limits[key[0]] + self.more.get(key, 0)
            for key in keys
        )
        asked = call(str(Decimal(amount).scaleb(-12))), Attribution.of({"tenant_id": tenant}), ""
        if not fits and amount:
            with pytest.raises(BudgetExceeded):
                at.reserve(*asked)
        else:
            self.open.append((at, at.reserve(*asked), amount, keys))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(-1, 50), part=st.floats(0, 1))
    def settle(self, which: int, part: float) -> None:
        at, held, amount, keys = self.open.pop(which % len(self.open))
        actual = int(amount * part)
        at.settle(held, Decimal(actual).scaleb(-12))
        for key in keys:
            self.spent[key] = self.spent.get(key, 0) + actual

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 50))
    def release(self, which: int) -> None:
        at, held, _, _ = self.open.pop(which % len(self.open))
        at.release(held)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 50), part=st.floats(0, 1))
    def spend_and_crash_before_the_store_knows(self, which: int, part: float) -> None:
        at, held, amount, keys = self.open[which % len(self.open)]
        actual = int(amount * part)
        exchange, at._account.store.exchange = at._account.store.exchange, _gone
        faults: list[Any] = []
        at._account.down = faults.append
        self.open.pop(which % len(self.open))
        at.settle(held, Decimal(actual).scaleb(-12))
        at._account.store.exchange = exchange
        for key in keys:
            self.spent[key] = self.spent.get(key, 0) + actual
        self.crash(self.alive.index(at))

    @rule(process=st.integers(0, 2))
    def crash(self, process: int) -> None:
        """A process is gone, with what it held; another finds that, some time or other."""
        at = self.alive.pop(process)
        self.open = [one for one in self.open if one[0] is not at]
        at._closed = True
        if at._account.store is not None:
            path = holders.journal_path(self.folder.name, at._account.holder)
            counters = [hold.counter for hold in self.store.holds(at._account.holder)]
            self.store.bury(at._account.holder, holders.read_journal(path, counters), self.clock[0])
            at._account.journal.close(remove=True)
        self.start()

    @rule(seconds=st.integers(-2 * DAY, 2 * DAY))
    def the_clock_jumps(self, seconds: int) -> None:
        self.clock[0] += seconds

    @rule(process=st.integers(0, 2), tenant=st.sampled_from(TENANTS), amount=st.integers(1, 12 * 10**12))
    def what_was_spent_already_is_charged(self, process: int, tenant: str, amount: int) -> None:
        at = self.alive[process]
        at.charge(call("1"), Attribution.of({"tenant_id": tenant}), "", Decimal(amount).scaleb(-12))
        assert at.flush()
        for key in self.keys(tenant):
            self.spent[key] = self.spent.get(key, 0) + amount
            self.charged[key] = self.charged.get(key, 0) + amount

    @rule(usd=st.integers(0, 30))
    def the_limit_is_changed(self, usd: int) -> None:
        self.limits["all"] = usd * 10**12
        self.highest["all"] = max(self.highest["all"], usd * 10**12)
        self.store.define(Budget("all", limit=usd, window="day").as_dict(), "set")
        for at in self.alive:
            if at._account.store is not None:
                at._plans.refresh(at._account.store)

    @rule(which=st.integers(0, 10), amount=st.integers(1, 10**13))
    def a_counter_is_topped_up(self, which: int, amount: int) -> None:
        found = [balance.counter for balance in self.store.balances()]
        if found:
            counter = found[which % len(found)]
            self.store.top_up(counter, amount, "", self.clock[0])
            self.more[key_of(counter)] = self.more.get(key_of(counter), 0) + amount

    @rule(process=st.integers(0, 2))
    def unused_counters_are_forgotten(self, process: int) -> None:
        at = self.alive[process]
        if at._account.store is not None:
            at._plans.forget_ended()
            at._account.forget_unused(at._account.store, at._plans.forget)

    @rule(process=st.integers(0, 2))
    def it_is_flushed(self, process: int) -> None:
        self.alive[process].flush()

    @invariant()
    def the_store_and_the_books_agree(self) -> None:
        for counter, state in self.store.balances():
            key = key_of(counter)
            assert state.spent == self.spent.get(key, 0)
            assert state.reserved == self.held(key)
            assert state.extra == self.more.get(key, 0)
            most = self.highest[counter.budget] + state.extra + self.charged.get(key, 0)
            assert state.spent + state.reserved <= most

    def teardown(self) -> None:
        for at in self.alive:
            at.close()
        self.store.close()
        self.folder.cleanup()


def key_of(counter: Counter) -> Any:
    tenant = "" if counter.key == "{}" else counter.key.split('"')[3]
    return counter.budget, tenant, counter.start // DAY


def _gone(*_: Any, **__: Any) -> Any:
    from attribkit.errors import BudgetStoreDown

    raise BudgetStoreDown("killed")


class InSqlite(Books):
    def make(self, folder: str) -> Any:
        return SqliteStore(os.path.join(folder, "budgets.db"))


EXAMPLES = int(os.environ.get("ATTRIBKIT_SCHEDULES", "60"))
_SETTINGS = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBooks = Books.TestCase
TestBooks.settings = _SETTINGS
TestInSqlite = InSqlite.TestCase
TestInSqlite.settings = settings(_SETTINGS, max_examples=max(1, EXAMPLES // 4))


def test_a_journal_grows_and_gives_places_again(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j" / "me.spent"))
    places = [journal.slot(str(number)) for number in range(600)]
    for number, place in enumerate(places):
        journal.put(place, number * 10**15)
    journal.drop(places[7])
    assert journal.slot("new") == places[7]
    found = holders.read_journal(journal.path, [str(number) for number in range(600)] + ["new"])
    assert found == {**{str(number): number * 10**15 for number in range(600) if number != 7}, "new": 0}
    journal.close(remove=True)
    assert holders.read_journal(journal.path, ["1"]) == {}
