"""The span of a model call: what stands on it, and whose it is."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from attribkit.attribution import Attribution
from attribkit.calls import LLMCall
from attribkit.cost import Cost
from attribkit.telemetry.foreign import OpenSpans
from attribkit.telemetry.spans import CallSpans, OwnSpan, StampedSpan
from attribkit.telemetry.stamp import AttributionProcessor, install
from attribkit.usage.model import NO_USAGE, Usage

ACME = Attribution.of({"tenant_id": "acme", "workflow": "onboarding", "workflow_id": "wf-1", "user_id": "u-1"})
CHAT = LLMCall("openai", "openai", "chat", "http://llm.local/v1", "gpt-4o-mini")

EXPECTED = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 85,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "gen_ai.usage.reasoning.output_tokens": 20,
    "gen_ai.usage.cost.amount": 0.0001542,
    "gen_ai.usage.cost.currency": "USD",
    "gen_ai.usage.cost.source": "local",
    "openai.request.service_tier": "auto",
    "openai.response.service_tier": "default",
    "server.address": "llm.local",
    "http.response.status_code": 200,
    "attribkit.cost.usd": "0.0001542",
    "attribkit.cost.status": "priced",
    "attribkit.price.version": "2026-11-01",
    "attribkit.call.id": "c-1",
    "attribkit.call.operation_id": "o-1",
    "attribkit.call.status": "ok",
    "attribkit.call.hop": "inherited",
    "attribkit.call.gateway": "portkey",
    "attribkit.tenant_id": "acme",
    "attribkit.workflow": "onboarding",
    "attribkit.workflow_id": "wf-1",
    "attribkit.user_id": "u-1",
    "tenant.id": "acme",
    "user.id": "u-1",
}


def only(exporter: InMemorySpanExporter) -> Any:
    (span,) = exporter.get_finished_spans()
    return span


def run(spans: CallSpans, record: Any, call: LLMCall = CHAT, attribution: Attribution = ACME) -> Any:
    span = spans.start(call, attribution, 1_000_000_000)
    assert span is not None
    span.end(record)
    return span


def test_own_span_says_what_is_known(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    run(CallSpans(provider), record())
    span = only(exporter)
    assert span.name == "chat gpt-4o-mini"
    assert span.kind is SpanKind.CLIENT
    assert (span.start_time, span.end_time) == (1_000_000_000, 1_250_000_000)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == EXPECTED
    assert span.instrumentation_scope.name == "attribkit"


class Curious:
    """A stranger's span processor that looks at spans when they start."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.seen.append(dict(span.attributes))

    def _on_ending(self, span: Any) -> None: ...
    def on_end(self, span: Any) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


class Choosy(Sampler):
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> SamplingResult:
        attributes = kwargs.get("attributes") or args[1]
        self.seen.append(dict(attributes or {}))
        return ParentBased(TraceIdRatioBased(1.0)).should_sample(parent_context, trace_id, name, attributes=attributes)

    def get_description(self) -> str:
        return "choosy"


def test_attributes_are_there_at_the_start_for_whoever_looks(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any
) -> None:
    spans = CallSpans(provider)
    run(spans, record())
    curious = Curious()
    provider.add_span_processor(curious)
    run(spans, record())
    assert curious.seen[0]["attribkit.tenant_id"] == "acme"
    assert curious.seen[0]["gen_ai.request.model"] == "gpt-4o-mini"
    assert [dict(span.attributes) for span in exporter.get_finished_spans()] == [EXPECTED, EXPECTED]


