"""How many tokens the loopback gateway says a request took, from model and prompt alone, in each API's shape."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

__all__ = ["Tokens", "anthropic_usage", "chat_usage", "responses_usage", "seed_of", "tokens_of"]


class Tokens(NamedTuple):
    """What one reply consumed. `cached` and `audio_input` are parts of `input`, `reasoning` and `audio_output` of
    `output`."""

    input: int
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0


def seed_of(model: str | None, text: str) -> int:
    """Return the number from which counts and answer text are made: the first 8 bytes of SHA-256 of both."""
    return int.from_bytes(hashlib.sha256(f"{model}\n{text}".encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _reasons(model: str) -> bool:
    return model.rsplit("/", 1)[-1].startswith(("gpt-5", "gpt-6", "o1", "o3", "o4"))


def tokens_of(
    model: str | None,
    text: str,
    *,
    words: int = 0,
    limit: int | None = None,
    reasoning: bool = True,
    audio_input: bool = False,
    audio_output: bool = False,
) -> Tokens:
    """Return the counts for a prompt `text` that `model` answers in `words` words, cut at `limit` output tokens.

    With s = seed_of(model, text): input = 300 + len(text) // 4 + s % 2400. When s is even and input is at least
    1,024, about a quarter to three quarters of it, in steps of 128, is cached. Output = words * 4 // 3, plus 64 to
    384 tokens of reasoning for the models that reason.
    """
    seed = seed_of(model, text)
    prompt = 300 + len(text) // 4 + seed % 2400
    cached = 0
    if prompt >= 1024 and seed % 2 == 0:
        cached = prompt * (1 + (seed >> 8) % 3) // 4 // 128 * 128
    thought = 64 * (1 + (seed >> 16) % 6) if words and reasoning and _reasons(model or "") else 0
    output = words * 4 // 3 + thought
    if limit is not None and output > limit:
        output, thought = limit, min(thought, limit)
    heard = (prompt - cached) // 5 if audio_input else 0
    spoken = (output - thought) * 3 // 4 if audio_output else 0
    return Tokens(prompt, cached, output, thought, heard, spoken)


def chat_usage(t: Tokens) -> dict[str, Any]:
    """Return the usage object of Chat Completions."""
    return {
        "prompt_tokens": t.input,
        "completion_tokens": t.output,
        "total_tokens": t.input + t.output,
        "prompt_tokens_details": {"cached_tokens": t.cached, "audio_tokens": t.audio_input},
        "completion_tokens_details": {
            "reasoning_tokens": t.reasoning,
            "audio_tokens": t.audio_output,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses_usage(t: Tokens) -> dict[str, Any]:
    """Return the usage object of the Responses API."""
    return {
        "input_tokens": t.input,
        "input_tokens_details": {"cached_tokens": t.cached, "cache_write_tokens": 0},
        "output_tokens": t.output,
        "output_tokens_details": {"reasoning_tokens": t.reasoning},
        "total_tokens": t.input + t.output,
    }


def anthropic_usage(t: Tokens) -> dict[str, Any]:
    """Return the usage object of the Anthropic Messages API, whose input count leaves cached tokens out."""
    return {
        "input_tokens": t.input - t.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": t.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": t.output,
        "service_tier": "standard",
    }
