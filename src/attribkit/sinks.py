"""Who is told of a call: the protocols that the pipeline speaks and that ledger, telemetry and budgets keep."""

from __future__ import annotations

from typing import Protocol

from attribkit.attribution import Attribution
from attribkit.calls import CallKind, CallRecord, LLMCall, Meters, Own

__all__ = ["CallSpan", "JobRegister", "PlainSink", "Sink", "SpanSource"]


class Sink(Protocol):
    """Takes finished attempts. Must not block for longer than a system call, and must not raise for its own faults."""

    def finished(self, record: CallRecord) -> None:
        """Take one attempt; when this returns, the record is safe as far as this sink promises."""


class PlainSink(Sink, Protocol):
    """A sink that needs no cost at once."""

    def plain(self, kind: CallKind, attribution: Attribution, own: Own, meters: Meters) -> None:
        """Take one call before its cost is worked out: as safe as what `finished` takes, and worth the same later."""


class JobRegister(Protocol):
    """What processes that share a ledger tell each other of jobs that outlive the request that created them.

    A sink that has one offers it as `jobs`, and takes the record of one charge from every process as one row; metrics
    and budgets count it where the claim was given. On PostgreSQL a claim is an INSERT ... ON CONFLICT DO NOTHING.
    """

    def claim(self, charge: str) -> bool:
        """Return True once for each `charge`, whichever process asks first."""

    def remember(self, job: str, creator: str) -> None:
        """Keep a line of text about who created `job`."""

    def creator(self, job: str) -> str | None:
        """Return what was kept of `job`, None for nothing."""


class CallSpan(Protocol):
    """The span of one operation, whoever opened it."""

    trace_id: str | None
    span_id: str | None

    def traceparent(self) -> str | None:
        """Return the W3C traceparent of this span, None when nothing records it."""

    def end(self, record: CallRecord) -> None:
        """Close the span with the operation's last attempt."""


class SpanSource(Protocol):
    """Opens the span of an operation, or finds the one that another instrumentor has opened for it."""

    def start(self, call: LLMCall, attribution: Attribution, started_ns: int) -> CallSpan | None:
        """Return the span to report on, None when nothing records."""