@pytest.mark.parametrize("wrap", [lambda s: s, ParentBased], ids=["bare", "parent-based"])
def test_a_sampler_that_reads_attributes_gets_them(exporter: InMemorySpanExporter, record: Any, wrap: Any) -> None:
    sampler = Choosy()
    provider = TracerProvider(sampler=wrap(sampler), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    run(CallSpans(provider), record())
    assert sampler.seen[0]["attribkit.tenant_id"] == "acme"
    assert dict(only(exporter).attributes) == EXPECTED


def test_span_limits_of_the_app_hold(exporter: InMemorySpanExporter, record: Any) -> None:
    provider = TracerProvider(span_limits=SpanLimits(max_span_attribute_length=4), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("opentelemetry.attributes"), "disabled", True)
        run(CallSpans(provider), record(), attribution=Attribution.of({"tenant_id": "acme-corp"}))
    assert only(exporter).attributes["attribkit.tenant_id"] == "acme"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"cost": Cost.unknown("no price for x")},
            {"attribkit.cost.status": "unpriced", "attribkit.cost.reason": "no price for x"},
        ),
        ({"cost": Cost.free("cached")}, {"gen_ai.usage.cost.amount": 0.0, "attribkit.cost.status": "free"}),
        (
            {"cost": Cost(Decimal("0.5"), "priced", stated_usd=Decimal("0.50"))},
            {"gen_ai.usage.cost.source": "provider", "attribkit.cost.stated_usd": "0.5"},
        ),
        ({"attempt": 2}, {"attribkit.call.attempts": 3}),
        ({"first_chunk_ns": 125_000_000}, {"gen_ai.response.time_to_first_chunk": 0.125}),
        ({"gateway_request_id": "gw"}, {"attribkit.call.gateway_request_id": "gw"}),
        (
            {"usage": Usage((("audio_cache_read", 5), ("cache_read", 7), ("audio_output", 3)))},
            {
                "gen_ai.usage.input_tokens": 12,
                "gen_ai.usage.cache_read.input_tokens": 12,
                "gen_ai.usage.audio.input_tokens": 5,
                "gen_ai.usage.audio.cache_read.input_tokens": 5,
                "gen_ai.usage.output_tokens": 3,
                "gen_ai.usage.audio.output_tokens": 3,
            },
        ),
        (
            {"usage": Usage((("cache_write_5m", 5), ("cache_write_1h", 6)))},
            {"gen_ai.usage.cache_write.input_tokens": 11},
        ),
        ({"usage": Usage((("output", 4),), known=False, estimated="cut")}, {"gen_ai.usage.output_tokens": 4}),
        ({"response_id": "broken \ud800"}, {"gen_ai.response.id": "broken \\ud800"}),
    ],
)
def test_outcomes(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any, changes: Any, expected: dict[str, Any]
) -> None:
    run(CallSpans(provider), record(**changes))
    attributes = dict(only(exporter).attributes)
    assert {name: attributes.get(name) for name in expected} == expected


