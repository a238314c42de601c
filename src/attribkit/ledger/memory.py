"""A ledger that lives and dies with its process: for tests, and for a look without a file."""

from __future__ import annotations

from attribkit.calls import CallRecord
from attribkit.ledger.base import LedgerRow
from attribkit.ledger.reading import row_of
from attribkit.ledger.sqlite import SqliteLedger

__all__ = ["MemoryLedger"]


class MemoryLedger(SqliteLedger):
    """A store in memory that is a sink too: a call is in it when `finished` returns. It grows with each call."""

    def __init__(self) -> None:
        super().__init__(None)
        self.calls: list[CallRecord] = []
        """What was taken, in order."""

    def finished(self, record: CallRecord) -> None:
        self.calls.append(record)
        self.write([row_of(record)])

    def rows(self) -> list[LedgerRow]:
        """Return all rows in the order of their call_ids."""
        return list(self.records())

    def flush(self, timeout: float | None = None) -> bool:
        """Return True: nothing ever waits."""
        return True
