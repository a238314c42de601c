"""The one order of a call: require, tier, reserve, headers, span, [wire], usage, cost, record, sinks, settle."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from decimal import Decimal
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.calls import CallKind, CallRecord, CallStatus, Hop, LLMCall, PlainCall, Reply
from attribkit.cost import Cost
from attribkit.errors import AttributionRequired, BudgetExceeded
from attribkit.gateways.base import CallIds, Headers
from attribkit.ids import new_id
from attribkit.sinks import CallSpan, JobRegister, PlainSink, Sink, SpanSource
from attribkit.usage.model import NO_USAGE, Usage
from attribkit.usage.read import read_usage

__all__ = ["Attempt", "Operation", "Pipeline", "Prices", "Route", "Target"]

_generation = 0
"""Goes up in a forked child: an operation that was under way in the parent is the parent's to close."""


def _forked() -> None:
    global _generation
    _generation += 1


if TYPE_CHECKING:
    from concurrent.futures import Future

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

_MAX_TARGETS = 1024
_new = tuple.__new__
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


class Route(Protocol):
    """What the pipeline asks of a gateway that matched."""

    dialect: str
    host: str
    stream_usage: bool
    body_apis: frozenset[str]
    reads_reply: bool

    def headers(self, attribution: Attribution) -> Headers: ...
    def sent(self, attribution: Attribution) -> Attribution: ...
    def call_headers(self, ids: CallIds) -> Headers: ...
    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]: ...
    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]: ...
    def gateway_request_id(self, headers: Mapping[str, str]) -> str | None: ...
    def stated_cost(self, headers: Mapping[str, str]) -> str | None: ...


class Matcher(Protocol):
    def match(self, url: str) -> Route | None: ...


class Rate(Protocol):
    """What `pricing.engine.Rate` says."""

    @property
    def prices(self) -> Mapping[str, Decimal]: ...
    @property
    def since(self) -> int: ...
    @property
    def until(self) -> int: ...
    @property
    def most_input(self) -> int | None: ...
    @property
    def cost(self) -> Cost: ...


class Prices(Protocol):
    kinds: dict[Any, CallKind]
    """What the pipeline has found of kinds of calls; another dict when the prices are others."""

    def rate(
        self,
        *,
        provider: str | None,
        model: str | None,
        api: str | None = None,
        service_tier: str | None = None,
        region: str | None = None,
        batch: bool = False,
        at: int,
    ) -> Rate: ...

    def cost(
        self,
        usage: Usage,
        *,
        provider: str | None,
        model: str | None,
        api: str | None = None,
        service_tier: str | None = None,
        region: str | None = None,
        batch: bool = False,
        at: int | None = None,
        who: Attribution | None = None,
    ) -> Cost: ...


class Guard(Protocol):
    """What the pipeline asks of budgets. `reserve` raises BudgetExceeded; with `wait=False` it answers WAIT where it
    would block, and the call is asked for `later`, in another thread."""

    def reserve(self, call: LLMCall, attribution: Attribution, operation_id: str, *, wait: bool = True) -> Any: ...
    def settle(
        self, reservation: Any, usd: Decimal | None, usage: Usage = ..., call: LLMCall | None = None
    ) -> None: ...
    def charge(
        self, call: LLMCall, attribution: Attribution, operation_id: str, usd: Decimal | None, usage: Usage = ...
    ) -> None: ...
    def grow(self, reservation: Any, call: LLMCall, made: int) -> int: ...
    def release(self, reservation: Any) -> None: ...
    def later(self, call: LLMCall, attribution: Attribution, operation_id: str) -> Future[Any]: ...


class Tiers(Protocol):
    """Returns the attribution with the tier that the policy picks for it."""

    def applied(self, attribution: Attribution, model: str | None = None, *, wait: bool = True) -> Attribution: ...


class Target(NamedTuple):
    """Where a base URL leads: its gateway, if it is one, and its host."""

    route: Route | None
    host: str