def test_what_is_not_known_is_left_out(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    run(CallSpans(provider), record(usage=NO_USAGE, cost=Cost.unknown("no usage")))
    attributes = only(exporter).attributes
    assert not [name for name in attributes if "tokens" in name or name.startswith("gen_ai.usage.cost")]
    assert "attribkit.cost.usd" not in attributes


def test_tokens_no_exporter_can_carry_are_left_out(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any
) -> None:
    run(CallSpans(provider), record(usage=Usage((("input", 2**70), ("cache_read", 2**70)))))
    assert not [name for name in only(exporter).attributes if "input_tokens" in name]


@pytest.mark.parametrize(
    ("status", "error", "is_error"),
    [
        ("error", "RateLimitError", True),
        ("rejected", "BudgetExceeded", True),
        ("cancelled", "CancelledError", False),
        ("abandoned", None, False),
    ],
)
def test_failed_calls(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any, status: str, error: Any, is_error: bool
) -> None:
    run(CallSpans(provider), record(status=status, error=error))
    span = only(exporter)
    assert (span.status.status_code is StatusCode.ERROR) is is_error
    assert span.status.description is None
    assert span.attributes["error.type"] == (error or status)


@pytest.mark.parametrize(
    ("api", "model", "name"),
    [
        ("responses", "gpt-5", "chat gpt-5"),
        ("embeddings", "te-3", "embeddings te-3"),
        ("completions", "x", "text_completion x"),
        ("messages", None, "chat"),
        ("moderations", "m", "moderations m"),
    ],
)
def test_names(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any, api: str, model: Any, name: str
) -> None:
    run(CallSpans(provider), record(), call=LLMCall("openai", "", api, "https://[::bad", model, stream=True))
    span = only(exporter)
    assert span.name == name
    assert span.attributes["gen_ai.request.stream"] is True


def test_previous_names_on_request(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    run(CallSpans(provider, semconv="both"), record())
    attributes = only(exporter).attributes
    assert attributes["gen_ai.system"] == "openai"
    assert attributes["gen_ai.usage.cost"] == 0.0001542


def test_aliases_and_what_spans_may_know(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    spans = CallSpans(
        provider,
        aliases={"tenant_id": "customer"},
        seen_as=lambda a: a.without("user_id").merged({"tenant_id": "pseudonym"}),
    )
    run(spans, record())
    attributes = only(exporter).attributes
    assert attributes["customer"] == attributes["attribkit.tenant_id"] == "pseudonym"
    assert "user.id" not in attributes
    assert "attribkit.user_id" not in attributes


def test_identity(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    span = run(CallSpans(provider), record())
    context = only(exporter).context
    assert span.trace_id == f"{context.trace_id:032x}"
    assert span.span_id == f"{context.span_id:016x}"
    assert span.traceparent() == f"00-{span.trace_id}-{span.span_id}-{int(context.trace_flags):02x}"


def test_nothing_where_nothing_records(record: Any) -> None:
    assert CallSpans(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)).start(CHAT, ACME, 1) is None
    assert CallSpans(trace.NoOpTracerProvider()).start(CHAT, ACME, 1) is None


def test_nested_spans_when_attached(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    span = CallSpans(provider, current=True).start(CHAT, ACME, 1_000_000_000)
    assert span is not None
    nested = span.attach()
    provider.get_tracer("http").start_span("POST").end()
    span.detach(nested)
    span.end(record())
    http, call = exporter.get_finished_spans()
    assert http.parent.span_id == call.context.span_id
    assert not trace.get_current_span().get_span_context().is_valid


# -- calls that another instrumentor has a span for -------------------------------------------------------------------

STRANGERS = {
    "gen_ai": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
    },
    "gen_ai embeddings": {"gen_ai.operation.name": "embeddings"},
    "openinference": {"openinference.span.kind": "LLM", "llm.system": "openai"},
    "traceloop": {"llm.request.type": "chat"},
    "langfuse": {"langfuse.observation.type": "generation"},
    "mlflow": {"mlflow.spanType": '"CHAT_MODEL"'},
}


@pytest.mark.parametrize("attributes", STRANGERS.values(), ids=STRANGERS)
def test_a_strangers_inference_span_is_stamped(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any, attributes: dict[str, Any]
) -> None:
    spans = CallSpans(provider)
    with provider.get_tracer("stranger").start_as_current_span("chat gpt-4o-mini", attributes=attributes):
        span = run(spans, record())
        assert isinstance(span, StampedSpan)
        assert not exporter.get_finished_spans()
    written = only(exporter)
    assert written.attributes["attribkit.tenant_id"] == "acme"
    assert written.attributes["tenant.id"] == "acme"
    assert written.attributes["attribkit.cost.usd"] == "0.0001542"
    assert written.attributes["gen_ai.usage.cost.amount"] == 0.0001542
    assert attributes.items() <= written.attributes.items()
    assert span.span_id == f"{written.context.span_id:016x}"


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"http.route": "/"},
        {"gen_ai.operation.name": "invoke_agent"},
        {"gen_ai.operation.name": "execute_tool"},
        {"openinference.span.kind": "CHAIN"},
        {"langfuse.observation.type": "span"},
    ],
)
def test_other_spans_get_a_child(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any, attributes: dict[str, Any]
) -> None:
    with provider.get_tracer("stranger").start_as_current_span("around", attributes=attributes):
        assert isinstance(run(CallSpans(provider), record()), OwnSpan)
    call, around = exporter.get_finished_spans()
    assert call.parent.span_id == around.context.span_id
    assert "attribkit.cost.usd" not in around.attributes


