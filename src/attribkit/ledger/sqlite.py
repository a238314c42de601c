"""The ledger in a SQLite file, or in memory."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import chain, compress, cycle
from pathlib import Path
from types import NoneType
from typing import Any

from attribkit.errors import ConfigurationError
from attribkit.ledger.base import COLUMNS, ROW_FIELDS, Figure, Group, LedgerRow, Loss, Question, Repricing
from attribkit.storage.sqlite import SqliteDatabase

__all__ = ["SqliteLedger"]

_PAGE = 500
_HALF = 1_000_000_000
# Rows in one statement: each statement gives the interpreter's lock away once, so more is kinder to the app's threads,
# but binding holds it.
_CHUNKS = (32, 4, 1)

_CALCULATED = {
    "model": "coalesce(served_model, requested_model)",
    "service_tier": "coalesce(served_tier, requested_tier)",
    "hour": "strftime('%Y-%m-%dT%H:00Z', started_ns / 1000000000, 'unixepoch')",
    "day": "strftime('%Y-%m-%d', started_ns / 1000000000, 'unixepoch')",
    "month": "strftime('%Y-%m', started_ns / 1000000000, 'unixepoch')",
}
_FREE = re.compile(r"(?:dimensions\.)?([A-Za-z0-9_.\-]{1,64})")


_ORIGINAL = {
    "cost": "cost_pico",
    "list": "list_pico",
    "charged": "coalesce(charged_pico, cost_pico)",
    "status": "cost_status",
    "figures": "",
}
_FIGURE = {
    "cost": "CASE WHEN f_id IS NULL THEN cost_pico ELSE f_cost END",
    "list": "CASE WHEN f_id IS NULL THEN list_pico ELSE f_list END",
    "charged": "CASE WHEN f_id IS NULL THEN coalesce(charged_pico, cost_pico) ELSE coalesce(f_charged, f_cost) END",
    "status": "coalesce(f_status, cost_status)",
    "figures": (
        "LEFT JOIN (SELECT call_id AS f_id, cost_pico AS f_cost, list_pico AS f_list, charged_pico AS f_charged, "
        "cost_status AS f_status FROM attribkit_figures WHERE label = :figure) ON f_id = call_id"
    ),
}
_INSERT_FIGURE = f"INSERT OR REPLACE INTO attribkit_figures VALUES ({', '.join('?' * (1 + len(Figure._fields)))})"


def _sql(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


class SqliteLedger:
    """A LedgerStore in the file at `path`, made when missing unless `create` is false; in memory when it is None."""

    def __init__(self, path: str | None, *, create: bool = True, patience: float = 5.0) -> None:
        self.path = path
        self._database = SqliteDatabase(
            path,
            room="ledger",
            migrations=(_sql("sqlite_0001.sql"), _sql("sqlite_0002.sql")),
            create=create,
            patience=patience,
        )

    def __repr__(self) -> str:
        return f"SqliteLedger({self.path or ':memory:'!r})"

    def write(self, rows: Sequence[LedgerRow]) -> int:
        if not rows:
            return 0

        # By the columns that have a value: sqlite3 binds None at ten times the cost of a value (it looks for an
        # adapter each time), and half of a row is None.
        shapes: dict[tuple[type, ...], list[LedgerRow]] = {}
        for row in rows:
            shapes.setdefault(tuple(map(type, row)), []).append(row)

        def insert(connection: sqlite3.Connection) -> int:
            before = connection.total_changes
            for shape, alike in shapes.items():
                there = tuple(kind is not NoneType for kind in shape)
                start = 0
                for size in _CHUNKS:
                    while len(alike) - start >= size:
                        end = start + size
                        values = compress(chain.from_iterable(alike[start:end]), cycle(there))
                        connection.execute(_insert(there, size), list(values))
                        start = end
            return connection.total_changes - before

        return self._database.write(insert)

    def write_losses(self, losses: Sequence[Loss]) -> None:
        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO attribkit_losses VALUES (?, ?, ?, ?, ?) ON CONFLICT (loss_id) DO NOTHING", losses
            )

        self._database.write(insert)

    def query(self, question: Question) -> list[Group]:
        keys = [expression(field) for field in question.by]
        conditions, values = _conditions(question)
        figures = _ORIGINAL if question.figure is None else _FIGURE
        if question.figure is not None:
            self._check_figure(question.figure)
            values["figure"] = question.figure
        statement = _sql("sqlite_query.sql").format(
            **figures,
            keys="".join(f", CAST({key} AS TEXT)" for key in keys),
            conditions=conditions,
            grouping=f"GROUP BY {', '.join(keys)}" if keys else "",
        )
        return [_group(row) for row in self._database.read(_fetched(statement, values))]

    def records(self, question: Question = Question()) -> Iterator[LedgerRow]:  # noqa: B008 (a frozen value)
        conditions, values = _conditions(question)
        statement = (
            f"SELECT {', '.join(COLUMNS)} FROM attribkit_calls WHERE {conditions} AND call_id > :after "
            f"ORDER BY call_id LIMIT {_PAGE}"
        )
        last = ""
        while True:
            page = self._database.read(_fetched(statement, {**values, "after": last}))
            for row in page:
                yield LedgerRow._make(row)._replace(batch=bool(row[_BATCH]), stream=bool(row[_STREAM]))
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def losses(self, *, since_ns: int | None = None, until_ns: int | None = None) -> list[Loss]:
        statement = (
            "SELECT loss_id, since_ns, until_ns, calls, process FROM attribkit_losses "
            "WHERE (:since IS NULL OR until_ns >= :since) AND (:until IS NULL OR since_ns < :until) ORDER BY since_ns"
        )
        return [
            Loss._make(row) for row in self._database.read(_fetched(statement, {"since": since_ns, "until": until_ns}))
        ]

    def begin_repricing(self, label: str) -> None:
        def clear(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT 1 FROM attribkit_repricings WHERE label = ?", (label,)).fetchone():
                raise ConfigurationError(
                    f"label {label!r}: a repricing has it already; take another label, or drop that one",
                    name="label",
                    value=label,
                )
            connection.execute("DELETE FROM attribkit_figures WHERE label = ?", (label,))

        self._database.write(clear)

    def write_figures(self, label: str, figures: Sequence[Figure]) -> None:
        values = [(label, *figure) for figure in figures]
        self._database.write(lambda connection: connection.executemany(_INSERT_FIGURE, values) and None)

    def finish_repricing(self, repricing: Repricing) -> None:
        statement = f"INSERT INTO attribkit_repricings VALUES ({', '.join('?' * len(repricing))})"
        self._database.write(lambda connection: connection.execute(statement, repricing) and None)

    def drop_repricing(self, label: str) -> bool:
        def drop(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM attribkit_figures WHERE label = ?", (label,))
            return connection.execute("DELETE FROM attribkit_repricings WHERE label = ?", (label,)).rowcount > 0

        return self._database.write(drop)

    def repricings(self) -> list[Repricing]:
        statement = (
            "SELECT label, reason, created_ns, price_version, since_ns, until_ns, conditions, calls, changed "
            "FROM attribkit_repricings ORDER BY created_ns, label"
        )
        return [Repricing._make(row) for row in self._database.read(_fetched(statement, {}))]

    def _check_figure(self, label: str) -> None:
        known = [repricing.label for repricing in self.repricings()]
        if label not in known:
            raise ConfigurationError(
                f"figure {label!r}: no repricing has this label; there is {', '.join(known) or 'none'}",
                name="figure",
                value=label,
                allowed=known,
            )

    def snapshot(self) -> AbstractContextManager[None]:
        return self._database.snapshot()

    def close(self) -> None:
        self._database.close()


_BATCH, _STREAM = COLUMNS.index("batch"), COLUMNS.index("stream")


@lru_cache(maxsize=64)
def _insert(there: tuple[bool, ...], rows: int) -> str:
    names = list(compress(COLUMNS, there))
    one = f"({', '.join('?' * len(names))})"
    return (
        f"INSERT INTO attribkit_calls ({', '.join(names)}) VALUES {', '.join([one] * rows)} "
        "ON CONFLICT (call_id) DO NOTHING"
    )


def _fetched(statement: str, values: Mapping[str, object]) -> Callable[[sqlite3.Connection], list[tuple[Any, ...]]]:
    return lambda connection: connection.execute(statement, values).fetchall()


def expression(field: str) -> str:
    """Return the SQL of a field. Raises ConfigurationError for a name that no field can have."""
    if field in _CALCULATED:
        return _CALCULATED[field]
    if field in ROW_FIELDS:
        return field
    free = _FREE.fullmatch(field)
    if free is None:
        raise ConfigurationError(
            f"{field!r} cannot be a field: use letters, digits, '_', '.' and '-', at most 64; or one of "
            f"{', '.join((*_CALCULATED, *ROW_FIELDS))}",
            name="by",
            value=field,
            allowed=(*_CALCULATED, *ROW_FIELDS),
        )
    return f"json_extract(dimensions, '$.\"{free[1]}\"')"


def _conditions(question: Question) -> tuple[str, dict[str, object]]:
    parts, values = ["1"], dict[str, object]()
    if question.since_ns is not None:
        parts.append("started_ns >= :since")
        values["since"] = question.since_ns
    if question.until_ns is not None:
        parts.append("started_ns < :until")
        values["until"] = question.until_ns
    for number, (field, wanted) in enumerate(question.where.items()):
        left = f"CAST({expression(field)} AS TEXT)"
        one_of = [wanted] if wanted is None or isinstance(wanted, str) else list(wanted)
        names = []
        for index, value in enumerate(one_of):
            if value is not None:
                names.append(f":where_{number}_{index}")
                values[names[-1][1:]] = value
        either = [f"{left} IN ({', '.join(names)})"] if names else []
        if None in one_of:
            either.append(f"{left} IS NULL")
        parts.append(f"({' OR '.join(either) or '0'})")
    return " AND ".join(parts), values


def _group(row: tuple[Any, ...]) -> Group:
    calls, attempts, cost_high, cost_low, unpriced, estimated, in_high, in_low, out_high, out_low, *rest = row
    list_high, list_low, charged_high, charged_low, *key = rest
    return Group(
        key=tuple(key),
        calls=calls,
        attempts=attempts,
        cost_pico=_whole(cost_high, cost_low),
        unpriced_calls=unpriced,
        estimated_calls=estimated,
        input_tokens=_whole(in_high, in_low),
        output_tokens=_whole(out_high, out_low),
        list_pico=_whole(list_high, list_low),
        charged_pico=_whole(charged_high, charged_low),
    )


def _whole(high: int | None, low: int | None) -> int:
    return (high or 0) * _HALF + (low or 0)
