"""What a budget is: a limit on the spend of the calls that match it, within a window."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from attribkit.attribution import Attribution
from attribkit.errors import ConfigurationError

__all__ = ["WINDOWS", "Budget"]

WINDOWS = ("minute", "hour", "day", "week", "month", "total")


class Budget:
    """A limit in USD on the calls whose attribution has every field of `match`, in each `window` (UTC).

    Immutable. Raises ConfigurationError for a limit that is no positive amount, or a window that there is not.
    """

    __slots__ = ("limit", "match", "name", "window")
    name: str
    limit: Decimal
    window: str
    match: tuple[tuple[str, str], ...]

    def __init__(
        self, name: str, *, limit: str | int | Decimal, window: str = "month", match: Mapping[str, str] | None = None
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"Budget: name={name!r} must be a text that is not empty", name="name", value=name)
        try:
            amount = Decimal(limit) if not isinstance(limit, float) else None
        except (InvalidOperation, TypeError, ValueError):
            amount = None
        if amount is None or not amount.is_finite() or amount < 0:
            raise ConfigurationError(
                f'Budget {name!r}: limit={limit!r} must be an amount of USD as text, such as "49.00"',
                name="limit",
                value=limit,
            )
        if window not in WINDOWS:
            raise ConfigurationError(
                f"Budget {name!r}: window={window!r} is not one of {', '.join(WINDOWS)}",
                name="window",
                value=window,
                allowed=WINDOWS,
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "limit", amount)
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "match", tuple(sorted((match or {}).items())))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Budget cannot be changed; make another")

    def __repr__(self) -> str:
        return f"Budget({self.name!r}, limit='{self.limit}', window={self.window!r}, match={dict(self.match)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.name, self.limit, self.window, self.match

    def matches(self, attribution: Attribution) -> bool:
        """Return whether a call with `attribution` counts against this budget."""
        return all(attribution.get(key) == value for key, value in self.match)

    def window_at(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Return start and end of the window that `now` is in, both None for "total"."""
        now = now.astimezone(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.window == "minute":
            start = now.replace(second=0, microsecond=0)
            return start, start + timedelta(minutes=1)
        if self.window == "hour":
            start = now.replace(minute=0, second=0, microsecond=0)
            return start, start + timedelta(hours=1)
        if self.window == "day":
            return midnight, midnight + timedelta(days=1)
        if self.window == "week":
            start = midnight - timedelta(days=now.weekday())
            return start, start + timedelta(weeks=1)
        if self.window == "month":
            start = midnight.replace(day=1)
            return start, (start + timedelta(days=32)).replace(day=1)
        return None, None
