"""One model call from before the wire to its row: its attempts, its span, its reservation, and how it closes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.calls import CallKind, CallRecord, CallStatus, Hop, LLMCall, Meters, Reply
from attribkit.cost import Cost
from attribkit.errors import AttributionRequired, BudgetExceeded
from attribkit.gateways.base import CallIds, Headers
from attribkit.ids import new_id
from attribkit.late import Late
from attribkit.usage.model import NO_USAGE, Usage

if TYPE_CHECKING:
    from attribkit.pipeline.order import Pipeline
    from attribkit.pipeline.ports import Guard, Route
    from attribkit.sinks import CallSpan, PlainSink, Sink
    from attribkit.usage import read as usages
else:
    usages = Late("attribkit.usage.read")

__all__ = ["Attempt", "Operation", "Target"]

_generation = 0
"""Goes up in a forked child: an operation that was under way in the parent is the parent's to close."""


def _forked() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

T = TypeVar("T")

_new = tuple.__new__
_UNKNOWN = Reply()[4:]
_NO_REPLY = Reply()
_LOOK = 32
"""Chunks after which the size of a stream is looked at, at the earliest."""
_ORDINARY_SPEEDS = (None, "standard")
_PLAIN_USAGE = Usage()[2:]
"""What a usage says beside its counts, when that is nothing."""
_KINDS_KEPT = 4096
_LONGEST_ID = 256
_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "LocalProtocolError"})
_TEXT_KEYS = frozenset({"content", "text", "input", "prompt", "instructions", "arguments", "output", "system"})


class Target(NamedTuple):
    """Where a base URL leads: its gateway, if it is one, and its host."""

    route: Route | None
    host: str


class Attempt:
    """One request on the wire."""

    __slots__ = ("begun", "call_id", "error", "first_chunk_ns", "fresh", "http_status", "number", "shared",
                 "started_ns")  # fmt: skip

    def __init__(
        self, call_id: str, number: int, started_ns: int, begun: int, shared: Headers = (), fresh: Headers = ()
    ) -> None:
        self.call_id = call_id
        self.number = number
        self.started_ns = started_ns
        self.begun = begun
        self.shared = shared
        """The headers that all calls of one attribution have in common."""
        self.fresh = fresh
        """Those that are new for each attempt."""
        self.http_status: int | None = None
        self.error: str | None = None
        self.first_chunk_ns: int | None = None

    @classmethod
    def now(cls, call_id: str) -> Attempt:
        """Return an attempt that starts now and has nothing to set on a request."""
        return cls(call_id, 0, time_ns(), perf_counter_ns())

    @property
    def headers(self) -> Headers:
        """What to set on the request, where the user has not set it."""
        return self.shared + self.fresh


class _Few(Generic[T]):
    """An attribute that few operations have. It stands in `more`; the others have its default, and pay nothing."""

    __slots__ = ("_default", "_name")

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, operation: Operation, owner: type) -> T:
        more = operation.more
        if more is None:
            return self._default
        found: T = more.get(self._name, self._default)
        return found

    def __set__(self, operation: Operation, value: T) -> None:
        if operation.more is None:
            operation.more = {}
        operation.more[self._name] = value


