"""Windows tile time, in every time zone, around every change of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribkit.budgets.windows import WINDOWS, Window
from attribkit.errors import ConfigurationError

ZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("posix/", "right/")))


def instant(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def told(window: Window, now: float) -> tuple[str, str]:
    start, end = window.span(now)
    assert end is not None
    return datetime.fromtimestamp(start, UTC).isoformat()[:16], datetime.fromtimestamp(end, UTC).isoformat()[:16]


@pytest.mark.parametrize(
    ("kind", "zone", "now", "start", "end"),
    [
        ("minute", "UTC", "2026-11-21T12:34:56", "2026-11-21T12:34", "2026-11-21T12:35"),
        ("hour", "Asia/Kolkata", "2026-11-21T12:34:56", "2026-11-21T12:30", "2026-11-21T13:30"),
        ("day", "UTC", "2026-11-21T00:00:00", "2026-11-21T00:00", "2026-11-22T00:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
        ("day", "Europe/Berlin", "2026-10-25T12:00:00", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
        ("day", "Africa/Cairo", "2026-04-24T12:00:00", "2026-04-23T22:00", "2026-04-24T21:00"),  # no midnight
        ("day", "America/Havana", "2026-11-01T04:30:00", "2026-11-01T04:00", "2026-11-02T05:00"),  # two midnights
        ("day", "America/Havana", "2026-11-01T05:30:00", "2026-11-01T04:00", "2026-11-02T05:00"),
        ("day", "Pacific/Apia", "2011-12-30T09:59:00", "2011-12-29T10:00", "2011-12-30T10:00"),  # the 30th was left out
        ("day", "Pacific/Apia", "2011-12-30T10:00:00", "2011-12-30T10:00", "2011-12-31T10:00"),
        ("week", "UTC", "2026-11-21T12:00:00", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("week", "America/New_York", "2026-11-01T12:00:00", "2026-10-26T04:00", "2026-11-02T05:00"),
        ("month", "UTC", "2028-02-29T23:59:59", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("month", "Pacific/Kiritimati", "2026-12-31T12:00:00", "2026-12-31T10:00", "2027-01-31T10:00"),
    ],
)
def test_edges(kind: str, zone: str, now: str, start: str, end: str) -> None:
    assert told(Window(kind, zone), instant(now)) == (start, end)


@settings(max_examples=200, deadline=None)
@given(zone=st.sampled_from(ZONES), now=st.floats(0, 4_000_000_000), kind=st.sampled_from(("day", "week", "month")))
def test_windows_tile_time_in_every_zone(zone: str, now: float, kind: str) -> None:
    window = Window(kind, zone)
    start, end = window.span(now)
    assert end is not None and start <= now < end
    assert window.span(start) == window.span(end - 1) == (start, end)
    assert window.span(end)[0] == end
    assert window.span(start - 1)[1] == start


def test_the_days_of_a_year_in_every_zone() -> None:
    for zone in ZONES:
        window = Window("day", zone)
        now, days = instant("2026-01-01T12:00:00"), 0
        while now < instant("2027-01-01T12:00:00"):
            start, end = window.span(now)
            assert end is not None and abs(end - start - 86_400) <= 7_200, zone
            now, days = end, days + 1
        assert days in (365, 366), zone


def test_total_and_rolling_have_one_counter() -> None:
    assert Window("total").span(5.0) == Window("rolling 24h").span(5.0) == (0, None)
    rolling = Window("rolling 24h")
    assert (rolling.length, rolling.slice, rolling.slice_of(1441.0)) == (86_400, 1_440, 1_440)
    assert Window("rolling 30s").slice == 1


@pytest.mark.parametrize("kind", ["fortnight", "rolling", "rolling 0h", "rolling 5y", ""])
def test_no_such_window(kind: str) -> None:
    with pytest.raises(ConfigurationError):
        Window(kind)


def test_no_such_zone() -> None:
    with pytest.raises(ConfigurationError, match="Europe/Berlin"):
        Window("day", "Mars/Olympus")
    assert len(WINDOWS) == 6
