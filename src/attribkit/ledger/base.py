"""What a ledger holds and answers: its row, the questions it is asked, and the protocol that every store keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.money import from_pico

__all__ = [
    "COLUMNS",
    "ROW_FIELDS",
    "Figure",
    "Group",
    "LedgerRow",
    "LedgerStore",
    "Loss",
    "Question",
    "Repricing",
    "Where",
]


class LedgerRow(NamedTuple):
    """One attempt on the wire, as it stands in a ledger. Its fields are the columns of every store, in this order.

    Times are UTC nanoseconds, money is whole pico-dollars (1e-12 USD), JSON columns are JSON text. None is "not
    stated" everywhere: a call without a tenant has `tenant_id` None, an unpriced one `cost_pico` None.
    """

    call_id: str
    operation_id: str
    attempt: int
    started_ns: int
    duration_ns: int | None
    first_chunk_ns: int | None
    client: str
    provider: str
    gateway: str | None
    host: str
    api: str
    requested_model: str | None
    served_model: str | None
    requested_tier: str | None
    served_tier: str | None
    region: str | None
    batch: bool
    stream: bool
    status: str
    http_status: int | None
    error: str | None
    response_id: str | None
    gateway_request_id: str | None
    trace_id: str | None
    span_id: str | None
    hop: str
    """How the attribution arrived: inherited, carried, adopted, restored, extracted, none."""
    tenant_id: str | None
    workflow: str | None
    workflow_id: str | None
    feature: str | None
    environment: str | None
    team: str | None
    cost_center: str | None
    user_id: str | None
    session_id: str | None
    agent: str | None
    tier: str | None
    """The tier that the attribution asks for; what was served is `served_tier`."""
    dimensions: str | None
    """JSON object of the free dimensions."""
    input_tokens: int | None
    """All input tokens, cached ones included. None: not stated, or too many for 64 bits (`meters` has them)."""
    output_tokens: int | None
    """All output tokens, reasoning included."""
    cache_read_tokens: int | None
    """A part of `input_tokens`, of any modality; the cache writes are parts of it too."""
    cache_write_5m_tokens: int | None
    cache_write_1h_tokens: int | None
    reasoning_tokens: int | None
    """A part of `output_tokens`."""
    meters: str | None
    """JSON object of every meter; whole quantities up to 64 bits are numbers, others decimal text."""
    usage_estimated: str | None
    """How the quantities were estimated, None when the provider stated them."""
    usage_problems: str | None
    """JSON array of what was impossible in the payload."""
    cost_pico: int | None
    list_pico: int | None
    """At list price, before the organisation's overrides."""
    stated_pico: int | None
    """What the gateway or provider said the call cost."""
    cost_status: str
    """priced, free, unpriced, estimated."""
    cost_reason: str | None
    price_version: str
    priced_as: str | None
    """The catalog row that priced the call, as seller/model."""
    price_date: str | None
    cost_lines: str
    """JSON array of [meter, quantity, USD per unit, USD], amounts as decimal text."""
    charged_pico: int | None
    """What the tenant is charged: the cost with the organisation's mark-up; the cost itself where none holds."""

    @property
    def usd(self) -> Decimal | None:
        """The exact cost in USD, None when unpriced."""
        return None if self.cost_pico is None else from_pico(self.cost_pico)

    @property
    def model(self) -> str | None:
        """The model that served the call, the requested one when the reply named none."""
        return self.served_model if self.served_model is not None else self.requested_model

    @property
    def attribution(self) -> Attribution:
        """Who the call was for."""
        fields: dict[str, object] = {name: getattr(self, name) for name in WELL_KNOWN}
        return Attribution.of({**fields, **(json.loads(self.dimensions) if self.dimensions else {})})

    def as_dict(self) -> dict[str, Any]:
        """Return the row with its JSON columns parsed."""
        row = self._asdict()
        for name in _JSON:
            if row[name] is not None:
                row[name] = json.loads(row[name])
        return row


_JSON = ("dimensions", "meters", "usage_problems", "cost_lines")
COLUMNS: tuple[str, ...] = LedgerRow._fields
ROW_FIELDS = (
    *WELL_KNOWN,
    *("provider", "gateway", "host", "api", "client", "region", "status", "http_status", "error", "hop"),
    *("requested_model", "served_model", "requested_tier", "served_tier"),
    *("cost_status", "cost_reason", "price_version", "priced_as", "price_date", "usage_estimated"),
    *("operation_id", "call_id", "trace_id", "response_id", "gateway_request_id"),
)
"""Columns that a question can group by or ask for."""

