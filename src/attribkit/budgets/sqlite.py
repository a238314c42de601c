"""Budgets counted in a SQLite file, for all processes of a machine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attribkit.budgets.batches import Asked, Line
from attribkit.budgets.store import GRAVE, Answer, Balance, Counter, Entry, Hold, Holder, Move, Row, State, decide
from attribkit.errors import BudgetStoreBusy, BudgetStoreDown, LedgerBusy, LedgerError
from attribkit.storage.sqlite import SqliteDatabase

__all__ = ["SqliteStore"]

T = TypeVar("T")

_MIGRATIONS = tuple(
    Path(__file__).with_name(f"sqlite_{number:04}.sql").read_text(encoding="utf-8") for number in (1, 2)
)
_ALL = ""
"""The holder of what all hold together: `held` is what is reserved, `share` what is lent, `flushed` what is spent."""
_FIND = (
    "SELECT c.number, a.flushed, a.held, c.extra, a.share, h.held, h.share, h.flushed "
    "FROM attribkit_budget_counters c JOIN attribkit_budget_holds a ON a.counter = c.number AND a.holder = '' "
    "LEFT JOIN attribkit_budget_holds h ON h.counter = c.number AND h.holder = ? WHERE c.id = ?"
)
_ADD = (
    'INSERT INTO attribkit_budget_counters (id, budget, key, "window", unit, start, "end", slice, length) '
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HELD = "UPDATE attribkit_budget_holds SET held = ?, share = ?, flushed = ? WHERE counter = ? AND holder = ?"
_FORGET = "DELETE FROM attribkit_budget_holds WHERE counter = ? AND holder = ?"
_HOLD = "INSERT INTO attribkit_budget_holds VALUES (?, ?, ?, ?, ?)"
_HOLDERS = (
    "SELECT * FROM attribkit_budget_holders r WHERE expires > 0 "
    "OR EXISTS (SELECT 1 FROM attribkit_budget_holds h WHERE h.holder = r.id AND h.held > 0)"
)
"""`expires` is negative once a holder is buried: the time of its burial."""
_OVER = (
    'SELECT number FROM attribkit_budget_counters c WHERE 3 * "end" - 2 * start + 172800 < :now '
    "OR (slice > 0 AND extra = 0 AND NOT EXISTS "
    "(SELECT 1 FROM attribkit_budget_slices s WHERE s.counter = c.number AND s.start > :now - c.length - c.slice) "
    "AND NOT EXISTS (SELECT 1 FROM attribkit_budget_holds h LEFT JOIN attribkit_budget_holders r ON r.id = h.holder "
    "WHERE h.counter = c.number AND (h.held > 0 OR r.expires > 0))) LIMIT 1000"
)
_PATIENCE = 20.0
_CHECKPOINT = 4000
"""Pages, 16 MB: a transaction writes two, and every checkpoint waits for the disk."""


class SqliteStore:
    """A Store in the file at `path`, beside the ledger's tables if it is the ledger's."""

    direct = True

    def __init__(self, path: str | None, *, patience: float = _PATIENCE, create: bool = True) -> None:
        self.path = path
        self._database = SqliteDatabase(
            path, room="budgets", migrations=_MIGRATIONS, patience=patience, create=create, first_pause=0.0002,
            longest_pause=0.004, checkpoint=_CHECKPOINT,
        )  # fmt: skip
        self._line = Line(_PATIENCE)

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
        return self._line.ask(Asked(holder, moves, now), self._waited if wait else self._at_once, wait)

    def _waited(self, collect: Callable[[], list[Asked]]) -> Sequence[Answer]:
        return self._write(lambda connection: _exchanged(connection, collect()))

    def _at_once(self, collect: Callable[[], list[Asked]]) -> Sequence[Answer]:
        return self._write(lambda connection: _exchanged(connection, collect()), wait=False)

    def beat(self, holder: Holder, lease: float, now: float) -> None:
        row = holder._replace(expires=now + lease)
        self._write(
            lambda db: db.execute("INSERT OR REPLACE INTO attribkit_budget_holders VALUES (?, ?, ?, ?, ?)", row)
        )

    def holders(self, now: float) -> list[tuple[Holder, bool]]:
        rows = self._read(lambda db: db.execute(_HOLDERS).fetchall())
        return [(Holder(*row), row[4] <= now) for row in rows]

    def holds(self, holder: str) -> list[Hold]:
        statement = (
            "SELECT c.id, h.held, h.flushed FROM attribkit_budget_holds h "
            "JOIN attribkit_budget_counters c ON c.number = h.counter WHERE h.holder = ?"
        )
        return [Hold(*row) for row in self._read(lambda db: db.execute(statement, (holder,)).fetchall())]

    def bury(self, holder: str, settled: Mapping[str, int], now: float, *, forget: bool = False) -> int:
        def work(connection: sqlite3.Connection) -> int:
            execute = connection.execute
            freed = 0
            holds = execute(
                "SELECT c.number, c.id, c.slice, h.held, h.share, h.flushed FROM attribkit_budget_holds h "
                "JOIN attribkit_budget_counters c ON c.number = h.counter WHERE h.holder = ?",
                (holder,),
            ).fetchall()
            for number, id, slice, held, share, flushed in holds:
                late = max(0, settled.get(id, 0) - flushed)
                if held or share or late:
                    execute(
                        "UPDATE attribkit_budget_holds SET flushed = flushed + ?, held = held - ?, share = share - ? "
                        "WHERE counter = ? AND holder = ''",
                        (late, held, share, number),
                    )
                    execute(_HELD, (0, 0, flushed + late, number, holder))
                if slice and late:
                    _sliced(connection, number, slice, late, now)
                freed += held > 0
            if forget:
                execute("DELETE FROM attribkit_budget_holds WHERE holder = ?", (holder,))
                execute("DELETE FROM attribkit_budget_holders WHERE id = ?", (holder,))
            else:
                execute("UPDATE attribkit_budget_holders SET expires = ? WHERE id = ? AND expires > 0", (-now, holder))
            return freed

        return self._write(work)

    def prune(self, now: float) -> int:
        def work(connection: sqlite3.Connection) -> int:
            execute = connection.execute
            gone = execute(_OVER, {"now": now}).fetchall()
            for table, column in (("counters", "number"), ("holds", "counter"), ("slices", "counter")):
                connection.executemany(f"DELETE FROM attribkit_budget_{table} WHERE {column} = ?", gone)
            long_dead = "(SELECT id FROM attribkit_budget_holders WHERE expires < 0 AND -expires < ?)"
            execute(f"DELETE FROM attribkit_budget_holds WHERE held = 0 AND holder IN {long_dead}", (now - GRAVE,))
            execute(
                "DELETE FROM attribkit_budget_holders WHERE expires < 0 AND -expires < ? "
                "AND id NOT IN (SELECT holder FROM attribkit_budget_holds)",
                (now - GRAVE,),
            )
            return len(gone)

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
            if connection.execute(_FIND, (_ALL, counter.id)).fetchone() is None:
                _added(connection.execute, counter)
            connection.execute(
                "UPDATE attribkit_budget_counters SET extra = extra + ? WHERE id = ?", (amount, counter.id)
            )
            connection.execute(
                "INSERT INTO attribkit_budget_entries (at, budget, key, amount, note) VALUES (?, ?, ?, ?, ?)",
                (now, counter.budget, counter.key, amount, note),
            )
            return State(*connection.execute(_FIND, (_ALL, counter.id)).fetchone()[1:5])

        return self._write(work)

    def statement(self, budget: str, key: str | None = None) -> list[Entry]:
        statement = (
            "SELECT at, budget, key, amount, note FROM attribkit_budget_entries "
            "WHERE budget = ? AND (? IS NULL OR key = ?) ORDER BY number"
        )
        return [Entry(*row) for row in self._read(lambda db: db.execute(statement, (budget, key, key)).fetchall())]

    def balances(self, budget: str | None = None) -> Iterator[Balance]:
        statement = (
            'SELECT id, budget, key, "window", unit, start, "end", slice, length, flushed, held, extra, share '
            "FROM attribkit_budget_counters c JOIN attribkit_budget_holds a ON a.counter = c.number AND a.holder = '' "
            "WHERE (? IS NULL OR budget = ?) ORDER BY budget, number"
        )
        for row in self._read(lambda db: db.execute(statement, (budget, budget)).fetchall()):
            yield Balance(Counter(*row[:9]), State(*row[9:]))

    def close(self) -> None:
        self._database.close()


class _Known:
    """A counter within one transaction: its row, and how it was."""

    __slots__ = ("number", "row", "there", "was")

    def __init__(self, number: int, row: Row, there: bool) -> None:
        self.number, self.row, self.there = number, row, there
        self.was = (row.spent, row.reserved, row.lent, row.held, row.share, row.flushed)


def _exchanged(connection: sqlite3.Connection, batch: Sequence[Asked]) -> Sequence[Answer]:
    """Do what is asked, in a transaction. What was asked while the lock was waited for is in `batch` too."""
    if len(batch) == 1:
        holder, moves = batch[0].holder, batch[0].moves
        if len(moves) == 1 and not moves[0][0][7] and not moves[0][8]:
            return (_alone(connection.execute, holder, moves),)
    return _together(connection, batch[0].holder, batch)


def _added(execute: Callable[..., sqlite3.Cursor], counter: Counter) -> int:
    """Begin to count; return the counter's number."""
    number = int(execute(_ADD, counter).lastrowid or 0)
    execute(_HOLD, (number, _ALL, 0, 0, 0))
    return number


