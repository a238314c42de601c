"""The ledger: one exactly priced row for each model call, safe before the call returns."""

from __future__ import annotations

from attribkit.ledger.base import COLUMNS, Group, LedgerRow, LedgerStore, Loss, Question
from attribkit.ledger.open import open_ledger

__all__ = ["COLUMNS", "Group", "LedgerRow", "LedgerStore", "Loss", "Question", "open_ledger"]
