"""Recognises the spans of other GenAI instrumentors, so that one model call does not get two."""

from __future__ import annotations

import os
import re
import sys
import threading
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal

from attribkit.attribution import Attribution
from attribkit.telemetry.names import INFERENCE_OPERATIONS, KINDS, OPERATION, SCOPE, operation_of

__all__ = ["OpenSpans", "attributes_of", "is_call", "is_inference", "scope_of"]

_FAMILY = (
    r"(?i:openai|anthropic|langchain|langgraph|litellm|llama|bedrock|genai|gen_ai|vertexai|mistral|cohere|groq|ollama"
    r"|langfuse|openinference|traceloop|openlit|logfire|mlflow|pydantic[-_.]ai|semantic_kernel|dspy|haystack|agno"
    r"|crewai|smolagents|autogen)"
)
_MAX_OPEN = 2048
_MAX_SCOPES = 1024
_NOTHING: Mapping[str, Any] = {}


def scope_of(span: Any) -> str:
    """Return the name of the instrumentation scope that started `span`, "" when it does not say."""
    try:
        name = span.instrumentation_scope.name
    except AttributeError:
        return ""
    return name if type(name) is str else ""


def attributes_of(span: Any) -> Mapping[str, Any]:
    """Return a span's attributes as they are now, empty when it does not show them."""
    attributes = getattr(span, "attributes", None)
    if attributes is None:
        return _NOTHING
    try:
        copied = attributes.copy()  # in one step; `get` and `in` of the SDK's own mapping are Python
        return copied if type(copied) is dict else dict(attributes)
    except Exception:
        return dict(attributes)


_MARKS = frozenset({OPERATION, *(attribute for attribute, _ in KINDS)})


def is_inference(attributes: Mapping[str, Any]) -> bool:
    """True for the attributes of a span that is one model call, whoever wrote them."""
    return not _MARKS.isdisjoint(attributes) and operation_of(attributes) in INFERENCE_OPERATIONS


_opened: ContextVar[_Open | None] = ContextVar("attribkit.telemetry.opened", default=None)
"""The latest span of a GenAI instrumentor that was started in this Context or in one it was copied from. It says
nothing of attribution, and is of use only while that span is open."""


class _Open:
    __slots__ = ("attribution", "claimed", "outer", "shared", "span", "task", "thread", "trace_id")

    def __init__(self, span: Any, trace_id: int, attribution: Attribution) -> None:
        self.span, self.trace_id, self.attribution = span, trace_id, attribution
        self.thread = threading.get_ident()
        task = _task()
        self.task = None if task is None else weakref.ref(task)
        self.claimed = False  # a call has it, or has one of those that it was mistaken for
        self.shared = False  # it fitted a call that others fitted too
        outer: _Open | None = _opened.get()
        while outer is not None and not outer.span.is_recording():
            outer = outer.outer
        self.outer: _Open | None = outer

    def from_callback(self, thread: int) -> bool:
        """True when it may have been started for a task of `thread` by a callback that ran apart from it."""
        if self.task is None:
            return self.thread != thread
        task = self.task()
        return task is None or task.done()


class OpenSpans:
    """The spans of GenAI instrumentors that are under way but not current.

    Callback-based instrumentors (OpenInference and Traceloop on LangChain, Langfuse) start a call's span without making
    it current. It is found by what it has in common with the call: the trace, the attribution in force when each began,
    that it is a model call no other call has claimed, and that it was started in the call's own Context. LangChain runs
    some callbacks in worker threads or tasks of their own: spans started there fit every call of a task, so that
    several may fit.
    """

    def __init__(self) -> None:
        self.held: dict[int, _Open] = {}
        """By span id; empty where no such instrumentor is at work."""
        self._family: dict[str, bool] = {}
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            ref = weakref.ref(self)

            def renew() -> None:
                spans = ref()
                if spans is not None:
                    spans._lock = threading.Lock()

            os.register_at_fork(after_in_child=renew)

    def started(self, span: Any, attribution: Attribution) -> None:
        """Remember `span` if its instrumentation scope is that of a GenAI instrumentor."""
        scope = scope_of(span)
        theirs = self._family.get(scope)
        if theirs is None:
            if len(self._family) >= _MAX_SCOPES:
                self._family.clear()
            theirs = self._family[scope] = scope != SCOPE and re.search(_FAMILY, scope) is not None
        if theirs:
            context = span.get_span_context()
            with self._lock:
                if len(self.held) >= _MAX_OPEN:  # spans that nobody ends
                    del self.held[next(iter(self.held))]
                opened = self.held[context.span_id] = _Open(span, context.trace_id, attribution)
            _opened.set(opened)

    def ended(self, span: Any) -> None:
        """Forget `span`."""
        if not self.held:
            return
        with self._lock:
            gone = self.held.pop(span.context.span_id, None)
            if gone is not None and gone.shared and not gone.claimed:
                for one in self.held.values():
                    if one.shared and one.claimed and one.trace_id == gone.trace_id:
                        one.claimed = False  # the call that took it was the other one's
                        break

    def claim(self, trace_id: int, attribution: Attribution) -> Any | Literal[False] | None:
        """Return the open span of the call that begins now, and keep it from being claimed again.

        `trace_id` is that of the current span, 0 when there is none. None when no span fits. False when several fit:
        then one of them is the call's and no further span is needed, but none is taken at a guess, now or later.
        """
        if not self.held:
            return None
        with self._lock:
            fitting = [
                one
                for one in self.held.values()
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
