"""Usage as frameworks restate it: LangChain's usage_metadata, OpenTelemetry's GenAI attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribkit.usage.counts import count, part, split_input, split_output, text_of, usage_of
from attribkit.usage.model import Usage

__all__ = ["from_langchain", "from_otel"]


def from_langchain(payload: Mapping[str, Any]) -> Usage:
    """Read LangChain's UsageMetadata, where every total includes its details, whatever the provider's habit."""
    problems: list[str] = []
    read = part(payload, "input_token_details", problems) or {}
    made = part(payload, "output_token_details", problems) or {}
    long = count(read, "ephemeral_1h_input_tokens", problems)
    short = count(read, "ephemeral_5m_input_tokens", problems)
    written = max(count(read, "cache_creation", problems), short + long)
    tier = None
    for name in ("priority", "flex"):  # langchain-openai prefixes details with the tier that served the call
        if f"{name}_cache_read" in read or name in read or name in made:
            tier = name
    cached = count(read, "cache_read", problems) + (count(read, f"{tier}_cache_read", problems) if tier else 0)
    meters = split_input(
        count(payload, "input_tokens", problems),
        problems=problems,
        cached=cached,
        written=written,
        written_1h=long,
        audio=count(read, "audio", problems),
        image=count(read, "image", problems),
        video=count(read, "video", problems),
    )
    meters += split_output(
        count(payload, "output_tokens", problems),
        problems=problems,
        audio=count(made, "audio", problems),
        image=count(made, "image", problems),
        video=count(made, "video", problems),
    )
    reasoning = count(made, "reasoning", problems) + (count(made, f"{tier}_reasoning", problems) if tier else 0)
    return usage_of(meters, problems, reasoning=reasoning, tier=tier)


def from_otel(attributes: Mapping[str, Any]) -> Usage:
    """Read span attributes under the current GenAI names or the previous ones. Input includes cached tokens."""
    problems: list[str] = []

    def first(*names: str) -> int:
        for name in names:
            if attributes.get(name) is not None:
                return count(attributes, name, problems)
        return 0

    usage = "gen_ai.usage."
    meters = split_input(
        first(usage + "input_tokens", usage + "prompt_tokens"),
        problems=problems,
        cached=first(usage + "cache_read.input_tokens", usage + "cache_read_input_tokens"),
        written=first(
            usage + "cache_write.input_tokens",
            usage + "cache_creation.input_tokens",
            usage + "cache_creation_input_tokens",
        ),
        audio=first(usage + "audio.input_tokens"),
        image=first(usage + "image.input_tokens"),
        cached_audio=first(usage + "audio.cache_read.input_tokens"),
        cached_image=first(usage + "image.cache_read.input_tokens"),
    )
    meters += split_output(
        first(usage + "output_tokens", usage + "completion_tokens"),
        problems=problems,
        audio=first(usage + "audio.output_tokens"),
        image=first(usage + "image.output_tokens"),
    )
    tier = text_of(attributes, "openai.response.service_tier") or text_of(
        attributes, "gen_ai.openai.response.service_tier"
    )
    return usage_of(
        meters,
        problems,
        reasoning=first(usage + "reasoning.output_tokens"),
        model=text_of(attributes, "gen_ai.response.model"),
        tier=tier,
    )
