"""Budgets counted in a SQLite file, for all processes of a machine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attribkit.budgets.store import Answer, Balance, Counter, Entry, Hold, Holder, Move, Row, State, decide
from attribkit.errors import BudgetStoreBusy, BudgetStoreDown, LedgerBusy, LedgerError
from attribkit.storage.sqlite import SqliteDatabase

__all__ = ["SqliteStore"]

T = TypeVar("T")

_MIGRATIONS = (Path(__file__).with_name("sqlite_0001.sql").read_text(encoding="utf-8"),)
_FIND = (
    "SELECT c.number, c.spent, c.reserved, c.extra, c.lent, h.held, h.share, h.flushed "
    "FROM attribkit_budget_counters c "
    "LEFT JOIN attribkit_budget_holds h ON h.counter = c.number AND h.holder = ? WHERE c.id = ?"
)
_ADD = (
    'INSERT INTO attribkit_budget_counters (id, budget, key, "window", unit, start, "end", slice, length) '
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COUNTED = "UPDATE attribkit_budget_counters SET spent = ?, reserved = ?, lent = ? WHERE number = ?"
_HELD = "UPDATE attribkit_budget_holds SET held = ?, share = ?, flushed = ? WHERE counter = ? AND holder = ?"
_HOLD = "INSERT INTO attribkit_budget_holds VALUES (?, ?, ?, ?, ?)"
_PATIENCE = 20.0


class SqliteStore:
    """A Store in the file at `path`, beside the ledger's tables if it is the ledger's."""

    direct = True

    def __init__(self, path: str | None, *, patience: float = _PATIENCE, create: bool = True) -> None:
        self.path = path
        self._database = SqliteDatabase(
            path, room="budgets", migrations=_MIGRATIONS, patience=patience, create=create, first_pause=0.0002
        )

    def __repr__(self) -> str:
        return f"SqliteStore({self.path or ':memory:'!r})"

    def _write(self, work: Callable[[sqlite3.Connection], T], *, wait: bool = True) -> T:
        try:
            return self._database.write(work, patience=None if wait else 0.0)
        except LedgerBusy as error:
            raise BudgetStoreBusy(str(error)) from error
        except LedgerError as error:
            raise BudgetStoreDown(str(error)) from error

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._database.read(work)
        except LedgerBusy as error:
            raise BudgetStoreBusy(str(error)) from error
        except LedgerError as error:
            raise BudgetStoreDown(str(error)) from error

    def exchange(self, holder: str, moves: Sequence[Move], now: float, *, wait: bool = True) -> Answer:
        def work(connection: sqlite3.Connection) -> Answer:
            execute = connection.execute
            if len(moves) == 1 and not moves[0].counter[7] and not moves[0].forget:
                return alone(execute)
            rows, numbers, before = [], [], []
            for move in moves:
                counter = move.counter
                found = execute(_FIND, (holder, counter.id)).fetchone()
                if found is None:
                    number = int(execute(_ADD, counter).lastrowid or 0)
                    row, there = Row(0, 0, 0, 0), False
                else:
                    number, there = found[0], found[5] is not None
                    row = Row(*found[1:]) if there else Row(*found[1:5])
                    if counter.slice:
                        self._expire(connection, number, counter, row, now)
                rows.append(row)
                numbers.append(number)
                before.append((row.spent, row.reserved, row.lent, row.held, row.share, row.flushed, there))
            answer = decide(rows, moves)
            for move, row, number, was in zip(moves, rows, numbers, before, strict=True):
                if (row.spent, row.reserved, row.lent) != was[:3]:
                    execute(_COUNTED, (row.spent, row.reserved, row.lent, number))
                if move.forget:
                    self._forget(connection, number, holder, row)
                elif not was[6]:
                    execute(_HOLD, (number, holder, row.held, row.share, row.flushed))
                elif (row.held, row.share, row.flushed) != was[3:6]:
                    execute(_HELD, (row.held, row.share, row.flushed, number, holder))
                if move.counter.slice and row.spent > was[0]:
                    _sliced(connection, number, move.counter.slice, row.spent - was[0], now)
            return answer

        def alone(execute: Callable[..., sqlite3.Cursor]) -> Answer:
            """One plain counter, as nearly every call has it."""
            move = moves[0]
            found = execute(_FIND, (holder, move[0][0])).fetchone()
            if found is None:
                number = int(execute(_ADD, move[0]).lastrowid or 0)
                found = (number, 0, 0, 0, 0, None, 0, 0)
            number, there = found[0], found[5] is not None
            row = Row(*found[1:]) if there else Row(*found[1:5])
            answer = decide((row,), moves)
            execute(_COUNTED, (row.spent, row.reserved, row.lent, number))
            if there:
                execute(_HELD, (row.held, row.share, row.flushed, number, holder))
            else:
                execute(_HOLD, (number, holder, row.held, row.share, row.flushed))
            return answer

        return self._write(work, wait=wait)

    def _forget(self, connection: sqlite3.Connection, number: int, holder: str, row: Row) -> None:
        connection.execute("DELETE FROM attribkit_budget_holds WHERE counter = ? AND holder = ?", (number, holder))
        if row.held or row.share:
            connection.execute(_COUNTED, (row.spent, row.reserved - row.held, row.lent - row.share, number))

    def _expire(self, connection: sqlite3.Connection, number: int, counter: Counter, row: Row, now: float) -> None:
        """Let go what has left a rolling window."""
        until = int(now) - counter.length - counter.slice
        gone = connection.execute(
            "SELECT sum(spent) FROM attribkit_budget_slices WHERE counter = ? AND start <= ?", (number, until)
        ).fetchone()[0]
        if gone is not None:
            connection.execute("DELETE FROM attribkit_budget_slices WHERE counter = ? AND start <= ?", (number, until))
            row.spent -= gone
            connection.execute(_COUNTED, (row.spent, row.reserved, row.lent, number))

    def beat(self, holder: Holder, lease: float, now: float) -> None:
        row = holder._replace(expires=now + lease)
        self._write(
            lambda db: db.execute("INSERT OR REPLACE INTO attribkit_budget_holders VALUES (?, ?, ?, ?, ?)", row)
        )

    def holders(self, now: float) -> list[tuple[Holder, bool]]:
        rows = self._read(lambda db: db.execute("SELECT * FROM attribkit_budget_holders").fetchall())
        return [(Holder(*row), row[4] <= now) for row in rows]

    def holds(self, holder: str) -> list[Hold]:
        statement = (
            "SELECT c.id, h.held, h.flushed FROM attribkit_budget_holds h "
            "JOIN attribkit_budget_counters c ON c.number = h.counter WHERE h.holder = ?"
        )
        return [Hold(*row) for row in self._read(lambda db: db.execute(statement, (holder,)).fetchall())]

    def bury(self, holder: str, settled: Mapping[str, int], now: float) -> int:
        def work(connection: sqlite3.Connection) -> int:
            freed = 0
            holds = connection.execute(
                "SELECT c.number, c.id, c.slice, h.held, h.share, h.flushed FROM attribkit_budget_holds h "
                "JOIN attribkit_budget_counters c ON c.number = h.counter WHERE h.holder = ?",
                (holder,),
            ).fetchall()
            for number, id, slice, held, share, flushed in holds:
                late = max(0, settled.get(id, 0) - flushed)
                connection.execute(
                    "UPDATE attribkit_budget_counters SET spent = spent + ?, reserved = reserved - ?, lent = lent - ? "
                    "WHERE number = ?",
                    (late, held, share, number),
                )
                if late and slice:
                    _sliced(connection, number, slice, late, now)
                freed += held > 0
            connection.execute("DELETE FROM attribkit_budget_holds WHERE holder = ?", (holder,))
            connection.execute("DELETE FROM attribkit_budget_holders WHERE id = ?", (holder,))
            return freed

        return self._write(work)

    def version(self) -> int:
        row = self._read(lambda db: db.execute("SELECT version FROM attribkit_budget_version").fetchone())
        return int(row[0])

    def definitions(self) -> dict[str, tuple[dict[str, Any], str]]:
        rows = self._read(lambda db: db.execute("SELECT * FROM attribkit_budgets ORDER BY name").fetchall())
        return {name: (json.loads(definition), origin) for name, definition, origin in rows}

    def define(self, table: Mapping[str, Any], origin: str) -> None:
        name, text = str(table["name"]), json.dumps(table, sort_keys=True)

        def work(connection: sqlite3.Connection) -> None:
            known = connection.execute(
                "SELECT definition, origin FROM attribkit_budgets WHERE name = ?", (name,)
            ).fetchone()
            if known == (text, origin) or (known and origin == "declared" and known[1] != "declared"):
                return
            connection.execute("INSERT OR REPLACE INTO attribkit_budgets VALUES (?, ?, ?)", (name, text, origin))
            connection.execute("UPDATE attribkit_budget_version SET version = version + 1")

        self._write(work)

    def top_up(self, counter: Counter, amount: int, note: str, now: float) -> State:
        def work(connection: sqlite3.Connection) -> State:
            row = connection.execute(_FIND, ("", counter.id)).fetchone()
            if row is None:
                connection.execute(_ADD, counter)
            connection.execute(
                "UPDATE attribkit_budget_counters SET extra = extra + ? WHERE id = ?", (amount, counter.id)
            )
            connection.execute(
                "INSERT INTO attribkit_budget_entries (at, budget, key, amount, note) VALUES (?, ?, ?, ?, ?)",
                (now, counter.budget, counter.key, amount, note),
            )
            return State(*connection.execute(_FIND, ("", counter.id)).fetchone()[1:5])

        return self._write(work)

    def statement(self, budget: str, key: str | None = None) -> list[Entry]:
        statement = (
            "SELECT at, budget, key, amount, note FROM attribkit_budget_entries "
            "WHERE budget = ? AND (? IS NULL OR key = ?) ORDER BY number"
        )
        return [Entry(*row) for row in self._read(lambda db: db.execute(statement, (budget, key, key)).fetchall())]

    def balances(self, budget: str | None = None) -> Iterator[Balance]:
        statement = (
            'SELECT id, budget, key, "window", unit, start, "end", slice, length, spent, reserved, extra, lent '
            "FROM attribkit_budget_counters WHERE (? IS NULL OR budget = ?) ORDER BY budget, number"
        )
        for row in self._read(lambda db: db.execute(statement, (budget, budget)).fetchall()):
            yield Balance(Counter(*row[:9]), State(*row[9:]))

    def close(self) -> None:
        self._database.close()


def _sliced(connection: sqlite3.Connection, number: int, slice: int, spent: int, now: float) -> None:
    connection.execute(
        "INSERT INTO attribkit_budget_slices VALUES (?, ?, ?) "
        "ON CONFLICT (counter, start) DO UPDATE SET spent = spent + excluded.spent",
        (number, int(now // slice) * slice, spent),
    )
