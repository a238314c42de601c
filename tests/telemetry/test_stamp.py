"""Attribution on every span, whoever starts it."""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from typing import Any

import pytest
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.telemetry.attributes import AttributionAttributes
from attribkit.telemetry.stamp import AttributionProcessor, install, remove

NOBODY = Attribution()
here: ContextVar[Attribution] = ContextVar("here", default=NOBODY)


@pytest.fixture
def processor() -> AttributionProcessor:
    return AttributionProcessor(here.get)


def attributes(exporter: InMemorySpanExporter) -> list[dict[str, Any]]:
    return [dict(span.attributes) for span in exporter.get_finished_spans()]


def under(**fields: str) -> None:
    here.set(Attribution.of(fields))


@pytest.fixture(autouse=True)
def _nobody() -> None:
    here.set(NOBODY)


def test_spans_of_strangers_are_stamped(
    provider: TracerProvider, exporter: InMemorySpanExporter, processor: AttributionProcessor
) -> None:
    assert install(provider, processor)
    tracer = provider.get_tracer("stranger")
    tracer.start_span("before").end()
    under(tenant_id="acme", session_id="s-1", experiment="b")
    tracer.start_span("plain").end()
    tracer.start_span("theirs", attributes={"user.id": "x", "session.id": "theirs", "attribkit.tenant_id": "y"}).end()
    before, plain, theirs = attributes(exporter)
    assert before == {}
    assert plain == {
        "attribkit.tenant_id": "acme",
        "tenant.id": "acme",
        "attribkit.session_id": "s-1",
        "session.id": "s-1",
        "attribkit.experiment": "b",
    }
    assert theirs["session.id"] == "theirs"
    assert theirs["user.id"] == "x"
    assert theirs["attribkit.tenant_id"] == "acme"
    assert theirs["attribkit.session_id"] == "s-1"


def test_interleaved_tasks_keep_their_own(
    provider: TracerProvider, exporter: InMemorySpanExporter, processor: AttributionProcessor
) -> None:
    install(provider, processor)
    tracer = provider.get_tracer("stranger")

    async def work(tenant: str) -> None:
        under(tenant_id=tenant)
        for _ in range(20):
            await asyncio.sleep(0)
            tracer.start_span(tenant).end()

    async def main() -> None:
        await asyncio.gather(*[work(f"t{number}") for number in range(50)])

    asyncio.run(main())
    spans = exporter.get_finished_spans()
    assert len(spans) == 1000
    assert all(span.attributes["attribkit.tenant_id"] == span.name for span in spans)


class Pending(SimpleSpanProcessor):
    """Exports spans when they start, as some backends' processors do."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.seen.append(dict(span.attributes))

    def on_end(self, span: Any) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def test_processors_that_were_there_before_see_the_stamp(
    provider: TracerProvider, processor: AttributionProcessor
) -> None:
    pending = Pending()
    provider.add_span_processor(pending)
    install(provider, processor)
    under(tenant_id="acme")
    provider.get_tracer("stranger").start_span("x").end()
    assert pending.seen[0]["attribkit.tenant_id"] == "acme"


def test_removal_is_exact(
    provider: TracerProvider, exporter: InMemorySpanExporter, processor: AttributionProcessor
) -> None:
    multi: Any = provider._active_span_processor
    tracer = provider.get_tracer("stranger")
    before = multi._span_processors
    installed = install(provider, processor)
    assert install(provider, processor) == installed
    assert len(multi._span_processors) == len(before) + 1
    late = Pending()
    provider.add_span_processor(late)
    other = AttributionProcessor(lambda: Attribution.of({"tenant_id": "other"}))
    kept = install(provider, other)
    assert installed and kept
    remove(installed)
    remove(installed)
    assert multi._span_processors == (other, *before, late)
    remove(kept)
    assert multi._span_processors == (*before, late)
    under(tenant_id="acme")
    tracer.start_span("x").end()
    assert attributes(exporter) == [{}]


def test_inert_after_removal_even_where_it_stays(provider: TracerProvider, processor: AttributionProcessor) -> None:
    class Closed:
        def __init__(self) -> None:
            self.held: list[Any] = []

        def add_span_processor(self, processor: Any) -> None:
            self.held.append(processor)

    closed = Closed()
    installed = install(closed, processor)
    assert installed and closed.held == [processor]
    remove(installed)
    under(tenant_id="acme")
    span = provider.get_tracer("x").start_span("x")
    closed.held[0].on_start(span)
    assert not span.attributes  # type: ignore[attr-defined]


def test_no_processor_where_there_is_no_place(processor: AttributionProcessor) -> None:
    assert install(object(), processor) is None


def test_a_provider_in_a_wrapper(
    provider: TracerProvider, exporter: InMemorySpanExporter, processor: AttributionProcessor
) -> None:
    class Wrapper:
        def __init__(self, provider: TracerProvider) -> None:
            self.provider = provider

    installed = install(Wrapper(provider), processor)
    assert installed
    under(tenant_id="acme")
    provider.get_tracer("x").start_span("x").end()
    assert attributes(exporter)[0]["attribkit.tenant_id"] == "acme"
    remove(installed)


def test_concurrent_processors(exporter: InMemorySpanExporter, processor: AttributionProcessor) -> None:
    provider = TracerProvider(active_span_processor=ConcurrentMultiSpanProcessor(2), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    always = AttributionProcessor(lambda: Attribution.of({"tenant_id": "acme"}))
    assert install(provider, always)
    provider.get_tracer("x").start_span("x").end()
    assert attributes(exporter)[0]["attribkit.tenant_id"] == "acme"
    provider._active_span_processor._executor.shutdown()  # type: ignore[union-attr]


def test_faults_stay_here(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    def broken() -> Attribution:
        raise RuntimeError("secret")

    faults.strict(False)
    install(provider, AttributionProcessor(broken))
    provider.get_tracer("x").start_span("x").end()
    assert len(exporter.get_finished_spans()) == 1
    assert faults.counts() == {"telemetry.stamp: RuntimeError": 1}


def test_what_no_exporter_could_encode(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    install(provider, AttributionProcessor(lambda: Attribution.of({"tenant_id": "a\ud800ü"})))
    provider.get_tracer("x").start_span("x").end()
    assert attributes(exporter)[0]["attribkit.tenant_id"] == "a\\ud800ü"


def test_the_cache_is_bounded() -> None:
    made = AttributionAttributes()
    for number in range(5000):
        assert made(Attribution.of({"workflow_id": str(number)}))["attribkit.workflow_id"] == str(number)
    assert len(made._made) <= 1024


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_fork(processor: AttributionProcessor) -> None:
    class Noop(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Noop()))
    install(provider, processor)
    under(tenant_id="parent")
    provider.get_tracer("x").start_span("x").end()
    child = os.fork()
    if child == 0:
        try:
            under(tenant_id="child")
            span: Any = provider.get_tracer("x").start_span("x")
            os._exit(0 if span.attributes["attribkit.tenant_id"] == "child" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    provider.shutdown()
