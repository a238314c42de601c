"""What budgets have to say while calls go on: warnings, and what a dry run would have refused."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from attribkit import faults
from attribkit.money import usd_text

__all__ = ["Notice", "told"]

_log = logging.getLogger("attribkit.budgets")


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
            "warn": f"{(self.at or 0) * 100:.0f} % is spent",
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
