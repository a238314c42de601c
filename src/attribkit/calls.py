"""A model call: as it is about to leave (LLMCall), and what happened (CallRecord)."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from attribkit.attribution import Attribution
from attribkit.cost import Cost
from attribkit.usage.model import Usage

__all__ = ["CallKind", "CallRecord", "CallStatus", "Hop", "LLMCall", "Meters", "Own", "Reply"]

CallStatus = Literal["ok", "error", "cancelled", "abandoned", "rejected"]
Hop = Literal["inherited", "carried", "adopted", "restored", "extracted", "none"]


class LLMCall(NamedTuple):
    """A model call that is about to leave, as its client knows it. Lives as long as the call; holds no prompt text
    beyond `body`, which is the client's own object and is never stored."""

    client: str
    """The SDK: openai, anthropic, ..."""
    provider: str
    """Who makes the model, in the words of the price engine: openai, azure, anthropic, gemini, ..."""
    api: str
    """chat, responses, embeddings, images, speech, transcriptions, messages, ..."""
    url: str
    """The client's base URL, or the whole URL."""
    model: str | None
    stream: bool = False
    body: Mapping[str, Any] | None = None
    """The JSON body, for dialects that say things there; None when there is none."""
    headers: Mapping[str, str] | None = None
    """Headers that the user set, lower-case names; None when unknown."""
    batch: bool = False
    region: str | None = None


class Reply(NamedTuple):
    """What came back, reduced to facts: no content."""

    usage: Any = None
    """The usage object as it came: JSON, or the SDK's model of it."""
    model: str | None = None
    service_tier: str | None = None
    response_id: str | None = None
    http_status: int | None = None
    chunks: int = 0
    """Events of a stream that were read."""
    characters: int = 0
    """Characters of output text that were read, for an estimate when the stream was cut."""
    problem: str | None = None
    """What was wrong with the reply (not JSON, empty), when something was."""
    estimated: str | None = None
    """How `usage` was completed, where the provider had stated only a part of it when the stream was cut."""


class CallRecord(NamedTuple):
    """One attempt on the wire: what happened and what it cost. Times are UTC nanoseconds since the epoch."""

    call_id: str
    operation_id: str
    attempt: int
    """Retry depth: 0 for the first attempt."""
    started_ns: int
    duration_ns: int | None
    first_chunk_ns: int | None
    """Nanoseconds from start to the first chunk of a stream."""
    client: str
    provider: str
    gateway: str | None
    """The dialect of the gateway, None when the call went to a host that is not one."""
    host: str
    api: str
    requested_model: str | None
    served_model: str | None
    requested_tier: str | None
    served_tier: str | None
    region: str | None
    batch: bool
    stream: bool
    status: CallStatus
    http_status: int | None
    error: str | None
    """The exception's class name, or a short reason; never its message, which can hold content."""
    response_id: str | None
    gateway_request_id: str | None
    trace_id: str | None
    span_id: str | None
    usage: Usage
    cost: Cost
    attribution: Attribution
    hop: Hop

    @property
    def usd(self) -> Decimal | None:
        """The cost in USD, None when unpriced."""
        return self.cost.usd


class CallKind:
    """What many calls have in common whose cost is counts of tokens times unit prices."""

    __slots__ = ("counts_text", "most_input", "prices", "record", "since", "text", "until")

    def __init__(
        self,
        record: CallRecord,
        prices: Mapping[str, Decimal],
        since: int,
        until: int,
        most_input: int | None,
        counts_text: bool,
    ) -> None:
        self.record = record
        """One of the calls; what it has of its own (ids, times, counts, amounts, attribution) says nothing here."""
        self.prices = prices
        """Meter -> USD per token. Empty where a cost is more than such products."""
        self.since, self.until = since, until
        """The prices hold for calls that start from one instant to before the other, in UTC nanoseconds."""
        self.most_input = most_input
        """The prices hold for at most so many input tokens; None: for any number."""
        self.counts_text = counts_text
        """True where usage is stated as in Chat Completions, and every meter of text has a price."""
        self.text: object = None
        """What the one sink that takes plain calls writes for the kind."""


Own = tuple[str, str, int, int, int, int | None, str | None, int]
"""What a plain call has of its own: call id, operation id, retry depth, start, duration, time to the first chunk (as in
CallRecord), the id of the response, reasoning tokens."""
Meters = tuple[tuple[str, int | Decimal], ...]
