"""The span around an entrypoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.telemetry import names, nesting
from attribkit.telemetry.attributes import AttributionAttributes, put, text
from attribkit.telemetry.spans import Tracers

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["WorkflowSpan", "WorkflowSpans"]


class WorkflowSpan:
    """One `invoke_workflow` span, made current around each step of the workflow's body. Nothing here raises."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def enter(self) -> nesting.Nested | None:
        """Make the span current; hand what is returned to `exit`."""
        try:
            return nesting.enter(self._span)
        except Exception as error:
            faults.note("telemetry.workflow.enter", error)
            return None

    def exit(self, nested: nesting.Nested | None) -> None:
        """Put back what was current before, in whichever Context the step ended."""
        if nested is not None:
            try:
                nesting.leave(nested)
            except Exception as error:
                faults.note("telemetry.workflow.exit", error)

    def end(self, error: BaseException | None = None) -> None:
        """End the span. Of an exception it keeps the type: its message can hold content.

        GeneratorExit (a consumer that stopped reading) and SystemExit with a code of 0 or None are no errors.
        """
        span = self._span
        try:
            if error is not None and not _is_an_end(error):
                from opentelemetry.trace import StatusCode

                kind = type(error)
                module = kind.__module__
                span.set_attribute(
                    names.ERROR_TYPE, kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
                )
                span.set_status(StatusCode.ERROR)
            span.end()
        except Exception as fault:
            faults.note("telemetry.workflow.end", fault)


class WorkflowSpans:
    """Opens `invoke_workflow` spans; `start` is what `context.observe_workflows` takes."""

    def __init__(
        self, tracer_provider: TracerProvider | None = None, *, attributes: AttributionAttributes | None = None
    ) -> None:
        self._tracers = Tracers(tracer_provider)
        self._attributes = attributes if attributes is not None else AttributionAttributes()

    def start(self, name: str, attribution: Attribution) -> WorkflowSpan | None:
        """Return the span of a workflow that begins now, None when nothing records it."""
        try:
            tracer = self._tracers.tracer()
            if tracer is None:
                return None
            name = text(name)
            items: dict[str, Any] = {
                names.OPERATION: "invoke_workflow",
                names.WORKFLOW_NAME: name,
                **self._attributes(attribution),
            }
            if self._tracers.unseen(tracer):
                span = tracer.start_span(f"invoke_workflow {name}")
                if span.is_recording():
                    put(span, items)
            else:
                span = tracer.start_span(f"invoke_workflow {name}", attributes=items)
        except Exception as error:
            faults.note("telemetry.workflow.start", error)
            return None
        return WorkflowSpan(span) if span.is_recording() else None


def _is_an_end(error: BaseException) -> bool:
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and error.code in (None, 0))
