"""The ledger: one exactly priced row for each model call, safe before the call returns."""

from __future__ import annotations

from attribkit.ledger.base import COLUMNS, Figure, Group, LedgerRow, LedgerStore, Loss, Question, Repricing
from attribkit.ledger.open import open_ledger

__all__ = [
    "COLUMNS",
    "Figure",
    "Group",
    "LedgerRow",
    "LedgerStore",
    "Loss",
    "Question",
    "Repricing",
    "open_ledger",
]
