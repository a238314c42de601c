"""What was spent, by whom: exact sums over a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from attribkit.attribution import WELL_KNOWN
from attribkit.errors import ConfigurationError
from attribkit.ledger.base import ROW_FIELDS, Group, LedgerStore, Question, Where
from attribkit.money import from_pico
from attribkit.reports.periods import nanoseconds

__all__ = ["SORTS", "Report", "ReportRow", "Spend", "spend"]

KNOWN_FIELDS = (
    *WELL_KNOWN,
    *("model", "provider", "gateway", "host", "api", "status", "hop", "service_tier", "day", "hour", "month"),
)
"""The fields that are offered to group by; further columns can be too, and any other name is a free dimension."""


class Spend(NamedTuple):
    """What some calls came to. Tokens and money are exact sums."""

    calls: int
    """Distinct operations; retries of one are one."""
    attempts: int
    """Requests on the wire: rows."""
    cost: Decimal
    """USD, of all attempts that have a cost."""
    unpriced_calls: int
    """Calls with an attempt that has no price; what they cost is not in `cost`."""
    estimated_calls: int
    """Calls with an attempt whose cost is an estimate."""
    input_tokens: int
    output_tokens: int
    list_cost: Decimal = Decimal(0)
    """USD at list price, before the organisation's overrides."""
    charged: Decimal = Decimal(0)
    """USD that tenants are charged: the cost with the organisation's mark-up."""


class ReportRow(NamedTuple):
    """One group: the value of each field of `Report.by` (None: not set), and what it came to."""

    key: tuple[str | None, ...]
    spend: Spend


class Report(NamedTuple):
    """Spend by group, over everything that was asked for, and the part that nobody owns."""

    by: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    total: Spend
    """Over all groups, those that `top` left out too."""
    unattributed: Spend
    """The calls without a tenant_id."""
    omitted: int = 0
    """Groups that `top` left out."""
    lost_calls: int = 0
    """Calls in the time range that no disk would take; they are in no other figure."""
    figure: str | None = None
    """The label of the repricing whose costs these are; None for the original ones."""

    @property
    def unattributed_share_of_cost(self) -> float | None:
        """0 to 1; None when nothing was spent."""
        return _share(self.unattributed.cost, self.total.cost)

    @property
    def unattributed_share_of_calls(self) -> float | None:
        """0 to 1; None when there are no calls."""
        return _share(self.unattributed.calls, self.total.calls)

    @property
    def unpriced_share_of_calls(self) -> float | None:
        """0 to 1; None when there are no calls."""
        return _share(self.total.unpriced_calls, self.total.calls)


SORTS: dict[str, Callable[[Spend], Decimal | int]] = {
    "cost": lambda spend: spend.cost,
    "calls": lambda spend: spend.calls,
    "attempts": lambda spend: spend.attempts,
    "unpriced": lambda spend: spend.unpriced_calls,
    "input_tokens": lambda spend: spend.input_tokens,
    "output_tokens": lambda spend: spend.output_tokens,
    "tokens": lambda spend: spend.input_tokens + spend.output_tokens,
    "charged": lambda spend: spend.charged,
}
"""Largest first; "name" sorts by the group fields instead."""


def spend(
    store: LedgerStore,
    *,
    by: Sequence[str] = ("tenant_id",),
    since: datetime | None = None,
    until: datetime | None = None,
    where: Where | None = None,
    top: int | None = None,
    sort: str = "cost",
    figure: str | None = None,
) -> Report:
    """Return spend by the fields `by`, from one state of the ledger.

    A field is any of `KNOWN_FIELDS` or a free dimension; times of day are UTC. `since` is included, `until` is not;
    a time without an offset is UTC. `where` keeps the calls whose field has the value, or one of the values; None is
    "not set". `figure` is the label of a repricing whose costs are taken. `top`
    keeps the first groups; the total is over all. Raises ConfigurationError for a name or a number
    that cannot be used, and for a dimension that no call in the ledger has.
    """
    by, where = tuple(by), dict(where or {})
    _check(by, top, sort)
    question = Question(
        by, None if since is None else nanoseconds(since), None if until is None else nanoseconds(until), where, figure
    )
    with store.snapshot():
        total = _spend(*store.query(question._replace(by=())))
        groups = store.query(question) if by and total.attempts else []
        _check_dimensions(store, question, groups)
        unattributed = _spend(*store.query(question._replace(by=(), where=_without_tenant(where))))
        losses = store.losses(since_ns=question.since_ns, until_ns=question.until_ns)
    rows = [ReportRow(group.key, _spend(group)) for group in groups]
    rows.sort(key=lambda row: [(value is None, value or "") for value in row.key])
    if sort != "name":
        rows.sort(key=lambda row: SORTS[sort](row.spend), reverse=True)
    kept = rows if top is None else rows[:top]
    lost = sum(loss.calls for loss in losses)
    return Report(by, tuple(kept), total, unattributed, len(rows) - len(kept), lost, figure)


def _spend(group: Group) -> Spend:
    return Spend(
        calls=group.calls,
        attempts=group.attempts,
        cost=from_pico(group.cost_pico),
        unpriced_calls=group.unpriced_calls,
        estimated_calls=group.estimated_calls,
        input_tokens=group.input_tokens,
        output_tokens=group.output_tokens,
        list_cost=from_pico(group.list_pico),
        charged=from_pico(group.charged_pico),
    )


def _share(part: Decimal | int, whole: Decimal | int) -> float | None:
    return float(part / whole) if whole else None


def _without_tenant(where: Mapping[str, str | Sequence[str | None] | None]) -> Where:
    asked = where.get("tenant_id", None)
    if "tenant_id" not in where or asked is None or (not isinstance(asked, str) and None in asked):
        return {**where, "tenant_id": None}
    return {**where, "tenant_id": ()}  # only named tenants were asked for


def _check(by: tuple[str, ...], top: int | None, sort: str) -> None:
    if top is not None and top < 1:
        raise ConfigurationError(f"top {top}: it is the number of groups to show, at least 1", name="top", value=top)
    if sort not in SORTS and sort != "name":
        allowed = (*SORTS, "name")
        raise ConfigurationError(
            f"sort {sort!r}: sort by one of {', '.join(allowed)}", name="sort", value=sort, allowed=allowed
        )
    for field in by:
        if by.count(field) > 1:
            raise ConfigurationError(f"by {field!r} is named twice", name="by", value=field)


def _check_dimensions(store: LedgerStore, question: Question, groups: list[Group]) -> None:
    """Refuse a field that no call has: it is a slip of the pen, and the report would be one empty group."""
    for index, field in enumerate(question.by):
        if (
            field in KNOWN_FIELDS
            or field in ROW_FIELDS
            or not groups
            or any(group.key[index] is not None for group in groups)
        ):
            continue
        anywhere = store.query(Question(by=(field,)))
        if all(group.key[0] is None for group in anywhere):
            import difflib

            near = difflib.get_close_matches(field, KNOWN_FIELDS, 1)
            hint = (
                f"did you mean {near[0]}?" if near else f"fields are {', '.join(KNOWN_FIELDS)} and what your app sets"
            )
            raise ConfigurationError(
                f"by {field!r}: no call in the ledger has it; {hint}", name="by", value=field, allowed=KNOWN_FIELDS
            )
