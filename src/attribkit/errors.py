"""Every exception that attribkit can raise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

__all__ = [
    "AttribkitError",
    "AttributionRequired",
    "BudgetExceeded",
    "BudgetStoreBusy",
    "BudgetStoreDown",
    "ConfigurationError",
    "LedgerBusy",
    "LedgerError",
    "LedgerUnwritable",
    "PriceDataError",
]


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


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
    """A call was not sent because a budget has no room for it. Amounts are USD, tokens or calls, as `unit` says.

    `limit` includes what was topped up; `spent` and `reserved` are those of all calls together. `key` has the values
    of the fields that a budget is `per`. `http_status` is what a service of yours could answer with: 429 where waiting
    helps (`resets_at`, `retry_after` in seconds), 402 where it does not.
    """

    def __init__(
        self,
        budget: str,
        *,
        limit: Decimal,
        spent: Decimal,
        reserved: Decimal = Decimal(0),
        resets_at: datetime | None = None,
        operation_id: str | None = None,
        unit: str = "usd",
        window: str = "",
        key: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        what = "USD" if unit == "usd" else unit
        until = f"; the window ends {resets_at.isoformat()}" if resets_at else ""
        why = reason or f"{_plain(spent)} spent and {_plain(reserved)} reserved of {_plain(limit)} {what}"
        who = "".join(f" {name}={value}" for name, value in (key or {}).items())
        super().__init__(f"{budget}{who}: {why}; the call was not sent{until}")
        self.budget, self.limit, self.spent, self.reserved = budget, limit, spent, reserved
        self.resets_at, self.operation_id = resets_at, operation_id
        self.unit, self.window, self.key, self.reason = unit, window, dict(key or {}), reason

    @property
    def http_status(self) -> int:
        """429 where the budget has room again by itself, 402 where it needs more money."""
        return 402 if self.window in ("", "total") and self.resets_at is None else 429

    @property
    def retry_after(self) -> int | None:
        """Seconds until the window ends, None when it does not."""
        if self.resets_at is None:
            return None
        return max(0, math.ceil((self.resets_at - datetime.now(UTC)).total_seconds()))

    def to_dict(self) -> dict[str, Any]:
        """Return an OpenAI-shaped error body for a 402 or 429 answer; amounts as decimal strings."""
        suffix = "_usd" if self.unit == "usd" else ""
        return {
            "error": {
                "message": str(self),
                "type": "budget_exceeded",
                "code": "budget_exceeded",
                "param": None,
                "budget": self.budget,
                "key": self.key,
                "unit": self.unit,
                f"limit{suffix}": _plain(self.limit),
                f"spent{suffix}": _plain(self.spent),
                f"reserved{suffix}": _plain(self.reserved),
                "resets_at": self.resets_at.isoformat() if self.resets_at else None,
                "operation_id": self.operation_id,
            }
        }


class BudgetStoreBusy(AttribkitError):
    """Another process has the budget store for longer than the caller can wait. Nothing was changed."""


class BudgetStoreDown(AttribkitError):
    """The budget store does not answer. Whether the last change was made is not known."""


class LedgerError(AttribkitError):
    """A ledger that cannot be opened, read or understood."""


class LedgerBusy(LedgerError):
    """Another process holds the ledger's lock for longer than the caller wanted to wait. Nothing was changed."""


class LedgerUnwritable(LedgerError):
    """The ledger's disk is full, read-only or failing. Nothing was changed; the same write may succeed later."""


class PriceDataError(AttribkitError):
    """A price catalog or override file that breaks the format; nothing of it is used."""
