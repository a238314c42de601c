"""Every exception that attribkit can raise."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

__all__ = [
    "AttribkitError",
    "AttributionRequired",
    "BudgetExceeded",
    "ConfigurationError",
    "LedgerBusy",
    "LedgerError",
    "LedgerUnwritable",
    "PriceDataError",
]


class AttribkitError(Exception):
    """The root of attribkit's own exceptions."""


class ConfigurationError(AttribkitError, ValueError):
    """A setting, argument or file that cannot be used. `name`, `value` and `allowed` say which and what would do."""

    def __init__(self, message: str, *, name: str = "", value: object = None, allowed: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.name, self.value, self.allowed = name, value, tuple(allowed)


class AttributionRequired(AttribkitError):
    """A model call lacked fields that `require=` names, and `on_missing="reject"` is set. It was not sent."""

    def __init__(self, missing: Iterable[str], *, model: str | None = None) -> None:
        self.missing = tuple(missing)
        self.model = model
        names = ", ".join(self.missing)
        super().__init__(
            f"the call to {model or 'the model'} was not sent: no {names} in scope; "
            f"open attribkit.attributed({self.missing[0]}=...) around it or decorate its entrypoint"
        )


class BudgetExceeded(AttribkitError):
    """A call was not sent because a budget has no room for it. Amounts are USD."""

    def __init__(
        self,
        budget: str,
        *,
        limit: Decimal,
        spent: Decimal,
        reserved: Decimal = Decimal(0),
        resets_at: datetime | None = None,
        operation_id: str | None = None,
    ) -> None:
        until = f"; the window ends {resets_at.isoformat()}" if resets_at else ""
        super().__init__(
            f"{budget}: {spent} spent and {reserved} reserved of {limit} USD; the call was not sent{until}"
        )
        self.budget, self.limit, self.spent, self.reserved = budget, limit, spent, reserved
        self.resets_at, self.operation_id = resets_at, operation_id

    def to_dict(self) -> dict[str, Any]:
        """Return an OpenAI-shaped error body for a 402 or 429 answer; money as decimal strings."""
        return {
            "error": {
                "message": str(self),
                "type": "budget_exceeded",
                "code": "budget_exceeded",
                "param": None,
                "budget": self.budget,
                "limit_usd": str(self.limit),
                "spent_usd": str(self.spent),
                "reserved_usd": str(self.reserved),
                "resets_at": self.resets_at.isoformat() if self.resets_at else None,
                "operation_id": self.operation_id,
            }
        }


class LedgerError(AttribkitError):
    """A ledger that cannot be opened, read or understood."""


class LedgerBusy(LedgerError):
    """Another process holds the ledger's lock for longer than the caller wanted to wait. Nothing was changed."""


class LedgerUnwritable(LedgerError):
    """The ledger's disk is full, read-only or failing. Nothing was changed; the same write may succeed later."""


class PriceDataError(AttribkitError):
    """A price catalog or override file that breaks the format; nothing of it is used."""
