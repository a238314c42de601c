"""The stretches of time in which a budget counts: calendar windows in any time zone, and rolling ones."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from attribkit.errors import ConfigurationError

__all__ = ["WINDOWS", "Window", "zone_of"]

WINDOWS = ("minute", "hour", "day", "week", "month", "total")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_ROLLING = re.compile(r"rolling (\d{1,5})([smhdw])")
_SLICES = 60
_DAY = timedelta(days=1)


@lru_cache(maxsize=256)
def zone_of(name: str) -> tzinfo:
    """Return the time zone of an IANA name. Raises ConfigurationError for one that this machine does not know."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except Exception:
        raise ConfigurationError(
            f"timezone={name!r} is not known here; give an IANA name such as Europe/Berlin, or install tzdata",
            name="timezone",
            value=name,
        ) from None


class Window:
    """One kind of window: `minute`, `hour`, `day`, `week` (from Monday), `month`, `total`, or `rolling 24h`.

    Every instant is in exactly one window of a kind. Days, weeks and months begin at the first instant of their first
    local day, whatever daylight saving does around it: such a day has 23 or 25 hours. A rolling window moves in steps
    of a sixtieth of its length, at least a second; what was spent counts until the whole step has left it.
    """

    __slots__ = ("kind", "length", "slice", "zone")

    def __init__(self, kind: str, timezone: str = "UTC") -> None:
        rolling = _ROLLING.fullmatch(kind)
        if rolling is None and kind not in WINDOWS:
            raise ConfigurationError(
                f"window={kind!r} is not one of {', '.join(WINDOWS)}, or rolling with a length, such as 'rolling 24h'",
                name="window",
                value=kind,
                allowed=(*WINDOWS, "rolling 24h"),
            )
        self.kind = kind
        self.length = int(rolling[1]) * _SECONDS[rolling[2]] if rolling else 0
        if rolling and not self.length:
            raise ConfigurationError(f"window={kind!r} has no length", name="window", value=kind)
        self.slice = max(1, self.length // _SLICES) if rolling else 0
        """Seconds of one step of a rolling window, 0 for the others."""
        self.zone = zone_of(timezone)

    def span(self, now: float) -> tuple[int, int | None]:
        """Return start and end, in seconds since the epoch, of the window that `now` is in.

        A total window is (0, None). A rolling one starts at 0 too: it is one counter, and its end, the moment at which
        the oldest of what is counted now may leave, is not known here.
        """
        kind = self.kind
        if kind == "total" or self.slice:
            return 0, None
        if kind in ("minute", "hour"):
            step = 60 if kind == "minute" else 3600
            offset = self._offset(now)
            start = int((now + offset) // step) * step - offset
            return start, start + step
        today = datetime.fromtimestamp(now, self.zone).date()
        for day in (today, today - _DAY, today + _DAY):
            first, following = self._days(day)
            start, end = self._midnight(first), self._midnight(following)
            if start <= now < end:
                return start, end
        raise AssertionError((now, kind))  # midnights rise, and one of three neighbouring days holds any instant

    def slice_of(self, now: float) -> int:
        """Return the start of the step of a rolling window that `now` is in."""
        return int(now // self.slice) * self.slice

    def _offset(self, now: float) -> int:
        offset = datetime.fromtimestamp(now, self.zone).utcoffset() if self.zone is not UTC else None
        return int(offset.total_seconds()) if offset is not None else 0

    def _days(self, day: date) -> tuple[date, date]:
        if self.kind == "day":
            return day, day + _DAY
        if self.kind == "week":
            monday = day - timedelta(days=day.weekday())
            return monday, monday + timedelta(weeks=1)
        first = day.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)

    def _midnight(self, day: date) -> int:
        """Return the instant at which `day` begins: its midnight, the first of two, or where there is none the end of
        the gap it fell into."""
        wall = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        late, early = wall.timestamp(), wall.replace(fold=1).timestamp()
        if early >= late:
            return int(late)
        low, high = int(early) - 1, int(late)  # the clock was put forward over midnight: the change is in between
        before = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == before else (low, middle)
        return high
