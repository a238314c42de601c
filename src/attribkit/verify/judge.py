"""Compares what arrived, was traced and was recorded with what a probe expected of its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attribkit.testing import CapturedRequest
from attribkit.verify.lab import MARKER, Expectation
from attribkit.verify.notes import Note

__all__ = ["Column", "Verdict", "by_marker", "judge"]

Who = tuple[str | None, str | None]


class Column(NamedTuple):
    """One place where attribution has to be: how many of the expected requests, spans or rows have it right there."""

    expected: int = 0
    right: int = 0
    leaked: int = 0
    """Named no tenant, or no workflow."""
    wrong: int = 0
    """Named another tenant or workflow."""
    missing: int = 0
    """Were not there at all."""
    extra: int = 0
    """Were there and should not have been: a second row for one request."""

    @property
    def good(self) -> bool:
        """True when everything expected is right, and nothing else is there."""
        return self.right == self.expected and not (self.leaked or self.wrong or self.missing or self.extra)


class Verdict(NamedTuple):
    """What was found of one probe."""

    wire: Column
    span: Column | None
    """None: spans were not looked at."""
    row: Column | None
    """None: the row comes with a result that the probe does not wait for."""
    lost: tuple[str, ...]
    """Headers of the user's own that did not arrive."""


def by_marker(requests: Iterable[CapturedRequest]) -> dict[str, list[CapturedRequest]]:
    """Return the requests by the marker in their body; those without one are of no interest."""
    found: dict[str, list[CapturedRequest]] = {}
    for request in requests:
        marker = MARKER.search(request.body)
        if marker is not None:
            found.setdefault(marker.group().decode(), []).append(request)
    return found


def judge(
    expected: Sequence[Expectation],
    requests: dict[str, list[CapturedRequest]],
    notes: Sequence[Note],
    *,
    spans: bool,
) -> Verdict:
    """Hold a probe's requests, spans and rows against what it expected. `spans` False: there are none to look at."""
    wire = Column()
    answered: list[tuple[Who, str | None]] = []
    refused: list[tuple[Who, str | None]] = []
    lost = []
    for one in expected:
        who: Who = one.tenant_id, one.workflow_id
        arrived = requests.get(one.marker, [])
        wire = wire._replace(
            expected=wire.expected + one.requests,
            missing=wire.missing + max(0, one.requests - len(arrived)),
            extra=wire.extra + max(0, len(arrived) - one.requests),
        )
        for request in arrived:
            told = request.attribution
            wire = _counted(wire, who, (told.get("tenant_id"), told.get("workflow_id")))
            good = request.status is not None and request.status < 400
            (answered if good else refused).append((who, request.response_id))
            sent = {value for _, value in request.headers}
            lost += [text for text in one.keep if not any(text in value for value in sent)]
    if not all(one.recorded for one in expected):
        return Verdict(wire, None, None, tuple(lost))
    rows = _held([note for note in notes if note.kind == "row"], [*answered, *refused], wire.missing)
    for note in notes:
        if note.kind == "cached":  # it need not be there, and may not be anybody else's
            whose: Who = note.tenant_id, note.workflow_id
            mine = [(one.tenant_id, one.workflow_id) for one in expected]
            if whose not in mine:
                rows = rows._replace(leaked=rows.leaked + (whose[0] is None), wrong=rows.wrong + (whose[0] is not None))
    traced = [note for note in notes if note.kind == "span" and (note.response_id or note.status == "ok")]
    # The spans of refused attempts are not asked for: another instrumentor's span covers an operation's retries.
    return Verdict(wire, _held(traced, answered, wire.missing) if spans else None, rows, tuple(lost))


def _counted(column: Column, right: Who, told: Who) -> Column:
    if told == right:
        return column._replace(right=column.right + 1)
    if any(name is not None and name != wanted for name, wanted in zip(told, right, strict=True)):
        return column._replace(wrong=column.wrong + 1)
    return column._replace(leaked=column.leaked + 1)


def _held(notes: Sequence[Note], wanted: Sequence[tuple[Who, str | None]], unsent: int) -> Column:
    """Match notes with requests by response id; what has none (embeddings, refused attempts) by whom it names."""
    column = Column(expected=len(wanted) + unsent, missing=unsent)
    by_id: dict[str, list[Who]] = {}
    rest: Counter[Who] = Counter()
    ids = {response_id for _, response_id in wanted}
    for note in notes:
        who: Who = note.tenant_id, note.workflow_id
        if note.response_id is not None and note.response_id in ids:
            by_id.setdefault(note.response_id, []).append(who)
        else:
            rest[who] += 1
    unmatched: list[Who] = []
    for right, response_id in wanted:
        found = by_id.get(response_id or "")
        if found:
            column = _counted(column, right, found.pop(0))
        elif rest[right]:
            rest[right] -= 1
            column = column._replace(right=column.right + 1)
        else:
            unmatched.append(right)
    for right in unmatched:
        told = next((who for who, count in rest.items() if count), None)
        if told is None:
            column = column._replace(missing=column.missing + 1)
        else:
            rest[told] -= 1
            column = _counted(column, right, told)
    extra = sum(rest.values()) + sum(len(found) for found in by_id.values())
    return column._replace(extra=extra)
