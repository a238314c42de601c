"""What a gateway dialect is: pure functions from facts to headers and body fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from attribkit.attribution import Attribution

__all__ = ["CallIds", "Dialect", "Headers"]

Headers = tuple[tuple[str, str], ...]


class CallIds(NamedTuple):
    """What identifies one attempt, for joining the gateway's rows to ours."""

    call_id: str
    operation_id: str
    trace_id: str | None = None
    """32 hex digits."""
    span_id: str | None = None
    """16 hex digits."""
    traceparent: str | None = None


class Dialect(Protocol):
    """How one target is told who a call is for. Every method is pure; header names are lower-case, values are
    printable ASCII and within the target's limits."""

    name: str
    stream_usage: bool
    """True when a chat stream may be asked for usage (`stream_options.include_usage`) at this target."""

    def headers(self, attribution: Attribution) -> Headers:
        """Return the headers that depend on the attribution alone; computed once for each attribution."""

    def call_headers(self, ids: CallIds) -> Headers:
        """Return the headers that are new for each attempt."""

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the top-level fields to set in a JSON body; what the user set in them is kept and merged. {} for none."""

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the top-level body fields that ask for `tier` in the target's own way. {} when headers say it or the
        target knows no such tier; fields that the user set are not in it."""

    def gateway_request_id(self, headers: Mapping[str, str]) -> str | None:
        """Return the gateway's own id of the request from its response headers."""

    def stated_cost(self, headers: Mapping[str, str]) -> str | None:
        """Return the cost in USD that the gateway states in its response headers, as text."""
