"""Spans of model calls: attribkit's own, or the one that another instrumentor has opened for the call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from attribkit.attribution import Attribution
from attribkit.calls import CallRecord, LLMCall
from attribkit.cost import Cost
from attribkit.money import usd_text
from attribkit.telemetry import names, nesting
from attribkit.telemetry.attributes import AttributionAttributes, put, text
from attribkit.telemetry.foreign import OpenSpans, attributes_of, is_call, scope_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["CallSpans", "NamedSpan", "OwnSpan", "StampedSpan", "Tracers"]

Names = Literal["current", "both"]
_Asked = tuple[str, str, str, str, str | None, bool]
_MAX_CACHED = 1024
_MAX_INT = 2**63 - 1
_EXPORTS = "opentelemetry.sdk.trace.export"
_SAMPLING = "opentelemetry.sdk.trace.sampling"
_FIXED_SAMPLERS = frozenset({"StaticSampler", "TraceIdRatioBased"})

_FLAGS = tuple(f"{flags:02x}" for flags in range(256))

_PARTS: Mapping[str, tuple[bool, tuple[str, ...]]] = {
    # meter -> (is it input?, the parts of all input or output that it is counted in)
    "cache_read": (True, (names.CACHE_READ,)),
    "cache_write_5m": (True, (names.CACHE_WRITE,)),
    "cache_write_1h": (True, (names.CACHE_WRITE,)),
    "audio_input": (True, ("gen_ai.usage.audio.input_tokens",)),
    "audio_cache_read": (
        True,
        (names.CACHE_READ, "gen_ai.usage.audio.input_tokens", "gen_ai.usage.audio.cache_read.input_tokens"),
    ),
    "image_input": (True, ("gen_ai.usage.image.input_tokens",)),
    "image_cache_read": (
        True,
        (names.CACHE_READ, "gen_ai.usage.image.input_tokens", "gen_ai.usage.image.cache_read.input_tokens"),
    ),
    "video_input": (True, ()),
    "audio_output": (False, ("gen_ai.usage.audio.output_tokens",)),
    "image_output": (False, ("gen_ai.usage.image.output_tokens",)),
    "video_output": (False, ()),
}
_PREVIOUS = (
    (names.PROVIDER, "gen_ai.system"),
    (names.CACHE_WRITE, "gen_ai.usage.cache_creation.input_tokens"),
    (names.COST_AMOUNT, "gen_ai.usage.cost"),
)
"""What `semconv="both"` writes besides: names that backends still read."""


class Tracers:
    """Finds the tracer to use: that of the given provider, or of the global one as soon as the app has set it.

    No OpenTelemetry module is imported before the app itself has imported one.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None
        self._trace: Any = None
        self.current: Any = None
        """What tells the current context, once there is a `trace()`."""
        self._none = False
        self._by_name = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
        self._unseen: tuple[object, bool] | None = None

    def trace(self) -> Any:
        """Return the module `opentelemetry.trace`, None while nobody can have opened a span."""
        if self._trace is None and (
            self._provider is not None or self._by_name or "opentelemetry.trace" in sys.modules
        ):
            from opentelemetry import context, trace

            # The SDK's own context is a ContextVar, which tells the same in a tenth of the time.
            variable = getattr(getattr(context, "_RUNTIME_CONTEXT", None), "_current_context", None)
            self.current = variable.get if type(variable) is ContextVar else context.get_current
            self._trace = trace
        return self._trace

    def tracer(self) -> Tracer | None:
        """Return a tracer whose spans can be recorded, None while there is none."""
        if self._tracer is not None or self._none:
            return self._tracer
        trace = self.trace()
        if trace is None:
            return None
        if self._provider is None and not self._by_name and getattr(trace, "_TRACER_PROVIDER", trace) is None:
            return None  # what follows would say the same, at ten times the cost
        provider = self._provider if self._provider is not None else trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            return None  # the app has not set one yet
        tracer: Tracer = provider.get_tracer(names.SCOPE, _version())
        if isinstance(tracer, trace.NoOpTracer):
            self._none = True
            return None
        self._tracer = tracer
        return tracer

    def unseen(self, tracer: Any) -> bool:
        """True when nobody can look at a span of `tracer` between its start and its end.

        Then it makes no difference whether attributes are given at the start or at the end, and the second is cheaper
        (`attributes.put`). It is so when the sampler is one of the SDK's own, and every span processor is the SDK's own
        exporter or ours.
        """
        try:
            processors = tracer.span_processor._span_processors
        except AttributeError:
            return False
        known = self._unseen
        if known is None or known[0] is not processors:
            verdict = _asks_nothing(tracer.sampler) and all(
                type(one).__module__ == _EXPORTS or getattr(one, "attribkit", False) for one in processors
            )
            known = self._unseen = (processors, verdict)
        return known[1]


