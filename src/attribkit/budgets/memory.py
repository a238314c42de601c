"""Budgets counted in one process, from its start."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attribkit.budgets.store import (
    GRAVE,
    Answer,
    Balance,
    Counter,
    Entry,
    Hold,
    Holder,
    Move,
    Row,
    State,
    decide,
    over_since,
)

__all__ = ["MemoryStore"]


class _Counted:
    __slots__ = ("counter", "extra", "lent", "reserved", "slices", "spent")

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.spent = self.reserved = self.extra = self.lent = 0
        self.slices: dict[int, int] = {}


class MemoryStore:
    """A Store that lives and dies with the process."""

    direct = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: dict[str, _Counted] = {}
        self._holds: dict[tuple[str, str], list[int]] = {}
        self._holders: dict[str, Holder] = {}
        self._definitions: dict[str, tuple[dict[str, Any], str]] = {}
        self._entries: list[tuple[str, Entry]] = []
        self._version = 0

    def exchange(self, holder: str, moves: Sequence[Move], now: float, *, wait: bool = True) -> Answer:
        with self._lock:
            rows, before = [], []
            for move in moves:
                counted = self._of(move.counter, now)
                hold = self._holds.setdefault((holder, move.counter.id), [0, 0, 0])
                rows.append(Row(counted.spent, counted.reserved, counted.extra, counted.lent, *hold))
                before.append((counted, hold))
            answer = decide(rows, moves)
            for move, row, (counted, hold) in zip(moves, rows, before, strict=True):
                if move.counter.slice and row.spent > counted.spent:
                    self._sliced(counted, row.spent - counted.spent, now)
                counted.spent, counted.reserved, counted.lent = row.spent, row.reserved, row.lent
                hold[:] = row.held, row.share, row.flushed
                if move.forget:
                    counted.reserved -= row.held
                    counted.lent -= row.share
                    del self._holds[holder, move.counter.id]
            return answer

    def _of(self, counter: Counter, now: float) -> _Counted:
        counted = self._counted.get(counter.id)
        if counted is None:
            counted = self._counted[counter.id] = _Counted(counter)
        if counter.slice and counted.slices:
            for start in [start for start in counted.slices if start + counter.slice + counter.length <= now]:
                counted.spent -= counted.slices.pop(start)
        return counted

    def _sliced(self, counted: _Counted, spent: int, now: float) -> None:
        start = int(now // counted.counter.slice) * counted.counter.slice
        counted.slices[start] = counted.slices.get(start, 0) + spent

    def beat(self, holder: Holder, lease: float, now: float) -> None:
        with self._lock:
            self._holders[holder.id] = holder._replace(expires=now + lease)

    def holders(self, now: float) -> list[tuple[Holder, bool]]:
        with self._lock:
            return [
                (holder, holder.expires <= now)
                for holder in self._holders.values()
                if holder.expires > 0 or any(hold[0] for (who, _), hold in self._holds.items() if who == holder.id)
            ]

    def holds(self, holder: str) -> list[Hold]:
        with self._lock:
            return [Hold(counter, hold[0], hold[2]) for (who, counter), hold in self._holds.items() if who == holder]

    def bury(self, holder: str, settled: Mapping[str, int], now: float, *, forget: bool = False) -> int:
        with self._lock:
            freed = 0
            for who, counter in [key for key in self._holds if key[0] == holder]:
                held, share, flushed = self._holds.pop((who, counter))
                if not forget:
                    self._holds[who, counter] = [0, 0, max(flushed, settled.get(counter, 0))]
                counted = self._of(self._counted[counter].counter, now)
                late = max(0, settled.get(counter, 0) - flushed)
                counted.spent += late
                if late and counted.counter.slice:
                    self._sliced(counted, late, now)
                counted.reserved -= held
                counted.lent -= share
                freed += held > 0
            found = self._holders.pop(holder, None)
            if found is not None and not forget:
                self._holders[holder] = found if found.expires < 0 else found._replace(expires=-now)
            return freed

    def prune(self, now: float) -> int:
        with self._lock:
            alive = {id for id, holder in self._holders.items() if holder.expires > 0}
            used = {counter for (who, counter), hold in self._holds.items() if hold[0] or who in alive}
            over = {id for id, one in self._counted.items() if self._is_over(one, id in used, now)}
            long_dead = {id for id, one in self._holders.items() if one.expires < 0 and -one.expires < now - GRAVE}
            for id in over:
                del self._counted[id]
            for (who, counter), hold in list(self._holds.items()):
                if counter in over or (who in long_dead and not hold[0]):
                    del self._holds[who, counter]
            for id in long_dead - {who for who, _ in self._holds}:
                del self._holders[id]
            return len(over)

    def _is_over(self, one: _Counted, used: bool, now: float) -> bool:
        if one.counter.slice:
            return not (used or one.extra or self._of(one.counter, now).slices)
        return over_since(one.counter) < now

    def version(self) -> int:
        return self._version

    def definitions(self) -> dict[str, tuple[dict[str, Any], str]]:
        with self._lock:
            return dict(self._definitions)

    def define(self, table: Mapping[str, Any], origin: str) -> None:
        with self._lock:
            name = str(table["name"])
            known = self._definitions.get(name)
            if known == (table, origin) or (known is not None and origin == "declared" and known[1] != "declared"):
                return
            self._definitions[name] = dict(table), origin
            self._version += 1

    def top_up(self, counter: Counter, amount: int, note: str, now: float) -> State:
        with self._lock:
            counted = self._of(counter, now)
            counted.extra += amount
            self._entries.append((counter.id, Entry(now, counter.budget, counter.key, amount, note)))
            return State(counted.spent, counted.reserved, counted.extra, counted.lent)

    def statement(self, budget: str, key: str | None = None) -> list[Entry]:
        with self._lock:
            return [one for _, one in self._entries if one.budget == budget and key in (None, one.key)]

    def balances(self, budget: str | None = None) -> Iterator[Balance]:
        with self._lock:
            found = [
                Balance(one.counter, State(one.spent, one.reserved, one.extra, one.lent))
                for one in self._counted.values()
                if budget in (None, one.counter.budget)
            ]
        return iter(found)

    def close(self) -> None:
        pass
