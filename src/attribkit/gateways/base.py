"""What a gateway dialect is: pure functions from facts to headers and body fields."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, NamedTuple, Protocol

from attribkit.attribution import WELL_KNOWN, Attribution

__all__ = ["NOTHING", "CallIds", "Dialect", "Headers", "Silent"]

Headers = tuple[tuple[str, str], ...]

NOTHING: Mapping[str, Any] = {}
"""What a dialect returns that has nothing to set in a body. Not to be changed."""


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
    body_apis: frozenset[str]
    """The APIs for which `body()` can have something to say."""
    body_field: str | None
    """The map in the body that it shares with the user, when the target limits its entries."""
    reads_reply: bool
    """True when `gateway_request_id()` or `stated_cost()` can find something."""

    def headers(self, attribution: Attribution) -> Headers:
        """Return the headers that depend on the attribution alone; computed once for each attribution."""

    def call_headers(self, ids: CallIds) -> Headers:
        """Return the headers that are new for each attempt."""

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the top-level fields to set in a JSON body, merged with what the user set in them; {} for none."""

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the top-level body fields that ask for `tier` in the target's own way. {} when headers say it or the
        target knows no such tier; fields that the user set are not in it."""

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Return the fields of `attribution` that the target's limits leave no room for, in headers or, when the user
        has entries of their own in `body`, there."""

    def gateway_request_id(self, headers: Mapping[str, str]) -> str | None:
        """Return the gateway's own id of the request from its response headers."""

    def stated_cost(self, headers: Mapping[str, str]) -> str | None:
        """Return the cost in USD that the gateway states in its response headers, as text that `Decimal` takes."""


class Silent:
    """A dialect that says nothing. Every other one starts here and says what its target reads.

    `order` is which fields go first where not all fit: the well-known ones as `WELL_KNOWN` lists them, then free
    dimensions by name. A field that `order` does not name comes after those it names. `tiers` maps the app's own
    names of tiers to the target's.
    """

    name: ClassVar[str] = "silent"
    stream_usage: bool = True
    body_apis: frozenset[str] = frozenset()
    body_field: str | None = None
    request_id_header: ClassVar[str | None] = None
    """The response header that holds the gateway's own id of the request."""
    echoes: ClassVar[bool] = False
    """True when the id in its response headers is the one that we sent: it is on the row without being read back."""
    cost_header: ClassVar[str | None] = None
    """The response header that holds the gateway's own cost in USD."""

    def __init__(self, *, order: tuple[str, ...] = (), tiers: Mapping[str, str] = NOTHING) -> None:
        self.order = order or WELL_KNOWN
        self.tiers = dict(tiers)
        self.reads_reply = not self.echoes and (self.request_id_header is not None or self.cost_header is not None)

    def headers(self, attribution: Attribution) -> Headers:
        return ()

    def call_headers(self, ids: CallIds) -> Headers:
        return ()

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return NOTHING

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return NOTHING

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return ()

    def gateway_request_id(self, headers: Mapping[str, str]) -> str | None:
        name = self.request_id_header
        return (headers.get(name) or None) if name is not None else None

    def stated_cost(self, headers: Mapping[str, str]) -> str | None:
        name = self.cost_header
        text = headers.get(name) if name is not None else None
        if not text:
            return None
        try:
            usd = Decimal(text)
        except InvalidOperation:
            return None
        return str(usd) if usd.is_finite() and usd >= 0 else None