def _asks_nothing(sampler: Any) -> bool:
    kind = type(sampler)
    if kind.__module__ != _SAMPLING:
        return False
    if kind.__name__ in _FIXED_SAMPLERS:
        return True
    # ParentBased and its kind: as good as what they hand over to.
    inner = [value for value in vars(sampler).values() if hasattr(value, "should_sample")]
    return bool(inner) and all(_asks_nothing(one) for one in inner)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("attribkit")
    except PackageNotFoundError:
        return ""


class NamedSpan:
    """The identity of a span, for the record and the wire. This one is only pointed at: `end` leaves it as it is."""

    __slots__ = ("_flags", "_span", "span_id", "trace_id")
    trace_id: str | None
    span_id: str | None

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = context[0].to_bytes(16, "big").hex()
        self.span_id = context[1].to_bytes(8, "big").hex()
        self._flags = context[3]

    def traceparent(self) -> str | None:
        """Return the W3C traceparent header of this span."""
        return f"00-{self.trace_id}-{self.span_id}-{_FLAGS[self._flags & 255]}"

    def attach(self) -> nesting.Nested | None:
        """Make this span current, so that the HTTP client's span nests under it; None when nothing changes."""
        return None

    def detach(self, nested: nesting.Nested | None) -> None:
        """Undo `attach`, in whichever Context."""
        if nested is not None:
            nesting.leave(nested)

    def end(self, record: CallRecord) -> None:
        """Leave the span alone."""


class OwnSpan(NamedSpan):
    """The span that attribkit opened for a call. It holds back what was `known` at the start until the end."""

    __slots__ = ("_known", "_names")

    def __init__(self, span: Span, names: Names, known: dict[str, Any]) -> None:
        NamedSpan.__init__(self, span)
        self._names = names
        self._known = known

    def attach(self) -> nesting.Nested | None:
        return nesting.enter(self._span)

    def end(self, record: CallRecord) -> None:
        """Write what came of the call and end the span when the attempt ended."""
        span = self._span
        items = self._known.copy()
        _write_outcome(items, record, self._names)
        put(span, items)
        if record.status in ("error", "rejected"):
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR)
        duration = record.duration_ns
        span.end(record.started_ns + duration if duration is not None else time.time_ns())


class StampedSpan(NamedSpan):
    """Another instrumentor's span of the same call: it gets the attribution and the cost, and ends when its owner says.

    A span can cover several of our calls (a router's fallbacks): then the cost on it is their sum.
    """

    __slots__ = ()

    def end(self, record: CallRecord) -> None:
        """Write the cost, unless the owner has ended the span already."""
        span = self._span
        if not span.is_recording():
            return
        items: dict[str, Any] = {}
        _write_cost(items, record.cost)
        if names.COST_USD in items or names.COST_STATUS in items:
            before = attributes_of(span)
            if names.CALL_COUNT in before:
                _add(items, before)
            else:
                items[names.CALL_COUNT] = 1
        _write_call(items, record)
        put(span, items)


