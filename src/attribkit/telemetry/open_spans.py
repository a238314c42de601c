"""A span of another GenAI instrumentor while it is open, and which of several is that of the call that begins."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Literal

from attribkit.attribution import Attribution
from attribkit.telemetry.names import INFERENCE_OPERATIONS, KINDS, OPERATION, operation_of
from attribkit.telemetry.shown import attributes_of, scope_of

__all__ = ["Open", "claimed", "is_call", "is_inference"]

_MARKS = frozenset({OPERATION, *(attribute for attribute, _ in KINDS)})


def is_inference(attributes: Mapping[str, Any]) -> bool:
    """True for the attributes of a span that is one model call, whoever wrote them."""
    return not _MARKS.isdisjoint(attributes) and operation_of(attributes) in INFERENCE_OPERATIONS


_opened: ContextVar[Open | None] = ContextVar("attribkit.telemetry.opened", default=None)
"""The latest span of a GenAI instrumentor that was started in this Context or in one it was copied from. It says
nothing of attribution, and is of use only while that span is open."""


class Open:
    __slots__ = ("attribution", "claimed", "outer", "shared", "span", "task", "thread", "trace_id")

    def __init__(self, span: Any, trace_id: int, attribution: Attribution) -> None:
        self.span, self.trace_id, self.attribution = span, trace_id, attribution
        self.thread = threading.get_ident()
        task = _task()
        self.task = None if task is None else weakref.ref(task)
        self.claimed = False  # a call has it, or has one of those that it was mistaken for
        self.shared = False  # it fitted a call that others fitted too
        outer: Open | None = _opened.get()
        while outer is not None and not outer.span.is_recording():
            outer = outer.outer
        self.outer: Open | None = outer

    def latest(self) -> None:
        """It is the latest that was started in this Context."""
        _opened.set(self)

    def from_callback(self, thread: int) -> bool:
        """True when it may have been started for a task of `thread` by a callback that ran apart from it."""
        if self.task is None:
            return self.thread != thread
        task = self.task()
        return task is None or task.done()


def claimed(held: Iterable[Open], trace_id: int, attribution: Attribution) -> Any | Literal[False] | None:
    """Return the span that `OpenSpans.claim` returns."""
    fitting = [
        one
        for one in held
        if not one.claimed
        and (not trace_id or one.trace_id == trace_id)
        and _agree(one.attribution, attribution)
        and one.span.is_recording()
        and is_call(one.span)
    ]
    if not fitting:
        return None
    thread, task = threading.get_ident(), _task()
    here = _opened.get()
    while here is not None:  # of several around one call, the innermost
        if here in fitting:
            here.claimed = True
            return here.span
        here = here.outer
    if task is None:
        return None
    fitting = [one for one in fitting if one.from_callback(thread)]
    if not fitting:
        return None
    first = fitting[0]
    first.claimed = True
    if len(fitting) == 1 and not first.shared:
        return first.span
    for one in fitting:
        one.shared = True
    return False


def _task() -> Any:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _agree(span: Attribution, call: Attribution) -> bool:
    """True when the span began under the call's attribution, or under less of it (the rest was adopted since)."""
    return span is call or set(span.fields) <= set(call.fields)


def is_call(span: Any) -> bool:
    """True for a span that is one model call, also where its instrumentor writes the attributes only at the end."""
    attributes = attributes_of(span)
    if operation_of(attributes) is not None:
        return is_inference(attributes)
    scope = scope_of(span)
    if scope == "opentelemetry.util.genai.handler":  # 0.4b0, beneath opentelemetry-instrumentation-openai-v2
        return getattr(span, "name", "").partition(" ")[0] in INFERENCE_OPERATIONS
    return scope == "openinference.instrumentation.langchain" and _is_openinference_model_run(span)


def _is_openinference_model_run(span: Any) -> bool:
    """True when `span` is a model run of OpenInference's LangChain tracer, which writes attributes only at the end
    (0.1.80): the tracer's own tables of runs and spans say what it is."""
    module = sys.modules.get("openinference.instrumentation.langchain")
    try:
        tracer = module.LangChainInstrumentor()._tracer  # type: ignore[union-attr]
        span_id = span.get_span_context().span_id
        for run_id, known in list(tracer._spans_by_run.items()):
            if known.get_span_context().span_id == span_id:
                return tracer.run_map[str(run_id)].run_type in ("llm", "chat_model")
    except Exception:
        pass
    return False
