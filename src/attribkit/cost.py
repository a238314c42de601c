"""What a call cost, line by line, with where the price came from."""

from decimal import Decimal
from typing import Literal, NamedTuple, Self

__all__ = ["Cost", "CostLine", "CostStatus"]

CostStatus = Literal["priced", "free", "unpriced", "estimated"]


class CostLine(NamedTuple):
    """One meter: quantity x unit price. `unit_price` is USD per one unit (one token, one request, one second)."""

    meter: str
    quantity: int | Decimal
    unit_price: Decimal
    usd: Decimal


class Cost(NamedTuple):
    """An exact cost. `usd` is None exactly when `status` is "unpriced"; "free" is 0 and says why in `reason`."""

    usd: Decimal | None
    status: CostStatus
    lines: tuple[CostLine, ...] = ()
    price_version: str = ""
    """The version of the price catalog, and of the overrides when one applied."""
    reason: str | None = None
    """Why the call is unpriced or free, or how it was estimated."""
    list_usd: Decimal | None = None
    """At list price, before the organisation's overrides; None when unpriced."""
    stated_usd: Decimal | None = None
    """What the gateway or provider said the call cost, kept beside ours."""
    priced_as: str | None = None
    """The catalog row that priced it, as "seller/model"."""
    price_date: str | None = None
    """The ISO date from which that row holds."""
    charged_usd: Decimal | None = None
    """What the tenant is charged: `usd` with the organisation's mark-up. None when no mark-up holds for the call."""
    price_built: str | None = None
    """The ISO date on which the price table was built or fetched."""

    @property
    def price_age_days(self) -> int | None:
        """How many days ago the price table was built; None when no table was asked."""
        from datetime import date

        return (date.today() - date.fromisoformat(self.price_built)).days if self.price_built else None

    @classmethod
    def unknown(cls, reason: str, *, price_version: str = "", stated_usd: Decimal | None = None) -> Self:
        """Return an explicit "unpriced"."""
        return cls(None, "unpriced", (), price_version, reason, None, stated_usd)

    @classmethod
    def free(cls, reason: str, *, price_version: str = "") -> Self:
        """Return an explicit zero."""
        return cls(Decimal(0), "free", (), price_version, reason, Decimal(0))
