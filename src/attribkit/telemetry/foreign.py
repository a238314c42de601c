"""Recognises the spans of other GenAI instrumentors, so that one model call does not get two."""

from __future__ import annotations

import os
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal

from attribkit.attribution import Attribution
from attribkit.late import Late
from attribkit.telemetry.names import SCOPE
from attribkit.telemetry.shown import attributes_of, scope_of

if TYPE_CHECKING:
    from attribkit.telemetry import open_spans
else:
    open_spans = Late(f"{__package__}.open_spans")

__all__ = ["OpenSpans", "attributes_of", "is_call", "scope_of"]

_FAMILY = (
    r"(?i:openai|anthropic|langchain|langgraph|litellm|llama|bedrock|genai|gen_ai|vertexai|mistral|cohere|groq|ollama"
    r"|langfuse|openinference|traceloop|openlit|logfire|mlflow|pydantic[-_.]ai|semantic_kernel|dspy|haystack|agno"
    r"|crewai|smolagents|autogen)"
)
_MAX_OPEN = 2048
_MAX_SCOPES = 1024


def is_call(span: Any) -> bool:
    """True for a span that is one model call, also where its instrumentor writes the attributes only at the end."""
    return open_spans.is_call(span)


class OpenSpans:
    """The spans of GenAI instrumentors that are under way but not current.

    Callback-based instrumentors (OpenInference and Traceloop on LangChain, Langfuse) start a call's span without making
    it current. It is found by what it has in common with the call: the trace, the attribution in force when each began,
    that it is a model call no other call has claimed, and that it was started in the call's own Context. LangChain runs
    some callbacks in worker threads or tasks of their own: spans started there fit every call of a task, so that
    several may fit.
    """

    def __init__(self) -> None:
        self.held: dict[int, open_spans.Open] = {}
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
            trace = span.get_span_context()
            opened = open_spans.Open(span, trace.trace_id, attribution)
            with self._lock:
                if len(self.held) >= _MAX_OPEN:  # spans that nobody ends
                    del self.held[next(iter(self.held))]
                self.held[trace.span_id] = opened
            opened.latest()

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
        claimed = open_spans.claimed
        with self._lock:
            return claimed(self.held.values(), trace_id, attribution)
