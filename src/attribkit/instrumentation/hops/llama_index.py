"""LlamaIndex: a model's stream asks when its first piece is wanted, and is for whoever it was made for."""

from __future__ import annotations

from typing import Any

from attribkit.instrumentation.deferred import iterates, streams, streams_async
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]


def patches() -> tuple[Patch, ...]:
    """Return the rows that keep the scope of streams: those of LlamaIndex's OpenAI models, and the answers of query
    engines."""

    def row(module: str, path: str, wrapper: Any, distribution: str) -> Patch:
        return Patch(f"llama_index.{module}", path, wrapper, "llama_index", distribution, False)

    models, answers = ("llms.openai.base", "llama-index-llms-openai"), ("core.base.response.schema", "llama-index-core")
    return (
        row(models[0], "OpenAI.stream_chat", streams, models[1]),
        row(models[0], "OpenAI.stream_complete", streams, models[1]),
        row(models[0], "OpenAI.astream_chat", streams_async, models[1]),
        row(models[0], "OpenAI.astream_complete", streams_async, models[1]),
        row(answers[0], "StreamingResponse.__init__", iterates("response_gen"), answers[1]),
        row(answers[0], "AsyncStreamingResponse.__init__", iterates("response_gen"), answers[1]),
    )
