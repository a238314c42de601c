"""Instants as people write them: ISO dates, "7d", "today", "month". All in UTC."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from attribkit.errors import ConfigurationError

__all__ = ["instant", "nanoseconds"]

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMS = (
    "an ISO date or time (2026-11-01, 2026-11-01T08:00Z)",
    "30m, 24h, 7d or 2w ago",
    "today",
    "yesterday",
    "month",
    "year",
)


def instant(text: str, *, now: datetime | None = None, name: str = "--since") -> datetime:
    """Return the instant that `text` means: where a day, month or year begins, so many minutes, hours, days or weeks
    ago, or an ISO date or time (without an offset: UTC). Raises ConfigurationError that lists the forms.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    word = text.strip().lower()
    named = {
        "now": now,
        "today": midnight,
        "yesterday": midnight - timedelta(days=1),
        "month": midnight.replace(day=1),
        "year": midnight.replace(month=1, day=1),
    }
    if word in named:
        return named[word]
    try:
        ago = _AGO.fullmatch(word)
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if len(word) == 10:
            return datetime.combine(date.fromisoformat(word), time(), UTC)
        read = datetime.fromisoformat(text.strip())
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{name} {text!r} is no time; write {', '.join(FORMS)}", name=name, value=text, allowed=FORMS
        ) from None


def nanoseconds(when: datetime) -> int:
    """Return `when` in UTC nanoseconds since the epoch, exactly; a naive time is taken as UTC."""
    since = (when.replace(tzinfo=UTC) if when.tzinfo is None else when) - _EPOCH
    return (since // timedelta(microseconds=1)) * 1000
