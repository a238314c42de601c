"""The SQLite budget store: files of earlier versions, and what one exchange writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from budgets.made import ACME

from attribkit.budgets import sqlite
from attribkit.budgets.matching import counters_of
from attribkit.budgets.policy import Budget
from attribkit.budgets.sqlite import SqliteStore
from attribkit.budgets.store import Hold, Move, State

COUNTER = counters_of(Budget("b", limit="1", window="total"), ACME, None, 0.0)[0].counter


def test_a_file_of_the_first_version_keeps_what_was_counted(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(sqlite._MIGRATIONS[0])
        old.execute("CREATE TABLE attribkit_schema (room TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        old.execute("INSERT INTO attribkit_schema VALUES ('budgets', 1)")
        old.execute(
            "INSERT INTO attribkit_budget_counters VALUES (7, ?, ?, ?, ?, ?, ?, ?, ?, ?, 40, 9, 5, 3)", tuple(COUNTER)
        )
        old.execute("INSERT INTO attribkit_budget_holds VALUES (7, 'me', 9, 3, 40)")
        old.commit()
    store = SqliteStore(str(path))
    (balance,) = store.balances("b")
    assert balance == (COUNTER, State(spent=40, reserved=9, extra=5, lent=3))
    assert store.holds("me") == [Hold(COUNTER.id, 9, 40)]
    assert store.exchange("me", [Move(COUNTER, 100, 45, back=9, lent_back=3, take=60)], 0.0).refused == -1
    assert store.exchange("other", [Move(COUNTER, 100, 0, take=1)], 0.0).refused == 0
    assert store.top_up(COUNTER, 10, "", 0.0) == State(spent=45, reserved=60, extra=15, lent=0)
    assert store.bury("me", {COUNTER.id: 50}, 0.0) == 1
    assert [one.state for one in store.balances()] == [State(spent=50, reserved=0, extra=15, lent=0)]
    store.close()
