"""Threads of one process that ask the store at once are served together."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from budgets.made import ACME

from attribkit.budgets.batches import Asked, Line
from attribkit.budgets.matching import counters_of
from attribkit.budgets.policy import Budget
from attribkit.budgets.queues import Queue
from attribkit.budgets.sqlite import SqliteStore
from attribkit.budgets.store import Answer, Move
from attribkit.errors import BudgetStoreBusy, BudgetStoreDown

COUNTER = counters_of(Budget("b", limit="1", window="total"), ACME, None, time.time())[0].counter


def started(count: int, work: Any) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def waits(line: Line, count: int) -> None:
    until = time.monotonic() + 20
    while len(line._waiting) < count and time.monotonic() < until:
        time.sleep(0.002)
    assert len(line._waiting) == count


def test_what_is_asked_while_the_file_is_locked_is_answered_in_one_transaction(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "b.db"))
    store.exchange("me", [Move(COUNTER, 100, 0)], 0.0)
    transactions, write, answers = [], store._write, {}
    store._write = lambda *some, **more: (transactions.append(1), write(*some, **more))[1]  # type: ignore[method-assign]
    other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def ask(number: int) -> None:
        answers[number] = store.exchange("me", [Move(COUNTER, 100, 0, take=10)], 0.0).refused

    threads = started(12, ask)
    waits(store._line, 11)
    with pytest.raises(BudgetStoreBusy):
        store.exchange("me", [Move(COUNTER, 100, 0)], 0.0, wait=False)
    other.execute("COMMIT")
    other.close()
    for thread in threads:
        thread.join()
    assert sorted(answers.values()) == [-1] * 10 + [0] * 2
    assert len(transactions) == 1
    (balance,) = store.balances("b")
    assert balance.state.reserved == 100
    store.close()


def test_a_fault_is_everybodys_and_the_line_goes_on() -> None:
    line, go, found = Line(20), threading.Event(), []

    def down(collect: Any) -> list[Answer]:
        go.wait(20)
        collect()
        raise BudgetStoreDown("gone")

    def ask(number: int) -> None:
        try:
            line.ask(Asked("me", (), 0.0), down, True)
        except BudgetStoreDown:
            found.append(number)

    threads = started(5, ask)
    waits(line, 4)
    go.set()
    for thread in threads:
        thread.join()
    assert len(found) == 5
    answer = Answer(-1, (), ())
    assert line.ask(Asked("me", (), 0.0), lambda collect: [answer for _ in collect()], False) is answer


def test_who_waits_too_long_is_told_so_and_others_of_another_holder_are_asked_for_apart() -> None:
    line, go, batches = Line(0.05), threading.Event(), []

    def slow(collect: Any) -> list[Answer]:
        go.wait(20)
        batches.append([one.holder for one in collect()])
        return [Answer(-1, (), ()) for _ in batches[-1]]

    first = started(1, lambda _: line.ask(Asked("one", (), 0.0), slow, True))
    while not line._led:
        time.sleep(0.002)
    with pytest.raises(BudgetStoreBusy):
        line.ask(Asked("one", (), 0.0), slow, True)
    line._patience = 20
    others = started(1, lambda _: line.ask(Asked("other", (), 0.0), slow, True))
    waits(line, 1)
    go.set()
    for thread in first + others:
        thread.join()
    assert batches == [["one"], ["other"]]


def test_who_is_interrupted_while_it_waits_leaves_the_line_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    line, go, answer = Line(20), threading.Event(), Answer(-1, (), ())

    def slow(collect: Any) -> list[Answer]:
        go.wait(20)
        return [answer]  # it collects nobody, so the next in line is to lead

    class Interrupted:
        """A turn in whose wait a signal's handler raises, just when it has become the first."""

        def __init__(self) -> None:
            self.lock, self.waited = threading.Lock(), False

        def acquire(self, timeout: float = -1) -> bool:
            got = self.lock.acquire(timeout=timeout)
            if timeout > 0 and not self.waited:
                self.waited = True
                self.lock.release()
                raise KeyboardInterrupt
            return got

        def release(self) -> None:
            self.lock.release()

    first = started(1, lambda _: line.ask(Asked("me", (), 0.0), slow, True))
    while not line._led:
        time.sleep(0.002)
    asked, ended = Asked("me", (), 0.0), []

    def interrupted(_: int) -> None:
        try:
            line.ask(asked, slow, True)
        except KeyboardInterrupt:
            ended.append(1)

    with monkeypatch.context() as patch:
        patch.setattr("attribkit.budgets.batches._turn", Interrupted)
        second = started(1, interrupted)
        waits(line, 1)
    go.set()
    for thread in first + second:
        thread.join()
    assert ended and not line._led
    assert line.ask(Asked("me", (), 0.0), slow, False) is answer


def test_waiting_calls_take_turns_by_age() -> None:
    queue = Queue()
    first, second, third = (queue.join() for _ in range(3))
    begun = time.monotonic()
    queue.stir()
    queue.wait(first, 20, begun + 20)
    queue.leave(second)
    queue.leave(first)
    queue.wait(third, 20, begun + 20)
    assert time.monotonic() - begun < 15
    queue.leave(third)
    queue.stir()
    assert not queue.waiting