def _alone(execute: Callable[..., sqlite3.Cursor], holder: str, moves: Sequence[Move]) -> Answer:
    """One plain counter, as nearly every call has it."""
    counter_id = moves[0][0][0]
    found = execute(_FIND, (holder, counter_id)).fetchone()
    if found is None:
        found = (_added(execute, moves[0][0]), 0, 0, 0, 0, None, 0, 0)
    number, spent, reserved, extra, lent, held, share, flushed = found
    row = Row(spent, reserved, extra, lent, held or 0, share or 0, flushed or 0)
    answer = decide((row,), moves)
    if row.reserved != reserved or row.spent != spent or row.lent != lent:
        execute(_HELD, (row.reserved, row.lent, row.spent, number, _ALL))
    if held is None:
        execute(_HOLD, (number, holder, row.held, row.share, row.flushed))
    elif row.held != held or row.flushed != flushed or row.share != share:
        execute(_HELD, (row.held, row.share, row.flushed, number, holder))
    return answer


def _together(connection: sqlite3.Connection, holder: str, batch: Sequence[Asked]) -> list[Answer]:
    """Several counters, or several exchanges of one holder: each counter is read and written once."""
    execute = connection.execute
    counters: dict[str, _Known] = {}
    answers = []
    for asked in batch:
        known = []
        for move in asked.moves:
            counter = move.counter
            one = counters.get(counter.id)
            if one is None:
                one = counters[counter.id] = _read(execute, holder, counter, asked.now)
            known.append(one)
        before = [one.row.spent for one in known]
        answers.append(decide([one.row for one in known], asked.moves))
        for one, move, spent in zip(known, asked.moves, before, strict=True):
            if move.counter.slice and one.row.spent > spent:
                _sliced(connection, one.number, move.counter.slice, one.row.spent - spent, asked.now)
            if move.forget:
                row = one.row
                row.reserved, row.lent = row.reserved - row.held, row.lent - row.share
                row.held = row.share = row.flushed = 0
                if one.there:
                    execute(_FORGET, (one.number, holder))
                one.there, one.was = False, (*one.was[:3], 0, 0, 0)
    for one in counters.values():
        row, was = one.row, one.was
        if (row.spent, row.reserved, row.lent) != was[:3]:
            execute(_HELD, (row.reserved, row.lent, row.spent, one.number, _ALL))
        if (row.held, row.share, row.flushed) != was[3:]:
            if one.there:
                execute(_HELD, (row.held, row.share, row.flushed, one.number, holder))
            else:
                execute(_HOLD, (one.number, holder, row.held, row.share, row.flushed))
    return answers


