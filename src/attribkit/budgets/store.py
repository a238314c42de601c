"""Where budgets are counted: the protocol that every store keeps, and the one decision that those in Python share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

__all__ = [
    "GRAVE",
    "Answer",
    "Balance",
    "Counter",
    "Entry",
    "Hold",
    "Holder",
    "Move",
    "Row",
    "State",
    "Store",
    "decide",
]


GRAVE = 86_400
"""Seconds for which a store remembers what a dead process had told it, so that nothing of it counts twice."""


class Counter(NamedTuple):
    """What is counted: one budget, for one combination of its `per` fields, in one window."""

    id: str
    budget: str
    key: str
    """JSON object of the `per` fields, {} when there are none."""
    window: str
    unit: str
    start: int
    """Seconds since the epoch; 0 for total and rolling windows."""
    end: int | None
    slice: int = 0
    """Seconds of a step of a rolling window, else 0."""
    length: int = 0
    """Seconds of a rolling window, else 0."""


def counter_id(budget: str, key: Mapping[str, str], *, window: str, timezone: str, unit: str, start: int) -> str:
    """Return the id of a counter: the same in every process, another when unit, window or zone are changed."""
    return json.dumps([budget, dict(key), window, timezone, unit, start], separators=(",", ":"), sort_keys=True)


def over_since(counter: Counter) -> float:
    """Return when a counter may be forgotten: two of its windows and two days after the end of its own."""
    return float("inf") if counter.end is None else 3 * counter.end - 2 * counter.start + 172_800


class Holder(NamedTuple):
    """A process that holds something."""

    id: str
    host: str
    """Name and boot of the machine, so that a process id means something."""
    pid: int
    born: str
    """When the process started, in the words of its system; empty when unknown."""
    expires: float = 0.0
    """Seconds since the epoch, by the store's clock where it has one."""


class Move(NamedTuple):
    """What one process wants of one counter. Amounts are whole units and not negative."""

    counter: Counter
    limit: int
    """-1: it only counts."""
    settled: int
    """All that this holder has ever spent here: the store adds what it has not seen yet, so a repeat adds nothing."""
    back: int = 0
    """Given back of what is held."""
    lent_back: int = 0
    """How much of that was a local share."""
    take: int = 0
    """To be held: all moves of an exchange get theirs, or none does."""
    share: int = 0
    """To be held on top, for calls to come, when the counter is far from its limit."""
    far: int = 0
    """What must be left beyond take and share for that."""
    forget: bool = False
    """This holder holds nothing here any more, and its `settled` begins at 0 again."""


class State(NamedTuple):
    """A counter as it stands."""

    spent: int
    reserved: int
    extra: int
    """Topped up."""
    lent: int
    """Part of what is reserved: local shares of processes, of which some may be idle."""


class Answer(NamedTuple):
    """What came of an exchange."""

    refused: int
    """The move that found no room, -1 when all got what they asked for."""
    states: tuple[State, ...]
    shares: tuple[int, ...]


class Hold(NamedTuple):
    """What one holder has in one counter."""

    counter: str
    held: int
    flushed: int


class Entry(NamedTuple):
    """One line of a statement."""

    at: float
    budget: str
    key: str
    amount: int
    note: str


class Balance(NamedTuple):
    """One counter with its state."""

    counter: Counter
    state: State


class Store(Protocol):
    """Counts for many processes. Raises BudgetStoreBusy where waiting helps, BudgetStoreDown where it does not."""

    direct: bool
    """True: an exchange takes microseconds, so it may be made on an event loop with `wait=False`."""

    def exchange(self, holder: str, moves: Sequence[Move], now: float, *, wait: bool = True) -> Answer:
        """Give back and spend what is said, then take from every counter or from none."""

    def beat(self, holder: Holder, lease: float, now: float) -> None:
        """Say that `holder` lives; `lease` seconds without a beat and another may bury it."""

    def holders(self, now: float) -> list[tuple[Holder, bool]]:
        """Return all holders that are not buried, and of each whether its lease has ended. A buried one that holds
        something, because an exchange of its own arrived late, is among them."""

    def holds(self, holder: str) -> list[Hold]:
        """Return what a holder has."""

    def bury(self, holder: str, settled: Mapping[str, int], now: float, *, forget: bool = False) -> int:
        """Give back all that a dead holder held, after adding what it had `settled` (by counter id) and not told.

        What it had told stays known for a day: burying it again, or an exchange of its own that arrives late, adds
        nothing twice. With `forget` nothing stays; that is for a holder that ends itself. Returns how many counters it
        held something in.
        """

    def prune(self, now: float) -> int:
        """Forget counters whose windows are long over, and the long dead; return how many counters."""

    def version(self) -> int:
        """Return a number that changes when a definition does."""

    def definitions(self) -> dict[str, tuple[dict[str, Any], str]]:
        """Return the budgets by name: table, and where it comes from ("declared", "set" or "removed")."""

    def define(self, table: Mapping[str, Any], origin: str) -> None:
        """Keep a budget's table. One that is declared does not replace one that was set."""

    def top_up(self, counter: Counter, amount: int, note: str, now: float) -> State:
        """Raise the limit of one counter by `amount`."""

    def statement(self, budget: str, key: str | None = None) -> list[Entry]:
        """Return the top-ups of a budget, oldest first."""

    def balances(self, budget: str | None = None) -> Iterator[Balance]:
        """Yield the counters, those of one budget or all, as they stand."""

    def close(self) -> None:
        """Let go of connections."""


_made = tuple.__new__


class Row:
    """What a store in Python knows of one counter and of what this holder has in it, within one exchange."""

    __slots__ = ("extra", "flushed", "held", "lent", "reserved", "share", "spent")

    def __init__(
        self, spent: int, reserved: int, extra: int, lent: int, held: int = 0, share: int = 0, flushed: int = 0
    ) -> None:
        self.spent, self.reserved, self.extra, self.lent = spent, reserved, extra, lent
        self.held, self.share, self.flushed = held, share, flushed


def decide(rows: Sequence[Row], moves: Sequence[Move]) -> Answer:
    """Change `rows` as `moves` ask, and say what came of it. This is the law that every store keeps."""
    refused = -1
    for place, row in enumerate(rows):
        _, limit, settled, back, lent_back, take, _, _, _ = moves[place]
        if settled > row.flushed:
            row.spent += settled - row.flushed
            row.flushed = settled
        if back:
            back = min(back, row.held)
            row.held -= back
            row.reserved -= back
        if lent_back:
            lent_back = min(lent_back, row.share)
            row.share -= lent_back
            row.lent -= lent_back
        if take and refused < 0 and 0 <= limit < row.spent + row.reserved + take - row.extra:
            refused = place
    states, shares = [], []
    for place, row in enumerate(rows):
        share = 0
        if refused < 0:
            _, limit, _, _, _, take, wanted, far, _ = moves[place]
            if take:
                row.held += take
                row.reserved += take
                if wanted and row.spent + row.reserved + wanted + far <= limit + row.extra:
                    share = wanted
                    row.held += share
                    row.reserved += share
                    row.share += share
                    row.lent += share
        # Not State(...): a NamedTuple's own constructor takes five times as long, and this is done for every call.
        states.append(_made(State, (row.spent, row.reserved, row.extra, row.lent)))
        shares.append(share)
    return _made(Answer, (refused, tuple(states), tuple(shares)))
