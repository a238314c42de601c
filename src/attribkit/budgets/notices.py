"""What budgets have to say while calls go on: warnings, refusals, and what a dry run would have refused."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from attribkit import faults
from attribkit.budgets.policy import amount_of
from attribkit.errors import BudgetExceeded
from attribkit.money import usd_text

if TYPE_CHECKING:
    from attribkit.budgets.reservations import Local
    from attribkit.budgets.store import State

__all__ = ["Notice", "Teller", "refusal", "told"]

_log = logging.getLogger("attribkit.budgets")
_TOLD = 1000
"""Models of which it is remembered that they were told."""


class Notice(NamedTuple):
    """Something that happened to one counter of a budget. Amounts are USD, tokens or calls, as `unit` says."""

    kind: str
    """warn, would_reject, unpriced, overrun, store_down."""
    budget: str
    key: dict[str, str]
    """The `per` fields with their values."""
    window: str
    unit: str
    limit: Decimal
    spent: Decimal
    at: Decimal | None = None
    """The threshold that was passed, as a share of the limit."""
    detail: str = ""

    def __str__(self) -> str:
        who = "".join(f" {name}={value}" for name, value in self.key.items())
        what = {
            "warn": f"{usd_text((self.at or Decimal(0)) * 100)} % is spent",
            "would_reject": "a call would have been refused (dry run)",
            "unpriced": "a call without a price was let go",
            "overrun": "calls outgrow what they have reserved",
            "store_down": "the store does not answer",
        }[self.kind]
        more = f"; {self.detail}" if self.detail else ""
        return f"budget {self.budget}{who}: {what}, {usd_text(self.spent)} of {usd_text(self.limit)} {self.unit}{more}"

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values; amounts as decimal text."""
        facts = self._asdict()
        for name in ("limit", "spent", "at"):
            facts[name] = None if facts[name] is None else usd_text(facts[name])
        return facts


def refusal(
    local: Local, operation_id: str, state: State | None = None, *, reason: str | None = None
) -> BudgetExceeded:
    """Return what a call is told that a counter has no room for; `state` is how the store has it."""
    limit = local.limit
    unit, end = limit.budget.unit, limit.counter.end
    spent, reserved, extra = state[:3] if state is not None else (local.spent, local.reserved, local.extra)
    return BudgetExceeded(
        limit.budget.name,
        limit=amount_of(max(limit.amount, 0) + extra, unit),
        spent=amount_of(spent, unit),
        reserved=amount_of(reserved, unit),
        resets_at=datetime.fromtimestamp(end, UTC) if end is not None else None,
        operation_id=operation_id or None,
        unit=unit,
        window=limit.counter.window,
        key=json.loads(limit.counter.key),
        reason=reason,
    )


class Teller:
    """Says of the counters of one process what there is to say, once for each window and threshold.

    `also` is given every notice besides the log.
    """

    def __init__(self, also: Callable[[Notice], Any] | None) -> None:
        self._also = also
        self._told: set[str] = set()

    def passed(self, local: Local, notices: list[tuple[Any, ...]]) -> None:
        """Put the thresholds that the spend has passed since the last look into `notices`. Under the account's lock."""
        thresholds = local.limit.budget.thresholds
        limit = local.limit.rung.limit + local.extra
        if local.outgrown and not local.overran and local.spent + local.owed > limit:
            local.overran = True
            notices.append((local, None))
        while local.warned < len(thresholds):
            one = thresholds[local.warned]
            if not limit or Decimal(local.spent + local.owed) / limit < one.at:
                return
            local.warned += 1
            if one.action == "warn":
                notices.append((local, one))

    def say(self, notices: Sequence[tuple[Any, ...]]) -> None:
        """Tell what `passed` has found."""
        for local, one in notices:
            if one is None:
                self.tell("overrun", local)
                continue
            told(_notice("warn", local, at=one.at), webhook=one.webhook, call=one.call, also=self._also)

    def dry(self, asked: Sequence[tuple[Local, int]]) -> None:
        """Tell of which dry runs the limit would have refused what was asked."""
        for local, amount in asked:
            limit = local.limit
            if limit.amount < 0 and amount and local.spent + local.reserved > limit.rung.limit + local.extra:
                self.tell("would_reject", local)

    def unpriced(self, local: Local, model: str | None) -> None:
        """Tell once of each model that a budget lets go without a price."""
        what = f"{local.limit.budget.name} {model}"
        if what not in self._told:
            if len(self._told) < _TOLD:
                self._told.add(what)
            self.tell("unpriced", local, detail=f"model {model}")

    def tell(self, kind: str, local: Local, *, detail: str = "") -> None:
        """Tell one thing of one counter."""
        told(_notice(kind, local, detail=detail), also=self._also)

    def down(self, error: Exception) -> None:
        """Tell once that the store does not answer."""
        if "store" not in self._told:
            self._told.add("store")
            _log.warning(
                "the budget store does not answer (%s); calls are let go or refused as each budget says",
                type(error.__cause__ or error).__name__,
            )


def _notice(kind: str, local: Local, *, at: Decimal | None = None, detail: str = "") -> Notice:
    limit = local.limit
    unit = limit.budget.unit
    whole, spent = limit.rung.limit + local.extra, local.spent + local.owed
    return Notice(
        kind,
        limit.budget.name,
        json.loads(limit.counter.key),
        limit.counter.window,
        unit,
        amount_of(whole, unit),
        amount_of(spent, unit),
        at,
        detail,
    )


def told(
    notice: Notice, *, webhook: str | None = None, call: Callable[[Notice], Any] | None = None, also: Any = None
) -> None:
    """Log a notice, put it on the span in force (`also`), hand it to `call`, and post it to `webhook` in a thread."""
    try:
        _log.warning("%s", notice)
        if also is not None:
            also(notice)
        if call is not None:
            call(notice)
    except Exception as fault:
        faults.note("budgets.notice", fault)
    if webhook is not None:
        threading.Thread(target=_post, args=(webhook, notice), name="attribkit-webhook", daemon=True).start()


def _post(url: str, notice: Notice) -> None:
    from urllib.request import Request, urlopen

    body = json.dumps(notice.as_dict()).encode()
    try:
        with urlopen(Request(url, body, {"content-type": "application/json"}), timeout=10):
            pass
    except Exception as error:
        _log.warning("budget webhook %s: %s", url.partition("?")[0], type(error).__name__)
