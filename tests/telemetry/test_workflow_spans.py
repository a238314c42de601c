"""The span around an entrypoint."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from attribkit.attribution import Attribution
from attribkit.telemetry.workflows import WorkflowSpan, WorkflowSpans

ACME = Attribution.of({"tenant_id": "acme", "workflow": "onboarding"})


def start(provider: TracerProvider) -> WorkflowSpan:
    span = WorkflowSpans(provider).start("onboarding", ACME)
    assert span is not None
    return span


def test_what_it_says(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    workflow = start(provider)
    nested = workflow.enter()
    provider.get_tracer("x").start_span("inside").end()
    workflow.exit(nested)
    provider.get_tracer("x").start_span("outside").end()
    workflow.end(None)
    inside, outside, span = exporter.get_finished_spans()
    assert span.name == "invoke_workflow onboarding"
    assert span.kind is SpanKind.INTERNAL
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "onboarding",
        "attribkit.tenant_id": "acme",
        "attribkit.workflow": "onboarding",
        "tenant.id": "acme",
    }
    assert inside.parent.span_id == span.context.span_id
    assert outside.parent is None


def test_an_exception_leaves_its_type_only(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    class Custom(Exception):
        pass

    start(provider).end(ValueError("a prompt"))
    start(provider).end(Custom("a prompt"))
    value, custom = exporter.get_finished_spans()
    assert value.attributes["error.type"] == "ValueError"
    assert custom.attributes["error.type"].endswith(".Custom")
    for span in (value, custom):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        assert not span.events


@pytest.mark.parametrize("end", [GeneratorExit(), SystemExit(), SystemExit(0)])
def test_what_is_no_error(provider: TracerProvider, exporter: InMemorySpanExporter, end: BaseException) -> None:
    start(provider).end(end)
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET


def test_left_in_another_context(
    provider: TracerProvider, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    workflow = start(provider)
    nested = workflow.enter()
    copy = contextvars.copy_context()

    def elsewhere() -> bool:
        workflow.exit(nested)
        return trace.get_current_span().get_span_context().is_valid

    assert copy.run(elsewhere) is False
    assert contextvars.Context().run(elsewhere) is False
    workflow.exit(nested)
    workflow.end()
    assert not trace.get_current_span().get_span_context().is_valid
    assert not caplog.records


def test_what_the_body_attached_and_left_behind_goes(provider: TracerProvider) -> None:
    workflow = start(provider)
    nested = workflow.enter()
    context.attach(baggage.set_baggage("k", "v"))
    workflow.exit(nested)
    assert not trace.get_current_span().get_span_context().is_valid
    workflow.end()


def test_steps_of_interleaved_generators(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    tracer = provider.get_tracer("x")

    async def steps(name: str) -> None:
        workflow = WorkflowSpans(provider).start(name, ACME)
        assert workflow is not None
        for _ in range(3):
            nested = workflow.enter()
            tracer.start_span(f"in {name}").end()
            await asyncio.sleep(0)
            workflow.exit(nested)
        workflow.end()

    async def main() -> None:
        await asyncio.gather(*[steps(f"w{number}") for number in range(5)])

    asyncio.run(main())
    spans: list[Any] = list(exporter.get_finished_spans())
    ids = {span.context.span_id: span.name for span in spans}
    inner = [span for span in spans if span.name.startswith("in ")]
    assert len(inner) == 15
    assert all(ids[span.parent.span_id] == f"invoke_workflow {span.name[3:]}" for span in inner)


def test_a_tracer_that_fails_is_not_the_apps_problem() -> None:
    from attribkit import faults

    class Broken(trace.TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError

    faults.strict(False)
    assert WorkflowSpans(Broken()).start("w", ACME) is None
