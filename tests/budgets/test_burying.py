"""Processes that die, and counters that are over: nothing counts twice, and nothing stays for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from budgets.made import ACME

from attribkit.attribution import Attribution
from attribkit.budgets import holders, redis
from attribkit.budgets.journal import Journal
from attribkit.budgets.matching import counters_of
from attribkit.budgets.policy import Budget
from attribkit.budgets.store import GRAVE, Counter, Holder, Move, State

NOW = time.time()
DEAD = Holder("dead", "another-machine", 1, "1")


def counter(window: str = "total", who: Attribution = ACME, now: float = NOW) -> Counter:
    return counters_of(Budget("b", limit="1", window=window, per="tenant_id"), who, None, now)[0].counter


def state(store: Any, one: Counter) -> State | None:
    return next((balance.state for balance in store.balances("b") if balance.counter == one), None)


def test_the_dead_are_buried_as_often_as_one_likes(store: Any) -> None:
    one = counter()
    store.beat(DEAD, -1, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    assert [holder.id for holder, expired in store.holders(NOW) if expired] == [DEAD.id]
    told = {one.id: 25}
    assert store.bury(DEAD.id, told, NOW) == 1
    for _ in range(2):
        assert store.bury(DEAD.id, told, NOW) == 0
        assert state(store, one) == State(25, 0, 0, 0)
    assert store.holders(NOW) == []


def test_an_exchange_of_the_dead_that_arrives_late_counts_nothing_twice_and_holds_nothing_for_long(store: Any) -> None:
    one = counter()
    store.beat(DEAD, -1, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    store.bury(DEAD.id, {one.id: 25}, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 25, back=40, take=30)], NOW)
    assert state(store, one) == State(25, 30, 0, 0)
    assert holders.bury_dead(store, "mine", None, NOW) == 1
    assert state(store, one) == State(25, 0, 0, 0)
    assert store.holders(NOW) == []


def test_who_was_buried_alive_goes_on_where_it_was(store: Any) -> None:
    one = counter()
    store.beat(DEAD, -1, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    store.bury(DEAD.id, {}, NOW)
    store.beat(DEAD, 60, NOW)
    assert [(holder.id, expired) for holder, expired in store.holders(NOW)] == [(DEAD.id, False)]
    store.exchange(DEAD.id, [Move(one, 100, 30)], NOW)
    assert state(store, one) == State(30, 0, 0, 0)


def test_what_another_machine_could_not_read_is_told_by_the_next_process_here(store: Any, tmp_path: Path) -> None:
    one = counter()
    store.beat(DEAD, -1, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    journals = str(tmp_path / "journals")
    journal = Journal(holders.journal_path(journals, DEAD.id))
    journal.put(journal.slot(one.id), 33)
    journal.close(remove=False)
    mine = Journal(holders.journal_path(journals, "mine"))
    store.bury(DEAD.id, {}, NOW)
    for _ in range(2):
        holders.bury_left(store, "mine", journals, NOW)
        assert state(store, one) == State(33, 0, 0, 0)
    assert os.listdir(journals) == ["mine.spent"]
    mine.close(remove=True)


def test_a_holder_that_ends_itself_leaves_nothing(store: Any) -> None:
    one = counter()
    store.beat(DEAD, 60, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    store.bury(DEAD.id, {}, NOW, forget=True)
    assert (store.holders(NOW), store.holds(DEAD.id)) == ([], [])
    assert state(store, one) == State(10, 0, 0, 0)


def test_counters_whose_windows_are_long_over_are_forgotten(store: Any) -> None:
    old = [counter("day", Attribution.of({"tenant_id": str(n)}), NOW - 10 * 86_400) for n in range(20)]
    kept = counter("day"), counter("month"), counter("total"), counter("rolling 24h")
    store.beat(DEAD, -1, NOW)
    for one in (*old, *kept):
        store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    still = counter("rolling 24h", Attribution.of({"tenant_id": "still"}))
    store.exchange(DEAD.id, [Move(still, 100, 0, take=40)], NOW)
    store.bury(DEAD.id, {}, NOW)
    if type(store).__name__ == "RedisStore":
        lasts = {one.window: store._redis.ttl(redis._COUNTER + one.id) for one in (old[0], *kept)}
        assert {window for window, seconds in lasts.items() if seconds == -1} == {"total"}
        store._redis.delete(*(redis._COUNTER + one.id for one in old))
        assert store.prune(NOW) == len(old)
    store.prune(NOW)
    there = {balance.counter for balance in store.balances("b")}
    assert there - {still} == set(kept)
    assert {hold.counter for hold in store.holds(DEAD.id)} >= {one.id for one in kept}
    assert store.prune(NOW) == 0


def test_the_dead_are_forgotten_after_a_day(store: Any) -> None:
    if type(store).__name__ in ("RedisStore", "PostgresStore"):
        return  # by their own clocks
    one = counter()
    store.beat(DEAD, -1, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    store.bury(DEAD.id, {}, NOW)
    store.prune(NOW + GRAVE / 2)
    assert store.holds(DEAD.id)
    store.prune(NOW + GRAVE + 10)
    assert not store.holds(DEAD.id)
    assert state(store, one) == State(10, 0, 0, 0)


def test_rolling_counters_that_are_empty_are_forgotten(store: Any) -> None:
    if type(store).__name__ == "RedisStore":
        return  # they expire by its own clock
    one = counter("rolling 60s")
    store.beat(DEAD, -1, NOW)
    store.exchange(DEAD.id, [Move(one, 100, 10, take=40)], NOW)
    store.bury(DEAD.id, {}, NOW)
    assert (store.prune(NOW), store.prune(NOW + 120)) == (0, 1)
    assert state(store, one) is None
