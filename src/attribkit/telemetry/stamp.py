"""Puts the attribution in force on every span that starts in scope, whoever starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.telemetry.attributes import AttributionAttributes, put
from attribkit.telemetry.foreign import OpenSpans
from attribkit.telemetry.names import FIELD_PREFIX, SCOPE
from attribkit.telemetry.shown import attributes_of, scope_of

__all__ = ["AttributionProcessor", "Installed", "install", "remove"]

_MAX_WRAPPED = 4


class AttributionProcessor:
    """A span processor of the OpenTelemetry SDK's shape that stamps the attribution in force when a span starts.

    A general name that the span carries already (`user.id`) stays as it is. Spans of attribkit's own scope have their
    attribution from their start. It exports nothing, holds nothing back and never raises.
    """

    attribkit = True

    def __init__(
        self,
        current: Callable[[], Attribution],
        *,
        attributes: AttributionAttributes | None = None,
        open_spans: OpenSpans | None = None,
    ) -> None:
        self._current = current
        self._attributes = attributes if attributes is not None else AttributionAttributes()
        self._open_spans = open_spans
        self.active = True

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Stamp `span`."""
        if not self.active:
            return
        try:
            if scope_of(span) == SCOPE:
                return
            attribution = self._current()
            if attribution:
                stamp = self._attributes(attribution)
                have = attributes_of(span)
                if have:
                    stamp = {
                        name: value
                        for name, value in stamp.items()
                        if name.startswith(FIELD_PREFIX) or name not in have
                    }
                put(span, stamp)
            if self._open_spans is not None:
                self._open_spans.started(span, attribution)
        except Exception as error:
            faults.note("telemetry.stamp", error)

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:
        """Forget `span`, if it was remembered."""
        open_spans = self._open_spans
        if open_spans is not None and open_spans.held:
            try:
                open_spans.ended(span)
            except Exception as error:
                faults.note("telemetry.stamp", error)

    def shutdown(self) -> None:
        """Do nothing: there is nothing to close."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: nothing is held back."""
        return True


class Installed:
    """A processor in its place; hand it to `remove`. Installed twice it is equal."""

    __slots__ = ("multi", "processor", "provider")

    def __init__(self, provider: Any, multi: Any, processor: AttributionProcessor) -> None:
        self.provider, self.multi, self.processor = provider, multi, processor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Installed) and (self.multi, self.processor) == (other.multi, other.processor)

    def __hash__(self) -> int:
        return hash((self.multi, self.processor))


def install(provider: Any, processor: AttributionProcessor) -> Installed | None:
    """Put `processor` in front of the span processors of an SDK tracer provider, so that those after it see the stamp.

    `provider` None means the global one. Returns None, and does nothing, where there is no SDK provider: none set yet,
    or one that is not the SDK's. Call it again once the app has set one. Installing twice is installing once.
    """
    if provider is None:
        trace = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        provider = trace.get_tracer_provider()
    for _ in range(_MAX_WRAPPED):
        multi = getattr(provider, "_active_span_processor", None)
        if multi is not None and isinstance(getattr(multi, "_span_processors", None), tuple):
            processor.active = True
            with multi._lock:
                if not any(one is processor for one in multi._span_processors):
                    multi._span_processors = (processor, *multi._span_processors)
            return Installed(provider, multi, processor)
        inner = getattr(provider, "provider", None)  # Logfire's proxy around the SDK's provider
        if inner is None:
            break
        provider = inner
    add = getattr(provider, "add_span_processor", None)
    if add is None:
        return None
    processor.active = True
    add(processor)
    return Installed(provider, None, processor)


def remove(installed: Installed) -> None:
    """Take out exactly what `install` put in, and leave every other processor and their order as they are.

    Where a provider does not let go of it, the processor stays and does nothing.
    """
    processor, multi = installed.processor, installed.multi
    processor.active = False
    if multi is not None:
        with multi._lock:
            multi._span_processors = tuple(one for one in multi._span_processors if one is not processor)