def _read(execute: Callable[..., sqlite3.Cursor], holder: str, counter: Counter, now: float) -> _Known:
    found = execute(_FIND, (holder, counter.id)).fetchone()
    if found is None:
        return _Known(_added(execute, counter), Row(0, 0, 0, 0), False)
    there = found[5] is not None
    known = _Known(found[0], Row(*found[1:]) if there else Row(*found[1:5]), there)
    if counter.slice:
        _expire(execute, known, counter, now)
    return known


def _expire(execute: Callable[..., sqlite3.Cursor], known: _Known, counter: Counter, now: float) -> None:
    """Let go what has left a rolling window."""
    until = int(now) - counter.length - counter.slice
    gone = execute(
        "SELECT sum(spent) FROM attribkit_budget_slices WHERE counter = ? AND start <= ?", (known.number, until)
    ).fetchone()[0]
    if gone is not None:
        execute("DELETE FROM attribkit_budget_slices WHERE counter = ? AND start <= ?", (known.number, until))
        known.row.spent -= gone


def _sliced(connection: sqlite3.Connection, number: int, slice: int, spent: int, now: float) -> None:
    connection.execute(
        "INSERT INTO attribkit_budget_slices VALUES (?, ?, ?) "
        "ON CONFLICT (counter, start) DO UPDATE SET spent = spent + excluded.spent",
        (number, int(now // slice) * slice, spent),
    )
