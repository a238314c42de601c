"""Pydantic AI: a run whose events are asked for starts where it is entered, and is for whoever it was made for."""

from __future__ import annotations

from attribkit.instrumentation.deferred import when_entered
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]


def patches() -> tuple[Patch, ...]:
    """Return the row of `run_stream_events`. (What the other ways of running return knows where it was made.)"""
    module, path = "pydantic_ai.agent.abstract", "_RunStreamEventsContext.__init__"
    return (Patch(module, path, when_entered, "pydantic_ai", "pydantic-ai-slim", False),)
