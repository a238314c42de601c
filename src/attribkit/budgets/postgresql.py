"""Budgets counted in PostgreSQL, for the processes of many machines: each exchange is one statement, one round trip."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attribkit.budgets.batches import Asked, Line
from attribkit.budgets.store import GRAVE, Answer, Balance, Counter, Entry, Hold, Holder, Move, State
from attribkit.errors import BudgetStoreDown, ConfigurationError

__all__ = ["PostgresStore"]

T = TypeVar("T")

_MIGRATIONS = ("postgresql_0001.sql",)
_NOW = "extract(epoch FROM clock_timestamp())"
_SECONDS = 5.0
_MOST = 8
"""Connections of one process; more callers wait their turn."""


class PostgresStore:
    """A Store at a `postgresql://` URL. Needs `attribkit[postgresql]` and PostgreSQL 12 or later. Its tables are made
    at the first use, in the first schema of the search path."""

    direct = False

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigurationError(
                "budget_store postgresql://...: the client is not installed; pip install 'attribkit[postgresql]'",
                name="budget_store",
            ) from None
        self._url, self._psycopg, self._closed = url, psycopg, False
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._turns = threading.BoundedSemaphore(_MOST)
        self._idle: list[Any] = []
        self._line = Line(2 * _SECONDS)
        self._lock = threading.Lock()
        self._ready = False

    def _asked(self, work: Callable[[Any], T]) -> T:
        if self._process != os.getpid():  # forked: the connections are the parent's, and are not closed here
            self._parents = self._idle
            self._forget()
        try:
            with self._turns:
                connection = self._idle.pop() if self._idle else self._connected()
                try:
                    result = work(connection)
                except BaseException:
                    connection.close()
                    raise
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)
                return result
        except (self._psycopg.Error, OSError) as error:
            raise BudgetStoreDown(f"PostgreSQL: {type(error).__name__}") from error

    def _connected(self) -> Any:
        connection = self._psycopg.connect(
            self._url, autocommit=True, connect_timeout=5, options="-c statement_timeout=5000 -c lock_timeout=4000"
        )
        if not self._ready:
            try:
                with self._lock:
                    self._migrate(connection)
            except BaseException:
                connection.close()
                raise
            self._ready = True
        return connection

    def _migrate(self, connection: Any) -> None:
        connection.execute("SELECT pg_advisory_lock(7105632)")
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS attribkit_schema (room text PRIMARY KEY, version integer NOT NULL)"
            )
            row = connection.execute("SELECT version FROM attribkit_schema WHERE room = 'budgets'").fetchone()
            for name in _MIGRATIONS[row[0] if row else 0 :]:
                with connection.transaction():
                    connection.execute(Path(__file__).with_name(name).read_text(encoding="utf-8"))
                    connection.execute(
                        "INSERT INTO attribkit_schema VALUES ('budgets', 1) "
                        "ON CONFLICT (room) DO UPDATE SET version = attribkit_schema.version + 1"
                    )
        finally:
            connection.execute("SELECT pg_advisory_unlock(7105632)")

    def exchange(self, holder: str, moves: Sequence[Move], now: float, *, wait: bool = True) -> Answer:
        def work(collect: Callable[[], list[Asked]]) -> list[Answer]:
            counters, asked = _said(collect())
            statement = "SELECT attribkit_budget_exchange(%s, %s, %s::jsonb, %s::jsonb)"
            told = self._asked(lambda db: db.execute(statement, (holder, now, counters, asked)).fetchone()[0])
            return [_answer(one) for one in told]

        return self._line.ask(Asked(holder, moves, now), work, wait)

    def beat(self, holder: Holder, lease: float, now: float) -> None:
        statement = (
            f"INSERT INTO attribkit_budget_holders VALUES (%s, %s, %s, %s, {_NOW} + %s) "
            "ON CONFLICT (id) DO UPDATE SET expires = excluded.expires"
        )
        self._asked(lambda db: db.execute(statement, (*holder[:4], lease)))

    def holders(self, now: float) -> list[tuple[Holder, bool]]:
        statement = (
            f"SELECT id, host, pid, born, expires, expires <= {_NOW} FROM attribkit_budget_holders r WHERE expires > 0 "
            "OR EXISTS (SELECT 1 FROM attribkit_budget_holds h WHERE h.holder = r.id AND h.held > 0)"
        )
        return [(Holder(*row[:5]), row[5]) for row in self._asked(lambda db: db.execute(statement).fetchall())]

    def holds(self, holder: str) -> list[Hold]:
        statement = (
            "SELECT c.id, h.held, h.flushed FROM attribkit_budget_holds h "
            "JOIN attribkit_budget_counters c ON c.number = h.counter WHERE h.holder = %s"
        )
        rows = self._asked(lambda db: db.execute(statement, (holder,)).fetchall())
        return [Hold(id, int(held), int(flushed)) for id, held, flushed in rows]

    def bury(self, holder: str, settled: Mapping[str, int], now: float, *, forget: bool = False) -> int:
        statement = "SELECT attribkit_budget_bury(%s, %s::jsonb, %s, %s)"
        given = json.dumps(dict(settled))
        return int(self._asked(lambda db: db.execute(statement, (holder, given, now, forget)).fetchone()[0]))

    def prune(self, now: float) -> int:
        statement = "SELECT attribkit_budget_prune(%s, %s)"
        return int(self._asked(lambda db: db.execute(statement, (now, GRAVE)).fetchone()[0]))

    def version(self) -> int:
        return int(self._asked(lambda db: db.execute("SELECT version FROM attribkit_budget_version").fetchone()[0]))

    def definitions(self) -> dict[str, tuple[dict[str, Any], str]]:
        statement = "SELECT name, definition, origin FROM attribkit_budgets ORDER BY name"
        rows = self._asked(lambda db: db.execute(statement).fetchall())
        return {name: (json.loads(definition), origin) for name, definition, origin in rows}

    def define(self, table: Mapping[str, Any], origin: str) -> None:
        text = json.dumps(table, sort_keys=True)
        statement = (
            "WITH changed AS (INSERT INTO attribkit_budgets AS b VALUES (%(name)s, %(text)s, %(origin)s) "
            "ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, origin = excluded.origin "
            "WHERE (b.definition, b.origin) <> (excluded.definition, excluded.origin) "
            "AND (excluded.origin <> 'declared' OR b.origin = 'declared') RETURNING name) "
            "UPDATE attribkit_budget_version SET version = version + 1 WHERE EXISTS (SELECT FROM changed)"
        )
        self._asked(lambda db: db.execute(statement, {"name": table["name"], "text": text, "origin": origin}))

    def top_up(self, counter: Counter, amount: int, note: str, now: float) -> State:
        self.exchange("", [Move(counter, -1, 0, forget=True)], now)

        def work(db: Any) -> State:
            with db.transaction():
                db.execute(
                    "INSERT INTO attribkit_budget_entries (at, budget, key, amount, note) VALUES (%s, %s, %s, %s, %s)",
                    (now, counter.budget, counter.key, amount, note),
                )
                row = db.execute(
                    "UPDATE attribkit_budget_counters SET extra = extra + %s WHERE id = %s "
                    "RETURNING spent, reserved, extra, lent",
                    (amount, counter.id),
                ).fetchone()
            return State(*map(int, row))

        return self._asked(work)

    def statement(self, budget: str, key: str | None = None) -> list[Entry]:
        statement = (
            "SELECT at, budget, key, amount, note FROM attribkit_budget_entries "
            "WHERE budget = %s AND (%s::text IS NULL OR key = %s) ORDER BY number"
        )
        rows = self._asked(lambda db: db.execute(statement, (budget, key, key)).fetchall())
        return [Entry(row[0], row[1], row[2], int(row[3]), row[4]) for row in rows]

    def balances(self, budget: str | None = None) -> Iterator[Balance]:
        statement = (
            'SELECT id, budget, key, "window", unit, start, "end", slice, length, spent, reserved, extra, lent '
            "FROM attribkit_budget_counters WHERE %s::text IS NULL OR budget = %s ORDER BY budget, number"
        )
        for row in self._asked(lambda db: db.execute(statement, (budget, budget)).fetchall()):
            yield Balance(Counter(*row[:9]), State(*map(int, row[9:])))

    def close(self) -> None:
        self._closed = True  # what is still asked in another thread closes its connection itself
        while self._idle:
            self._idle.pop().close()


def _said(batch: Sequence[Asked]) -> tuple[str, str]:
    """Return exchanges as the function takes them. Rows are locked in the order of their ids everywhere, so that no two
    processes wait for each other."""
    known = {move.counter.id: move.counter for one in batch for move in one.moves}
    places = {id: place for place, id in enumerate(sorted(known))}
    moves = [[[places[move.counter.id], *map(int, move[1:])] for move in one.moves] for one in batch]
    return json.dumps([known[id] for id in places]), json.dumps(moves)


def _answer(told: Sequence[Any]) -> Answer:
    refused, *rows = told
    states = tuple(State(*map(int, row[:4])) for row in rows)
    return Answer(refused, states, tuple(int(row[4]) for row in rows))