def test_our_own_span_is_no_strangers(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    spans = CallSpans(provider)
    outer = spans.start(CHAT, ACME, 1)
    assert outer is not None
    nested = outer.attach()
    assert isinstance(run(spans, record()), OwnSpan)
    outer.detach(nested)
    outer.end(record())


def test_a_strangers_span_that_ended_first(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = provider.get_tracer("stranger")
    with tracer.start_as_current_span("chat", attributes=STRANGERS["gen_ai"]):
        span = CallSpans(provider).start(CHAT, ACME, 1)
        assert span is not None
    span.end(record())
    assert only(exporter).attributes["attribkit.tenant_id"] == "acme"
    assert not caplog.records


def test_a_users_own_user_id_stays(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    attributes = {**STRANGERS["gen_ai"], "user.id": "theirs", "attribkit.tenant_id": "stale"}
    with provider.get_tracer("stranger").start_as_current_span("chat", attributes=attributes):
        run(CallSpans(provider), record())
    assert only(exporter).attributes["user.id"] == "theirs"
    assert only(exporter).attributes["attribkit.tenant_id"] == "acme"


def test_several_calls_on_one_span_are_summed(
    provider: TracerProvider, exporter: InMemorySpanExporter, record: Any
) -> None:
    spans = CallSpans(provider)
    with provider.get_tracer("router").start_as_current_span("chat", attributes=STRANGERS["gen_ai"]):
        run(spans, record())
        run(spans, record(cost=Cost.unknown("no price")))
        run(spans, record(cost=Cost(Decimal("0.1"), "priced")))
    attributes = only(exporter).attributes
    assert attributes["attribkit.cost.usd"] == "0.1001542"
    assert attributes["gen_ai.usage.cost.amount"] == 0.1001542
    assert attributes["attribkit.call.count"] == 3
    assert attributes["attribkit.cost.status"] == "unpriced"


def test_own_span_off(provider: TracerProvider, exporter: InMemorySpanExporter, record: Any) -> None:
    spans = CallSpans(provider, own=False)
    assert spans.start(CHAT, ACME, 1) is None
    with provider.get_tracer("app").start_as_current_span("request") as request:
        span = spans.start(CHAT, ACME, 1)
        assert span is not None
        span.end(record())
        assert span.trace_id == f"{request.get_span_context().trace_id:032x}"
    with provider.get_tracer("stranger").start_as_current_span("chat", attributes=STRANGERS["gen_ai"]):
        run(spans, record())
    request_span, chat = exporter.get_finished_spans()
    assert not request_span.attributes
    assert chat.attributes["attribkit.cost.usd"] == "0.0001542"


# -- spans of callback-based instrumentors, which are open but not current --------------------------------------------


@pytest.fixture
def watched(provider: TracerProvider) -> CallSpans:
    open_spans = OpenSpans()
    assert install(provider, AttributionProcessor(lambda: ACME, open_spans=open_spans))
    return CallSpans(provider, open_spans=open_spans)


def test_an_open_span_of_the_call_is_found(
    provider: TracerProvider, exporter: InMemorySpanExporter, watched: CallSpans, record: Any
) -> None:
    lang = provider.get_tracer("opentelemetry.instrumentation.langchain")
    with provider.get_tracer("app").start_as_current_span("request"):
        model_run = lang.start_span("ChatOpenAI.chat", attributes={"gen_ai.operation.name": "chat"})
        assert isinstance(run(watched, record()), StampedSpan)
        assert isinstance(run(watched, record()), OwnSpan)  # it is claimed: the next call is another one
        model_run.end()
    own, model, _ = exporter.get_finished_spans()
    assert own.name == "chat gpt-4o-mini"
    assert model.attributes["attribkit.cost.usd"] == "0.0001542"


def test_spans_of_others_are_left_alone(
    provider: TracerProvider, exporter: InMemorySpanExporter, watched: CallSpans, record: Any
) -> None:
    llm = {"gen_ai.operation.name": "chat"}
    provider.get_tracer("langfuse-sdk").start_span("other trace", attributes=llm)
    open_elsewhere = provider.get_tracer("langfuse-sdk").start_span("generation", attributes=llm)
    with provider.get_tracer("app").start_as_current_span("request"):
        chain = provider.get_tracer("openinference.instrumentation.langchain").start_span("RunnableSequence")
        app = provider.get_tracer("my.app").start_span("chat", attributes=llm)
        ended = provider.get_tracer("langfuse-sdk").start_span("generation", attributes=llm)
        ended.end()
        assert isinstance(run(watched, record()), OwnSpan)
        other = ACME.merged({"tenant_id": "other"})
        provider.get_tracer("langfuse-sdk").start_span("generation", attributes=llm)
        assert isinstance(run(watched, record(), attribution=other), OwnSpan)
    for span in (chain, app, open_elsewhere):
        span.end()


def test_the_innermost_of_several_around_one_call(
    provider: TracerProvider, exporter: InMemorySpanExporter, watched: CallSpans, record: Any
) -> None:
    tracer = provider.get_tracer("langfuse-sdk")
    outer = tracer.start_span("ChatOpenAI", attributes=STRANGERS["langfuse"])
    inner = tracer.start_span("OpenAI-generation", attributes=STRANGERS["langfuse"])
    run(watched, record())
    inner.end()
    outer.end()
    first, second = exporter.get_finished_spans()
    assert first.attributes["attribkit.cost.usd"] == "0.0001542"
    assert "attribkit.cost.usd" not in second.attributes


def test_tasks_find_their_own(
    provider: TracerProvider, exporter: InMemorySpanExporter, watched: CallSpans, record: Any
) -> None:
    tracer = provider.get_tracer("opentelemetry.instrumentation.langchain")

    async def call(number: int) -> None:
        span = tracer.start_span("chat", attributes={**STRANGERS["gen_ai"], "number": str(number)})
        await asyncio.sleep(0)
        ours = watched.start(CHAT, ACME, 1)
        await asyncio.sleep(0)
        assert ours is not None
        ours.end(record(call_id=str(number)))
        span.end()

    async def main() -> None:
        await asyncio.gather(*[call(number) for number in range(10)])

    asyncio.run(main())
    spans = exporter.get_finished_spans()
    assert len(spans) == 10
    assert all(span.attributes["attribkit.call.id"] == span.attributes["number"] for span in spans)


@pytest.mark.parametrize("count", [1, 3])
def test_where_several_fit_none_is_guessed_and_none_is_added(
    provider: TracerProvider, exporter: InMemorySpanExporter, watched: CallSpans, record: Any, count: int
) -> None:
    """LangChain runs callbacks of async calls in worker threads: which span is whose cannot be told."""
    tracer = provider.get_tracer("opentelemetry.instrumentation.langchain")
    both_open = asyncio.Event()
    opened: list[Any] = []

    async def call() -> None:
        span = await asyncio.to_thread(tracer.start_span, "chat", attributes=STRANGERS["gen_ai"])
        opened.append(span)
        if len(opened) == count:
            both_open.set()
        await both_open.wait()
        run(watched, record())
        await asyncio.to_thread(span.end)

    async def main() -> None:
        with provider.get_tracer("app").start_as_current_span("request"):
            await asyncio.gather(*[call() for _ in range(count)])

    asyncio.run(main())
    *spans, _ = exporter.get_finished_spans()
    assert len(spans) == count
    assert all(span.attributes["attribkit.tenant_id"] == "acme" for span in spans)
    assert [("attribkit.cost.usd" in span.attributes) for span in spans] == [count == 1] * count


# -- the global provider ----------------------------------------------------------------------------------------------

SCRIPT = """
    import sys
    from attribkit.attribution import Attribution
    from attribkit.calls import LLMCall
    from attribkit.telemetry.spans import CallSpans
    from attribkit.telemetry.stamp import AttributionProcessor, install
    from attribkit.telemetry.workflows import WorkflowSpans
    from attribkit.telemetry.metrics import CallMetrics

    call = LLMCall("openai", "openai", "chat", "http://llm.local/v1", "gpt-4o-mini")
    acme = Attribution.of({"tenant_id": "acme"})
    spans, workflows, metrics = CallSpans(), WorkflowSpans(), CallMetrics()
    processor = AttributionProcessor(lambda: acme)
    assert spans.start(call, acme, 1) is None
    assert workflows.start("w", acme) is None
    assert install(None, processor) is None
    metrics.finished(None)
    assert not [name for name in sys.modules if name.startswith("opentelemetry")], "imported too early"

    from opentelemetry import trace, metrics as otel_metrics
    assert spans.start(call, acme, 1) is None
    assert workflows.start("w", acme) is None
    assert install(None, processor) is None
    metrics.finished(None)
    assert "opentelemetry.sdk" not in sys.modules

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    assert install(None, processor).provider is provider
    assert spans.start(call, acme, 1) is not None
    workflow = workflows.start("w", acme)
    workflow.end()
    (span,) = exporter.get_finished_spans()
    assert span.attributes["attribkit.tenant_id"] == "acme"
"""


def test_a_provider_that_is_set_later(tmp_path: Any) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], check=True, env=environment)
