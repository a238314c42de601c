"""Prices that change with the hour: which card holds at an instant, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["DAY", "window_at"]

DAY = 86_400 * 10**9
_MINUTE = 60 * 10**9


def window_at(schedule: Mapping[str, Any], ns: int) -> tuple[bool, int, int]:
    """Return whether `ns` (since the epoch, UTC) lies inside the schedule's hours, and the span for which that holds.

    `schedule` has `utc`: pairs of "HH:MM"; an end before its start runs past midnight. With `working_days` true the
    hours hold from Monday to Friday only, without `holidays` and with `working_weekends`, counted in the local days
    of `utc_offset_hours`.
    """
    midnight = ns - ns % DAY
    edges = {midnight - DAY, midnight + 2 * DAY}
    inside = False
    windows = []
    for start, end in schedule["utc"]:
        first, last = _minutes(start) * _MINUTE, _minutes(end) * _MINUTE
        if last <= first:
            last += DAY
        for day in (midnight - DAY, midnight, midnight + DAY):
            windows.append((day + first, day + last))
    local = 3_600 * 10**9 * int(schedule.get("utc_offset_hours", 0))
    if schedule.get("working_days"):
        # a local midnight is an edge too: the same hour counts on Friday and not on Saturday
        first_local = (midnight + local) // DAY * DAY - local
        edges.update(first_local + n * DAY for n in (-1, 0, 1, 2))
    for start, end in windows:
        edges.update((start, end))
        if start <= ns < end and (not schedule.get("working_days") or _works(schedule, ns + local)):
            inside = True
    since = max(edge for edge in edges if edge <= ns)
    until = min(edge for edge in edges if edge > ns)
    return inside, since, until


def _works(schedule: Mapping[str, Any], local_ns: int) -> bool:
    from datetime import date

    day = date.fromordinal(date(1970, 1, 1).toordinal() + local_ns // DAY)
    text = day.isoformat()
    if text in schedule.get("working_weekends", ()):
        return True
    return day.weekday() < 5 and text not in schedule.get("holidays", ())


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
