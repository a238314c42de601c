"""The ledger: one exactly priced row for each model call, safe before the call returns."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Load what is asked for: `instrument()` writes calls down, and needs nothing of what a ledger answers."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'open' if name == 'open_ledger' else 'base'}"), name)