class CallSpans:
    """Opens the span of a model call, or finds the one that another instrumentor has opened (`sinks.SpanSource`).

    `aliases` are further names of attribution fields; `seen_as` changes what spans may know of an attribution; with
    `own=False` no span is opened, and calls are only stamped on others' spans and tied to the current trace. `current`
    asks the client patch to make our span the current one around the request (`attach`, `detach`).
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        aliases: Mapping[str, str] = names.ALIASES,
        semconv: Names = "current",
        own: bool = True,
        current: bool = False,
        seen_as: Callable[[Attribution], Attribution] | None = None,
        attributes: AttributionAttributes | None = None,
        open_spans: OpenSpans | None = None,
    ) -> None:
        self.tracers = Tracers(tracer_provider)
        self.attributes = attributes if attributes is not None else AttributionAttributes(aliases, seen_as)
        self.open_spans = open_spans
        self.current = current
        self._own = own
        self._names: Names = semconv
        self._asked: dict[_Asked, tuple[str, dict[str, Any]]] = {}
        self._last: tuple[object, object, dict[str, Any]] = (None, None, {})
        self._client: Any = None

    def start(self, call: LLMCall, attribution: Attribution, started_ns: int) -> NamedSpan | None:
        """Return the span to report on; None when nothing records."""
        tracers, open_spans = self.tracers, self.open_spans
        if tracers.current is None and tracers.trace() is None:
            return None
        here: Any = None
        recording = False
        if tracers.current():  # an empty context has no span
            here = tracers.trace().get_current_span()
            recording = here.is_recording()
            if recording and scope_of(here) != names.SCOPE and is_call(here):
                return self._stamp(here, attribution)
        if open_spans is not None and open_spans.held:
            found = open_spans.claim(0 if here is None else here.get_span_context().trace_id, attribution)
            if found is not None:
                return self._stamp(found, attribution) if found else (NamedSpan(here) if recording else None)
        if not self._own or (tracer := tracers.tracer()) is None:
            return NamedSpan(here) if recording else None
        if self._client is None:
            self._client = tracers.trace().SpanKind.CLIENT
        key = call[:6]
        asked = self._asked.get(key)
        if asked is None:
            asked = self._ask(key)
        last = self._last
        if last[0] is asked and last[1] is attribution:
            known = last[2]
        else:
            known = {**asked[1], **self.attributes(attribution)}
            self._last = (asked, attribution, known)
        if tracers.unseen(tracer):
            span = tracer.start_span(asked[0], None, self._client, None, None, started_ns)
        else:
            span = tracer.start_span(asked[0], None, self._client, known, None, started_ns)
            known = {}
        return OwnSpan(span, self._names, known) if span.is_recording() else None

    def _stamp(self, span: Any, attribution: Attribution) -> StampedSpan:
        stamp = self.attributes(attribution)
        have = attributes_of(span)
        missing = {
            name: value
            for name, value in stamp.items()
            if have.get(name) != value and (name.startswith(names.FIELD_PREFIX) or name not in have)
        }
        if missing:
            put(span, missing)
        return StampedSpan(span)

    def _ask(self, key: _Asked) -> tuple[str, dict[str, Any]]:
        client, provider, api, url, model, stream = key
        operation = names.OPERATIONS.get(api, api) or "chat"
        items: dict[str, Any] = {names.OPERATION: operation, names.PROVIDER: text(provider or client)}
        if self._names == "both":
            items["gen_ai.system"] = items[names.PROVIDER]
        if model:
            items[names.REQUEST_MODEL] = text(str(model))
        if stream:
            items[names.REQUEST_STREAM] = True
        try:
            address = urlsplit(url)
            host, port = address.hostname, address.port
        except ValueError:
            host, port = None, None
        if host:
            items[names.SERVER_ADDRESS] = text(host)
            if port and port != 443:
                items["server.port"] = port
        made = (f"{operation} {items[names.REQUEST_MODEL]}" if model else operation, items)
        if len(self._asked) >= _MAX_CACHED:
            self._asked.clear()
        self._asked[key] = made
        return made


# -- what came of a call ----------------------------------------------------------------------------------------------


def _write_outcome(items: dict[str, Any], record: CallRecord, which: Names) -> None:
    provider, served, status, response_id = record.provider, record.served_model, record.status, record.response_id
    if provider:
        items[names.PROVIDER] = provider
    if served:
        items[names.RESPONSE_MODEL] = served if served.isascii() else text(served)
    if response_id:
        items[names.RESPONSE_ID] = response_id if response_id.isascii() else text(response_id)
    meters, reasoning, known, _, _, _, _, _, _, estimated, *_ = record.usage
    if known or estimated is not None:
        counted = produced = 0
        for meter, quantity in meters:
            tokens = quantity if quantity.__class__ is int else int(quantity)
            if meter == "input":
                counted += tokens
            elif meter == "output":
                produced += tokens
            elif meter in _PARTS:
                is_input, parts = _PARTS[meter]
                if is_input:
                    counted += tokens
                else:
                    produced += tokens
                for name in parts:
                    items[name] = items.get(name, 0) + tokens
        items[names.INPUT_TOKENS] = counted
        items[names.OUTPUT_TOKENS] = produced
        if 0 < reasoning <= produced:
            items[names.REASONING] = reasoning
        if counted > _MAX_INT or produced > _MAX_INT:
            for name in [name for name, value in items.items() if type(value) is int and value > _MAX_INT]:
                del items[name]
    _write_cost(items, record.cost)
    requested, tier, first_chunk, code = (
        record.requested_tier,
        record.served_tier,
        record.first_chunk_ns,
        record.http_status,
    )
    if requested:
        items[names.REQUEST_TIER] = requested if requested.isascii() else text(requested)
    if tier:
        items[names.RESPONSE_TIER] = tier if tier.isascii() else text(tier)
    if first_chunk is not None:
        items[names.FIRST_CHUNK] = first_chunk / 1e9
    if code is not None:
        items[names.HTTP_STATUS] = code
    if status != "ok":
        items[names.ERROR_TYPE] = text(record.error or status)
    _write_call(items, record)
    if which == "both":
        for name, previous in _PREVIOUS:
            if name in items:
                items[previous] = items[name]


def _write_cost(items: dict[str, Any], cost: Cost) -> None:
    usd, status, lines, version, reason, _, stated, *_ = cost
    if usd is not None:
        exact = usd_text(usd)
        items[names.COST_AMOUNT] = float(usd)
        items[names.COST_CURRENCY] = "USD"
        items[names.COST_SOURCE] = "provider" if stated is not None and not lines and stated == usd else "local"
        items[names.COST_USD] = exact
    items[names.COST_STATUS] = status
    if version:
        items[names.PRICE_VERSION] = version
    if reason:
        items[names.COST_REASON] = text(reason)
    if stated is not None:
        items[names.COST_STATED] = usd_text(stated)


def _write_call(items: dict[str, Any], record: CallRecord) -> None:
    attempt, gateway, gateway_request_id = record.attempt, record.gateway, record.gateway_request_id
    items[names.CALL_ID] = record.call_id
    items[names.OPERATION_ID] = record.operation_id
    items[names.CALL_STATUS] = record.status
    items[names.CALL_HOP] = record.hop
    if attempt:
        items[names.CALL_ATTEMPTS] = attempt + 1
    if gateway is not None:
        items[names.CALL_GATEWAY] = gateway
    if gateway_request_id is not None:
        items[names.GATEWAY_REQUEST_ID] = text(gateway_request_id)


def _add(items: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Add the cost that an earlier call left on the same span."""
    items[names.CALL_COUNT] = before[names.CALL_COUNT] + 1
    earlier = before.get(names.COST_USD)
    if earlier is not None:
        try:
            total = Decimal(earlier) + Decimal(items.get(names.COST_USD, "0"))
        except InvalidOperation:
            return
        items[names.COST_USD] = usd_text(total)
        items[names.COST_AMOUNT] = float(total)
        items[names.COST_CURRENCY] = "USD"
    if before.get(names.COST_STATUS) == "unpriced" or items[names.COST_STATUS] == "unpriced":
        items[names.COST_STATUS] = "unpriced"
        items.setdefault(names.COST_REASON, before.get(names.COST_REASON, "one of its calls is unpriced"))