Where = Mapping[str, str | Sequence[str | None] | None]
"""Field to the value it must have, or to several of which it must have one. None is "not set"."""


class Question(NamedTuple):
    """Which rows are added up, and by what.

    Fields, in `by` and `where`: any well-known attribution field, any free dimension (`dimensions.NAME` where a name
    means something else here), `model` (served, else requested), `service_tier` (the same), `day`, `hour` and
    `month` of the start (UTC), and `ROW_FIELDS`.
    """

    by: tuple[str, ...] = ()
    since_ns: int | None = None
    """Calls that started at or after this."""
    until_ns: int | None = None
    """Calls that started before this."""
    where: Where = MappingProxyType({})
    figure: str | None = None
    """The label of a repricing: its costs are added up, the original ones for rows that it left as they are. Fields
    in `by` and `where` stay those of the original rows."""


class Repricing(NamedTuple):
    """One labelled figure over the ledger: what calls would have cost, or did cost after all, by other prices."""

    label: str
    reason: str
    created_ns: int
    price_version: str
    """The newest catalog and overrides that were used."""
    since_ns: int | None
    until_ns: int | None
    where: str
    """JSON object of the conditions that chose the calls."""
    calls: int
    """Rows that were priced again."""
    changed: int
    """Rows whose cost, charge or state is another one; only they have a figure of their own."""


class Figure(NamedTuple):
    """What one row costs under a label. The row itself keeps what it says."""

    call_id: str
    cost_pico: int | None
    list_pico: int | None
    charged_pico: int | None
    cost_status: str
    cost_reason: str | None
    price_version: str
    priced_as: str | None
    price_date: str | None
    cost_lines: str


class Group(NamedTuple):
    """One group of rows added up, exactly. A question without `by` has one group with the key ()."""

    key: tuple[str | None, ...]
    calls: int
    """Distinct operations; retries of one are one."""
    attempts: int
    """Rows."""
    cost_pico: int
    """Of the rows that have a cost; beyond 64 bits if need be."""
    unpriced_calls: int
    """Operations with an attempt that has no price."""
    estimated_calls: int
    """Operations with an attempt whose cost is an estimate."""
    input_tokens: int
    output_tokens: int
    list_pico: int = 0
    """At list price, of the rows that have one."""
    charged_pico: int = 0
    """What tenants are charged, of the rows that have a cost."""


class Loss(NamedTuple):
    """Calls that could not be kept: neither the spool nor the store could be written for too long."""

    loss_id: str
    since_ns: int
    until_ns: int
    calls: int
    process: str
    """Host name and process id."""


class LedgerStore(Protocol):
    """Where rows end up. Safe for many processes, and for the threads of one."""

    def write(self, rows: Sequence[LedgerRow]) -> int:
        """Keep all of `rows` or none, and return how many were new: a row whose call_id is there changes nothing.

        Raises LedgerBusy and LedgerUnwritable when the store is locked or full; the same write may succeed later.
        """

    def write_losses(self, losses: Sequence[Loss]) -> None:
        """Keep what a process reports as lost; a loss that is there changes nothing."""

    def query(self, question: Question) -> list[Group]:
        """Return the groups, in no order. Raises ConfigurationError for a field that no row can have."""

    def records(self, question: Question = ...) -> Iterator[LedgerRow]:
        """Yield rows in the order of their call_ids (nearly that of time), page by page; `by` plays no part."""

    def losses(self, *, since_ns: int | None = None, until_ns: int | None = None) -> list[Loss]:
        """Return the losses that touch the time range."""

    def begin_repricing(self, label: str) -> None:
        """Make room for the figures of `label`, throwing away those of an earlier run that did not end.

        Raises ConfigurationError when a finished repricing has the label.
        """

    def write_figures(self, label: str, figures: Sequence[Figure]) -> None:
        """Keep figures; no question sees them before `finish_repricing`."""

    def finish_repricing(self, repricing: Repricing) -> None:
        """Make the figures of a label visible, all at once."""

    def drop_repricing(self, label: str) -> bool:
        """Forget a label and its figures; False when there is none."""

    def repricings(self) -> list[Repricing]:
        """Return the finished repricings, oldest first."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Make all reads inside see one state of the store."""

    def close(self) -> None:
        """Let go of connections and files."""