class Operation:
    """One model call, with all its attempts. It closes exactly once: finished, failed, rejected or abandoned."""

    # Slots, all set at once: a default that stands in the class costs ten times as much to read.
    __slots__ = ("__weakref__", "_key", "alike", "attempt", "attribution", "call", "closed", "hop", "more",
                 "operation_id", "pipeline", "span", "target")  # fmt: skip

    body = _Few[dict[str, Any] | None](None)
    """Top-level fields to set in the JSON body, None when it stays as it is."""
    reservation = _Few[Any](None)
    reply_headers = _Few[Mapping[str, str] | None](None)
    """The headers of the reply, where the gateway says something of its own there."""
    later = _Few[str | None](None)
    """Why the reply itself costs nothing: the work goes on after it, and is charged when its end is seen."""
    spent = _Few(False)
    """True where the call was over before a budget could be asked: it is counted all the same."""
    watched = _Few[object](None)
    """A weak reference that the client patch keeps as long as the operation lives."""
    waits = _Few(False)
    """True until `admitted()`: a budget's answer is still to be waited for."""
    _added = _Few[Headers | None](None)
    _seen = _Few[Any](None)

    def __init__(self, pipeline: Pipeline, call: LLMCall, attribution: Attribution, hop: Hop, target: Target) -> None:
        self.pipeline = pipeline
        self.call = call
        self.attribution = attribution
        self.hop: Hop = hop
        self.target = target
        self.operation_id = new_id()
        self.span: CallSpan | None = None
        self.attempt: Attempt | None = None
        self.alike: object = None
        """What requests have in common on which nobody but the SDK sets headers; None where that is not known."""
        self.more: dict[str, Any] | None = None
        """What few calls have: None for a call that has nothing of the kind."""
        self.closed = False
        self._key = [_generation]  # taken by the one that closes the operation

    @property
    def added(self) -> Headers:
        """The headers that are ours on the request under way; one that the user had set is not among them."""
        added, attempt = self._added, self.attempt
        return added if added is not None else () if attempt is None else attempt.headers

    @added.setter
    def added(self, headers: Headers) -> None:
        self._added = headers

    @property
    def hides_usage_chunk(self) -> bool:
        """True when the stream was asked for usage on our account: its last chunk is not for the caller."""
        return self.body is not None and "stream_options" in self.body

    @property
    def unread(self) -> bool:
        """True while no chunk of the stream has been read."""
        return self.attempt is None or self.attempt.first_chunk_ns is None

    def reserved(self, found: Any) -> None:
        """Take what a budget answered: it has to be waited for, or this is what the call holds and what it changes."""
        if found.tier is None and found.model is None:
            self.waits = found.operation_id is None
            if not self.waits:
                self.reservation = found
            return
        self.reservation = found
        if found.tier is not None:
            self.attribution = self.attribution.merged({"tier": found.tier})
        if found.model is not None and self.call.body is not None:
            self.body = {"model": found.model}

    async def admitted(self) -> None:
        """Wait for a budget's answer in a thread; the event loop goes on. Raises BudgetExceeded."""
        guard = self.pipeline.guard
        assert guard is not None
        import asyncio

        future = guard.later(self.call, self.attribution, self.operation_id)
        try:
            found = await asyncio.wrap_future(future)
        except BudgetExceeded as refusal:
            self.reject(refusal)
            raise
        except asyncio.CancelledError as error:
            future.add_done_callback(lambda done: _left(guard, done))
            self.fail(error)
            raise
        except Exception as fault:
            faults.note("budgets.reserve", fault)
            found = None
        self.waits = False
        if found is not None:
            self.reserved(found)
        if self.target.route is not None and self.call.body is not None:
            self.pipeline._shape(self, self.target.route, self.call.body, self.attribution)

    # -- on the way out ------------------------------------------------------------------------------------------------

    def next_attempt(self) -> Attempt:
        """Start one attempt and return the headers it carries. The attempt before it, if any, has failed."""
        call_id, before, span = self.operation_id, self.attempt, self.span
        started_ns, number = time_ns(), 0
        if before is not None:
            number = before.number + 1
            if self.call.api:
                self._write(self._record(before, "error", NO_USAGE, self._cost_of_failure(before)))
            call_id = new_id()
        elif span is None and (spans := self.pipeline.spans) is not None and self.call[2]:
            try:
                span = self.span = spans.start(self.call, self.attribution, started_ns)
            except Exception as error:
                faults.note("telemetry.start", error)
        route = self.target[0]
        shared: Headers = ()
        fresh: Headers = ()
        if route is not None:
            if span is None:
                ids = _new(CallIds, (call_id, self.operation_id, None, None, None))
            else:
                ids = _new(CallIds, (call_id, self.operation_id, span.trace_id, span.span_id, span.traceparent()))
            shared = route.headers(self.attribution)
            try:
                fresh = route.call_headers(ids)
            except Exception as error:
                faults.note(f"gateways.{route.dialect}.call_headers", error)
        self.attempt = attempt = Attempt(call_id, number, started_ns, perf_counter_ns(), shared, fresh)
        return attempt

    def note(self, *, http_status: int | None = None, error: str | None = None) -> None:
        """Remember what is known of the attempt under way, should another one follow."""
        if self.attempt is not None:
            self.attempt.http_status = http_status
            self.attempt.error = error

    # -- on the way back -----------------------------------------------------------------------------------------------

    def streaming(self, seen: Any) -> None:
        """Keep the operation open: `seen()` tells what has been read of its stream so far."""
        self._seen = seen
        with self.pipeline._lock:
            self.pipeline._open.add(self)

    def seen(self) -> Reply:
        """Return what has been read of the stream so far."""
        return self._seen() if self._seen is not None else Reply()

    def first_look(self) -> int:
        """Return how many chunks a stream may have before its size is looked at, 0 where that is never."""
        reservation: Any = self.reservation
        return 0 if reservation is None or reservation.stated else _LOOK

    def looked(self, reply: Reply) -> int:
        """Have more reserved where a stream nears what it has; return at which chunk to look again."""
        reservation: Any = self.reservation
        chunks = max(1, reply.chunks)
        try:
            usage = usages.read_usage(reply.usage, provider=self.call.provider or self.call.client, api=self.call.api)
            made = max(chunks, reply.characters // 4, usage.output_tokens if usage.known else 0)
            covered: int = reservation.output
            if made >= covered * 7 // 8 and self.pipeline.guard is not None:
                covered = self.pipeline.guard.grow(reservation, self.call, made)
            return chunks + max(_LOOK, int(covered * 7 // 8 - made) * chunks // (2 * made))
        except Exception as fault:
            faults.note("budgets.grow", fault)
            return 0

    def first_chunk(self) -> None:
        """Note the moment of the first chunk."""
        attempt = self.attempt
        if attempt is not None and attempt.first_chunk_ns is None:
            attempt.first_chunk_ns = perf_counter_ns() - attempt.begun

    def finish(self, reply: Reply) -> None:
        """Close with a whole reply."""
        if self._close():
            try:
                self._finish(reply)
            except Exception as error:
                faults.note("pipeline.finish", error)

    def finish_with(self, usage: Any, model: str | None, service_tier: str | None, response_id: str | None) -> None:
        """Close with a whole reply of which this alone is known (`Reply` says what each is)."""
        if self._close():
            try:
                sink = self.pipeline._plain
                if sink is None or not self._counted(sink, usage, model, service_tier, response_id):
                    self._finish(_new(Reply, (usage, model, service_tier, response_id, *_UNKNOWN)))
            except Exception as error:
                faults.note("pipeline.finish", error)

    def _finish(self, reply: Reply) -> None:
        usage, sink = None, self.pipeline._plain
        if sink is not None and self.span is None and self.reservation is None and not self.spent:
            usage = self._usage(reply)
            if self._hand_on(sink, reply, usage):
                return
        usage, cost = self._priced(reply, usage=usage)
        self._end("ok", reply, usage, cost)

    # Nearly all calls consume text alone, and nobody needs their cost at once: they are left to a sink that takes the
    # counts with the unit prices, whoever moves its rows multiplies.

    def _counted(
        self, sink: PlainSink, usage: Any, model: str | None, tier: str | None, response_id: str | None
    ) -> bool:
        """Hand a call on of a kind that is known and consumes nothing but text; False for any other."""
        attempt, pipeline = self.attempt, self.pipeline
        if attempt is None or self.span is not None or self.more is not None:
            return False
        if pipeline._listening():
            return False
        kind = pipeline.prices.kinds.get(self._kind_key(model, tier))
        if kind is None or not kind.counts_text or not kind.since <= attempt.started_ns < kind.until:
            return False
        counts = usages.model_counts(usage)
        if counts is None:
            return False
        meters, reasoning, total = counts
        return self._leave(sink, kind, attempt, response_id, meters, reasoning, total)

    def _hand_on(self, sink: PlainSink, reply: Reply, usage: Usage) -> bool:
        """Hand a call on whose cost is counts times unit prices; False for any other call, or when someone needs the
        cost now. A kind of calls is known from its first call here."""
        attempt, pipeline = self.attempt, self.pipeline
        if attempt is None or usage[2:] != _PLAIN_USAGE or reply.http_status is not None or reply.estimated is not None:
            return False
        if self.later is not None or self.reply_headers is not None or attempt.http_status is not None:
            return False
        if pipeline._listening():
            return False
        started, kinds, key = attempt.started_ns, pipeline.prices.kinds, self._kind_key(reply.model, reply.service_tier)
        kind = kinds.get(key)
        if kind is None or not kind.since <= started < kind.until:
            kind = self._kind(reply, usage, attempt)
            if len(kinds) >= _KINDS_KEPT:
                kinds.clear()
            kinds[key] = kind
        meters = usage[0]
        if not dict(meters).keys() <= kind.prices.keys():
            return False
        return self._leave(sink, kind, attempt, reply.response_id, meters, usage[1], usage.input_tokens)

    def _leave(
        self,
        sink: PlainSink,
        kind: CallKind,
        attempt: Attempt,
        response_id: str | None,
        meters: Meters,
        reasoning: int,
        total: int,
    ) -> bool:
        """Leave the products of `meters` and unit prices to `sink`; False where the kind's prices do not hold for so
        many input tokens, or the reply's id is no ordinary one."""
        if kind.most_input is not None and total > kind.most_input:
            return False
        if response_id is not None and len(response_id) > _LONGEST_ID:
            return False
        own = (
            attempt.call_id,
            self.operation_id,
            attempt.number,
            attempt.started_ns,
            perf_counter_ns() - attempt.begun,
            attempt.first_chunk_ns,
            response_id,
            reasoning,
        )
        sink.plain(kind, self.attribution, own, meters)
        return True

    def _kind_key(self, model: str | None, tier: str | None) -> tuple[object, ...]:
        """Return what calls of one kind have in common: the client, its URL, models, tiers, how they are sent."""
        call, asked = self.call, None
        if self.more is not None or (call[6] is not None and call[6].get("service_tier") is not None):
            asked = self._asked_tier()
        return call[:6], call[8:], asked, model, tier, self.hop

    def _kind(self, reply: Reply, usage: Usage, attempt: Attempt) -> CallKind:
        call = self.call
        rate = self.pipeline.prices.rate(
            provider=call.provider or None,
            model=reply.model or call.model,
            api=call.api,
            service_tier=reply.service_tier,
            region=call.region,
            batch=call.batch,
            at=attempt.started_ns,
        )
        record = self._record(attempt, "ok", usage, rate.cost, reply)
        text = rate.prices.keys() >= usages.TEXT_METERS and usages.reads_text(call.provider or call.client, call.api)
        return CallKind(record, rate.prices, rate.since, rate.until, rate.most_input, text)

    def abandon(self, reply: Reply, status: CallStatus = "abandoned", error: str | None = None) -> None:
        """Close a stream that was not read to its end: what it cost is estimated unless usage was seen."""
        if self._close():
            try:
                self._end(status, reply, *self._priced(reply, cut=True), error)
            except Exception as fault:
                faults.note("pipeline.abandon", fault)

    def fail(self, error: BaseException, *, http_status: int | None = None) -> None:
        """Close with the exception that the caller gets."""
        if not self._close():
            return
        try:
            attempt = self.attempt
            if attempt is None:
                attempt = self.attempt = Attempt.now(self.operation_id)
            cancelled = isinstance(error, (KeyboardInterrupt, SystemExit)) or type(error).__name__ == "CancelledError"
            cause = error.__cause__
            attempt.error = type(cause if cause is not None else error).__name__
            attempt.http_status = http_status
            cost = self._cost_of_failure(attempt)
            attempt.error = type(error).__name__
            self._end("cancelled" if cancelled else "error", Reply(http_status=http_status), NO_USAGE, cost)
        except Exception as fault:
            faults.note("pipeline.fail", fault)

    def finish_free(self, reason: str, reply: Reply = _NO_REPLY) -> None:
        """Close a call that cost nothing, for the reason given: nothing went out for it, so it has no span."""
        if self._close():
            try:
                self._end("ok", reply, NO_USAGE, Cost.free(reason))
            except Exception as error:
                faults.note("pipeline.finish_free", error)

    def withdraw(self) -> None:
        """Close without a record: another operation turned out to be this very call."""
        if not self._close():
            return
        pipeline, attribution = self.pipeline, self.attribution
        if any(attribution.get(name) is None for name in pipeline.require):
            pipeline.missing -= 1
        if self.reservation is not None and pipeline.guard is not None:
            try:
                pipeline.guard.release(self.reservation)
            except Exception as fault:
                faults.note("budgets.settle", fault)

    def reject(self, refusal: AttributionRequired | BudgetExceeded) -> None:
        """Close without having sent anything."""
        if not self._close():
            return
        try:
            self.attempt = Attempt.now(self.operation_id)
            if self.pipeline.spans is not None:
                self.span = self.pipeline.spans.start(self.call, self.attribution, self.attempt.started_ns)
            cost = Cost.free("rejected before it was sent")
            self._end("rejected", _NO_REPLY, NO_USAGE, cost, type(refusal).__name__)
        except Exception as fault:
            faults.note("pipeline.reject", fault)

    def __del__(self) -> None:
        if not self.closed and self.attempt is not None and self.call.api:
            self.abandon(self.seen())

    # -- what it says --------------------------------------------------------------------------------------------------

    def _close(self) -> bool:
        """Return True to the one caller that may close the operation."""
        try:
            generation = self._key.pop()  # atomic, and cheaper than a lock
        except IndexError:
            return False
        self.closed = True
        if self.more is not None and self._seen is not None:
            with self.pipeline._lock:
                self.pipeline._open.discard(self)
        return generation == _generation and self.call[2] != ""

    def _cost_of_failure(self, attempt: Attempt) -> Cost:
        status = attempt.http_status
        if status is not None and status >= 400:
            return Cost.free(f"HTTP {status}: nothing was served")
        if attempt.error in _NEVER_SENT:
            return Cost.free("the request never reached the host")
        return Cost.unknown("no reply arrived; the provider may have billed it")

    def _usage(self, reply: Reply) -> Usage:
        call = self.call
        return usages.read_usage(reply.usage, provider=call[1] or call[0], api=call[2])

    def _priced(self, reply: Reply, *, usage: Usage | None = None, cut: bool = False) -> tuple[Usage, Cost]:
        """Return usage and cost. A fault of ours in either leaves the row with an explicit "unpriced"."""
        call = self.call
        if self.later is not None:
            return NO_USAGE, Cost.free(self.later)
        try:
            if usage is None:
                usage = self._usage(reply)
            if not usage.known and cut:
                usage = self._estimate(reply)
            elif reply.estimated is not None:
                usage = usage._replace(estimated=reply.estimated)
            if not usage.known:
                return usage, Cost.unknown(reply.problem or "; ".join(usage.problems) or "the reply states no usage")
            cost = self.pipeline.prices.cost(
                usage,
                provider=call.provider or None,
                model=reply.model or usage.model or call.model,
                api=call.api,
                service_tier=reply.service_tier,
                region=call.region,
                batch=call.batch,
                at=self.attempt.started_ns if self.attempt is not None else None,
                who=self.attribution,
            )
        except Exception as fault:
            faults.note("pricing", fault)
            return usage or NO_USAGE, Cost.unknown(f"a fault of attribkit's own in pricing: {type(fault).__name__}")
        return usage, cost if self.reply_headers is None else self._with_stated(cost, self.reply_headers)

    def _with_stated(self, cost: Cost, headers: Mapping[str, str]) -> Cost:
        """Return `cost` with what the gateway's response headers say that the call cost, if they say it."""
        route = self.target.route
        if route is not None and cost.stated_usd is None:
            text = route.stated_cost(headers)
            if text is not None:
                return cost._replace(stated_usd=Decimal(text))
        return cost

    def _estimate(self, reply: Reply) -> Usage:
        """Return a stated guess for a stream that was cut: a token is taken for four characters, and a chunk for a
        token at least."""
        asked = _characters(self.call.body) // 4
        answered = max(reply.chunks, reply.characters // 4)
        meters = tuple((name, count) for name, count in (("input", asked), ("output", answered)) if count)
        return Usage(
            meters,
            estimated=f"cut after {reply.chunks} chunks: a token for 4 characters of the last, at least 1, for each",
        )

    def _end(
        self,
        status: CallStatus,
        reply: Reply,
        usage: Usage,
        cost: Cost,
        error: str | None = None,
        sinks: tuple[Sink, ...] | None = None,
    ) -> None:
        attempt = self.attempt
        if attempt is None:  # a client that never told of its request: its call is on record all the same
            attempt = self.attempt = Attempt.now(self.operation_id)
        if error is not None:
            attempt.error = error
        if reply.http_status is not None:
            attempt.http_status = reply.http_status
        record = self._record(attempt, status, usage, cost, reply)
        self._write(record, sinks)
        if self.span is not None:
            try:
                self.span.end(record)
            except Exception as fault:
                faults.note("telemetry.end", fault)
        guard = self.pipeline.guard
        if guard is not None and (self.reservation is not None or self.spent):
            try:
                if self.reservation is None:
                    if cost.usd or usage.known:
                        guard.charge(self.call, self.attribution, self.operation_id, cost.usd, usage)
                elif cost.usd is None and not usage.known and status in ("error", "cancelled"):
                    guard.release(self.reservation)
                else:
                    guard.settle(self.reservation, cost.usd, usage, self.call)
            except Exception as fault:
                faults.note("budgets.settle", fault)

    def _record(
        self, attempt: Attempt, status: CallStatus, usage: Usage, cost: Cost, reply: Reply = _NO_REPLY
    ) -> CallRecord:
        call, span, target = self.call, self.span, self.target
        client, provider, api, _, model, stream, body, _, batch, region = call
        usage_model, served_tier = usage.model, reply.service_tier
        route, gateway_id = target.route, None
        asked = None if body is None else self._asked_tier()
        if not provider:
            provider = cost.priced_as.split("/", 1)[0] if cost.priced_as else client
        if self.reply_headers is not None and route is not None:
            gateway_id = route.gateway_request_id(self.reply_headers)
        return _new(
            CallRecord,
            (
                attempt.call_id,
                self.operation_id,
                attempt.number,
                attempt.started_ns,
                perf_counter_ns() - attempt.begun,
                attempt.first_chunk_ns,
                client,
                provider,
                route.dialect if route is not None else None,
                target.host,
                api,
                model,
                reply.model or usage_model,
                asked,
                served_tier or (usage.tier if usage.speed in _ORDINARY_SPEEDS else usage.speed),
                region or usage.region,
                batch,
                stream,
                status,
                attempt.http_status,
                attempt.error,
                reply.response_id,
                gateway_id,
                span.trace_id if span is not None else None,
                span.span_id if span is not None else None,
                usage,
                cost,
                self.attribution,
                self.hop,
            ),
        )

    def _asked_tier(self) -> str | None:
        """Return the service tier that the body asks for as it leaves."""
        asked = None if self.call.body is None else self.call.body.get("service_tier")
        if self.body is not None:
            asked = self.body.get("service_tier", asked)
        return asked if type(asked) is str else None

    def _write(self, record: CallRecord, sinks: tuple[Sink, ...] | None = None) -> None:
        for sink in self.pipeline.sinks if sinks is None else sinks:
            try:
                sink.finished(record)
            except Exception as fault:
                faults.note(f"{type(sink).__name__}.finished", fault)


def _left(guard: Guard, done: Any) -> None:
    """Give back what was reserved for a call whose task was cancelled while it waited."""
    if not done.cancelled() and done.exception() is None and done.result() is not None:
        guard.release(done.result())


def _characters(value: object, *, text: bool = False, depth: int = 0) -> int:
    """Return how many characters of text a request body holds. Only lengths are read."""
    if isinstance(value, str):
        return len(value) if text else 0
    if depth > 12:
        return 0
    if isinstance(value, Mapping):
        return sum(_characters(item, text=key in _TEXT_KEYS, depth=depth + 1) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sum(_characters(item, text=text, depth=depth + 1) for item in value)
    return 0