class Pipeline:
    """Takes model calls from client patches through the one order. Knows no library, no database and no ContextVar."""

    def __init__(
        self,
        *,
        gateways: Matcher,
        prices: Prices,
        spans: SpanSource | None = None,
        sinks: tuple[Sink, ...] = (),
        guard: Guard | None = None,
        tiers: Tiers | None = None,
        require: tuple[str, ...] = (),
        on_missing: Literal["record", "reject"] = "record",
    ) -> None:
        self.gateways = gateways
        self.prices = prices
        self.spans = spans
        self.sinks = sinks
        self._plain, self._listening = _takers(sinks)
        """The one sink, if it needs no cost at once, and what tells whether others that do would look at the call."""
        self._keepers = tuple(sink for sink in sinks if getattr(sink, "jobs", None) is not None)
        self.jobs: JobRegister | None = self._keepers[0].jobs if self._keepers else None  # type: ignore[attr-defined]
        """Where processes that share a ledger tell each other of jobs, None where they share none."""
        self.guard = guard
        self.tiers = tiers
        self.require = require
        self.on_missing = on_missing
        self.missing = 0
        """Calls that lacked a required field."""
        self.begun: Callable[[], None] | None = None
        """Told of each model call that begins, before it is held against anything: a framework's patch asks by it
        whether a client's own patch has seen the call."""
        self._permits = bool(require) or guard is not None
        self._targets: dict[str, Target] = {}
        self._tier: tuple[Attribution | None, str | None] = None, None
        """The latest attribution and the tier it asks for: calls of one scope come in a row."""
        self._open: weakref.WeakSet[Operation] = weakref.WeakSet()
        self._lock = threading.RLock()  # a garbage collection inside it may close another operation

    def target(self, url: str) -> Target:
        """Return where `url` leads; remembered for each base URL."""
        found = self._targets.get(url)
        if found is None:
            route = self.gateways.match(url)
            found = Target(route, route.host if route is not None else urlsplit(url).hostname or "")
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[url] = found
        return found

    def begin(self, call: LLMCall, attribution: Attribution, hop: Hop, wait: bool = True) -> Operation:
        """Start an operation: all that is decided before the wire.

        Raises AttributionRequired (with `on_missing="reject"`) and BudgetExceeded; both are recorded as rejected.
        With `wait=False` nothing blocks: where a budget's answer has to be waited for, the operation `waits`, and its
        caller awaits `admitted()` before anything else.
        """
        if self.tiers is not None:
            attribution = self.tiers.applied(attribution, call.model, wait=wait)
        operation = Operation(self, call, attribution, hop, self._targets.get(call[3]) or self.target(call.url))
        if not call[2]:
            return operation
        if self.begun is not None:
            self.begun()
        if self._permits:
            self._permit(operation, wait)
            if operation.waits:
                return operation
            attribution = operation.attribution
        if operation.target[0] is not None and call[6] is not None:
            self._shape(operation, operation.target[0], call[6], attribution)
        return operation

    def served(self, call: LLMCall, attribution: Attribution, hop: Hop) -> Operation:
        """Return the operation of a call that has been made already: it is counted, and nothing can refuse it."""
        if self.tiers is not None:
            attribution = self.tiers.applied(attribution, call.model, wait=False)
        operation = Operation(self, call, attribution, hop, self.target(call.url))
        if self.begun is not None:
            self.begun()
        operation.spent = True
        return operation

    def _shape(self, operation: Operation, route: Route, body: Mapping[str, Any], attribution: Attribution) -> None:
        """Find what the body has to say."""
        call = operation.call
        last = self._tier
        if last[0] is attribution:
            tier = last[1]
        else:
            tier = attribution.get("tier")
            self._tier = attribution, tier
        if tier is not None or call.stream or call.api in route.body_apis:
            changes = self._body(route, call, body, attribution, tier)
            if changes is not None:
                operation.body = changes if operation.body is None else {**changes, **operation.body}

    def _permit(self, operation: Operation, wait: bool) -> None:
        """Hold a call against what it must carry and what may be spent. Raises, with the call recorded as rejected."""
        call, attribution = operation.call, operation.attribution
        missing = [name for name in self.require if attribution.get(name) is None]
        if missing:
            self.missing += 1
            if self.on_missing == "reject":
                lacking = AttributionRequired(missing, model=call.model)
                operation.reject(lacking)
                raise lacking
        if self.guard is not None:
            try:
                found = self.guard.reserve(call, attribution, operation.operation_id, wait=wait)
            except BudgetExceeded as refusal:
                operation.reject(refusal)
                raise
            except Exception as fault:  # of ours: the call goes on as if there were no budgets
                faults.note("budgets.reserve", fault)
                return
            if found is not None:
                operation.reserved(found)

    def _body(
        self, route: Route, call: LLMCall, body: Mapping[str, Any], attribution: Attribution, tier: str | None
    ) -> dict[str, Any] | None:
        """Return the fields to set in the body: attribution and tier where the dialect says them there."""
        changes = dict(route.body(attribution, call.api, body))
        if tier is not None:
            changes.update(route.tier(tier, call.api, body))
        if call.stream and call.api == "chat" and route.stream_usage:
            options = body.get("stream_options")
            if not isinstance(options, Mapping) or options.get("include_usage") is None:
                changes["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
        return changes or None

    def charge(
        self,
        call: LLMCall,
        attribution: Attribution,
        hop: Hop,
        reply: Reply,
        *,
        call_id: str,
        operation_id: str,
        started_ns: int,
        duration_ns: int | None = None,
        status: CallStatus = "ok",
        error: str | None = None,
        later: str | None = None,
        counted: bool | None = None,
    ) -> None:
        """Write the row of work whose end was seen apart from the request that started it.

        `call_id` says which work it is: the same work has the same one in every process, so that it is charged once.
        There is no span. Metrics and budgets count what it cost in the process that claims it first, or that `counted`
        says has. `later` is why it costs nothing, where it does.
        """
        if counted is None:
            counted = self.claim(call_id)
        operation = Operation(self, call, attribution, hop, self.target(call.url))
        operation.operation_id, operation.later, operation.spent = operation_id, later, counted
        begun = perf_counter_ns() - (duration_ns or 0)
        operation.attempt = Attempt(call_id, 0, started_ns, begun, ())
        operation._attempts = 1
        if not operation._close():
            return
        try:
            usage, cost = operation._priced(reply)
            operation._end(status, reply, usage, cost, error, self.sinks if counted else self._keepers)
        except Exception as fault:
            faults.note("pipeline.charge", fault)

    def claim(self, charge: str) -> bool:
        """Return True in the one process that is to count a charge beside the ledger."""
        try:
            return self.jobs is None or self.jobs.claim(charge)
        except Exception as fault:
            faults.note("pipeline.claim", fault)
            return True

    def open_operations(self) -> tuple[Operation, ...]:
        """Return the streams that are still under way."""
        with self._lock:
            return tuple(self._open)

    def close(self) -> None:
        """End every stream that is still under way as abandoned, so that its row is written."""
        for operation in self.open_operations():
            operation.abandon(operation.seen())


class Attempt:
    """One request on the wire."""

    __slots__ = ("begun", "call_id", "error", "first_chunk_ns", "headers", "http_status", "number", "started_ns")

    def __init__(self, call_id: str, number: int, started_ns: int, begun: int, headers: Headers) -> None:
        self.call_id = call_id
        self.number = number
        self.started_ns = started_ns
        self.begun = begun
        self.headers = headers
        """What to set on the request, where the user has not set it."""
        self.http_status: int | None = None
        self.error: str | None = None
        self.first_chunk_ns: int | None = None


class Operation:
    """One model call, with all its attempts. It closes exactly once: finished, failed, rejected or abandoned."""

    # Slots, all set at once: a default that stands in the class costs ten times as much to read.
    __slots__ = ("__weakref__", "_attempts", "_generation", "_key", "_seen", "added", "attempt", "attribution", "body",
                 "call", "closed", "hop", "later", "operation_id", "pipeline", "reply_headers", "reservation", "span",
                 "spent", "target", "waits", "watched")  # fmt: skip

    def __init__(self, pipeline: Pipeline, call: LLMCall, attribution: Attribution, hop: Hop, target: Target) -> None:
        self.pipeline = pipeline
        self.call = call
        self.attribution = attribution
        self.hop: Hop = hop
        self.target = target
        self.operation_id = new_id()
        self.body: dict[str, Any] | None = None
        """Top-level fields to set in the JSON body, None when it stays as it is."""
        self.reservation: object | None = None
        self.span: CallSpan | None = None
        self.attempt: Attempt | None = None
        self.added: Headers = ()
        """The headers that are ours on the request under way; one that the user had set is not among them."""
        self.reply_headers: Mapping[str, str] | None = None
        """The headers of the reply, where the gateway says something of its own there."""
        self.later: str | None = None
        """Why the reply itself costs nothing: the work goes on after it, and is charged when its end is seen."""
        self.spent = False
        """True where the call was over before a budget could be asked: it is counted all the same."""
        self.watched: object | None = None
        """A weak reference that the client patch keeps as long as the operation lives."""
        self.closed = False
        self.waits = False
        """True until `admitted()`: a budget's answer is still to be waited for."""
        self._attempts = 0
        self._seen: Any = None
        self._generation = _generation
        self._key = [None]  # taken by the one that closes the operation

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
        number, before = self._attempts, self.attempt
        self._attempts = number + 1
        if number:
            assert before is not None
            if self.call.api:
                self._write(self._record(before, "error", NO_USAGE, self._cost_of_failure(before)))
            call_id = new_id()
        else:
            call_id = self.operation_id
        started_ns = time_ns()
        span = self.span
        if span is None and number == 0 and self.call.api and self.pipeline.spans is not None:
            try:
                span = self.span = self.pipeline.spans.start(self.call, self.attribution, started_ns)
            except Exception as error:
                faults.note("telemetry.start", error)
        route = self.target.route
        headers: Headers = ()
        if route is not None:
            if span is None:
                ids = _new(CallIds, (call_id, self.operation_id, None, None, None))
            else:
                ids = _new(CallIds, (call_id, self.operation_id, span.trace_id, span.span_id, span.traceparent()))
            headers = route.headers(self.attribution) + route.call_headers(ids)
        attempt = self.attempt = Attempt(call_id, number, started_ns, perf_counter_ns(), headers)
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
            usage = read_usage(reply.usage, provider=self.call.provider or self.call.client, api=self.call.api)
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
                usage = None
                sink = self.pipeline._plain
                if sink is not None and self.span is None and self.reservation is None and not self.spent:
                    usage = self._usage(reply)
                    if self._hand_on(sink, reply, usage):
                        return
                usage, cost = self._priced(reply, usage=usage)
                self._end("ok", reply, usage, cost)
            except Exception as error:
                faults.note("pipeline.finish", error)

    def _hand_on(self, sink: PlainSink, reply: Reply, usage: Usage) -> bool:
        """Give a call whose cost is counts times unit prices to `sink`, which leaves the products to whoever moves its
        rows; False for any other call, or when someone needs the cost now."""
        attempt, pipeline = self.attempt, self.pipeline
        client, provider, api, _, asked_model, stream, body, _, batch, region = self.call
        _, model, tier, response_id, status, _, _, _, estimated = reply
        if attempt is None or usage[2:] != _PLAIN_USAGE or status is not None or estimated is not None:
            return False
        if self.later is not None or self.reply_headers is not None or attempt.http_status is not None:
            return False
        if response_id is not None and len(response_id) > _LONGEST_ID:
            return False
        for listening in pipeline._listening:
            if listening():
                return False
        asked = body.get("service_tier") if body is not None else None
        if asked is not None or self.body is not None:
            asked = self._asked_tier()
        started, kinds = attempt.started_ns, pipeline.prices.kinds
        key = client, provider, api, asked_model, stream, batch, region, self.target, asked, model, tier, self.hop
        kind = kinds.get(key)
        if kind is None or not kind.since <= started < kind.until:
            kind = self._kind(reply, usage, attempt)
            if len(kinds) >= _KINDS_KEPT:
                kinds.clear()
            kinds[key] = kind
        prices, meters = kind.prices, usage[0]
        for meter, _ in meters:
            if meter not in prices:
                return False
        if kind.most_input is not None and usage.input_tokens > kind.most_input:
            return False
        own = (
            attempt.call_id,
            self.operation_id,
            attempt.number,
            started,
            perf_counter_ns() - attempt.begun,
            attempt.first_chunk_ns,
            response_id,
            usage[1],
        )
        sink.plain(_new(PlainCall, (kind, self.attribution, own, meters)))
        return True

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
        return CallKind(record, rate.prices, rate.since, rate.until, rate.most_input)

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
                attempt = self.attempt = Attempt(self.operation_id, 0, time_ns(), perf_counter_ns(), ())
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
            self.attempt = Attempt(self.operation_id, 0, time_ns(), perf_counter_ns(), ())
            if self.pipeline.spans is not None:
                self.span = self.pipeline.spans.start(self.call, self.attribution, self.attempt.started_ns)
            cost = Cost.free("rejected before it was sent")
            self._end("rejected", _NO_REPLY, NO_USAGE, cost, type(refusal).__name__)
        except Exception as fault:
            faults.note("pipeline.reject", fault)

    def __del__(self) -> None:
        if not self.closed and self._attempts and self.call.api:
            self.abandon(self.seen())

    # -- what it says --------------------------------------------------------------------------------------------------

    def _close(self) -> bool:
        """Return True to the one caller that may close the operation."""
        try:
            self._key.pop()  # atomic, and cheaper than a lock
        except IndexError:
            return False
        self.closed = True
        if self._seen is not None:
            with self.pipeline._lock:
                self.pipeline._open.discard(self)
        return self._generation == _generation and self.call.api != ""

    def _cost_of_failure(self, attempt: Attempt) -> Cost:
        status = attempt.http_status
        if status is not None and status >= 400:
            return Cost.free(f"HTTP {status}: nothing was served")
        if attempt.error in _NEVER_SENT:
            return Cost.free("the request never reached the host")
        return Cost.unknown("no reply arrived; the provider may have billed it")

    def _usage(self, reply: Reply) -> Usage:
        call = self.call
        return read_usage(reply.usage, provider=call[1] or call[0], api=call[2])

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
            attempt = self.attempt = Attempt(self.operation_id, 0, time_ns(), perf_counter_ns(), ())
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


def _takers(sinks: tuple[Sink, ...]) -> tuple[PlainSink | None, tuple[Callable[[], bool], ...]]:
    """Return the sink that takes calls before their cost is worked out, None where there is none or not all the others
    can say that they do not listen; and what asks those."""
    plain = [sink for sink in sinks if hasattr(sink, "plain")]
    others = [getattr(sink, "listening", None) for sink in sinks if sink not in plain]
    if len(plain) != 1 or None in others:
        return None, ()
    return cast(PlainSink, plain[0]), tuple(each for each in others if each is not None)


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
