"""LlamaIndex: a model's stream asks when its first piece is wanted, and is for whoever it was made for."""

from __future__ import annotations

import types
from typing import Any

from attribkit import context
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]

_STREAMS = (types.GeneratorType, types.AsyncGeneratorType)


def _stream(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made, here = wrapped(*args, **kwargs), context.in_force()
    return context.bound(made, here) if isinstance(made, _STREAMS) and here.attribution else made


async def _stream_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = context.in_force()
    made = await wrapped(*args, **kwargs)
    return context.bound(made, here) if isinstance(made, _STREAMS) and here.attribution else made


def patches() -> tuple[Patch, ...]:
    """Return the rows that keep the scope of streams of LlamaIndex's OpenAI models."""
    rows = (
        ("OpenAI.stream_chat", _stream),
        ("OpenAI.stream_complete", _stream),
        ("OpenAI.astream_chat", _stream_async),
        ("OpenAI.astream_complete", _stream_async),
    )
    return tuple(
        Patch("llama_index.llms.openai.base", path, wrapper, "llama_index", "llama-index-llms-openai", False)
        for path, wrapper in rows
    )
