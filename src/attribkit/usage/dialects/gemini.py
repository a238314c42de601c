"""Gemini's usageMetadata, from the Gemini API and from Vertex AI, in camelCase or snake_case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribkit.usage.counts import Meters, amount, count, split_input, split_output, text_of, usage_of
from attribkit.usage.model import Usage

__all__ = ["from_generate_content", "from_predictions", "grounding", "with_grounding"]

_CAMEL = (
    "promptTokenCount",
    "promptTokensDetails",
    "cachedContentTokenCount",
    "cacheTokensDetails",
    "candidatesTokenCount",
    "candidatesTokensDetails",
    "responseTokenCount",  # the Live API
    "responseTokensDetails",
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
    "toolUsePromptTokensDetails",
    "trafficType",
)
_SNAKE = (
    "prompt_token_count",
    "prompt_tokens_details",
    "cached_content_token_count",
    "cache_tokens_details",
    "candidates_token_count",
    "candidates_tokens_details",
    "response_token_count",
    "response_tokens_details",
    "thoughts_token_count",
    "tool_use_prompt_token_count",
    "tool_use_prompt_tokens_details",
    "traffic_type",
)
_TIERS = {
    "ON_DEMAND": "standard",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_OFFPEAK": "offpeak",
    "PROVISIONED_THROUGHPUT": "provisioned",
}


def from_generate_content(payload: Mapping[str, Any]) -> Usage:
    """Read a usageMetadata object.

    `promptTokenCount` includes the cached tokens; thoughts are outside the candidates and billed as output; tokens of
    tool results (`toolUsePromptTokenCount`) come on top of the prompt and are billed as input. `trafficType` names
    the tier on Vertex, `serviceTier` on the Gemini API. `grounding` is ours: what
    `grounding` found in the reply.
    """
    names = _SNAKE if "prompt_token_count" in payload or "candidates_token_count" in payload else _CAMEL
    problems: list[str] = []
    prompt = count(payload, names[0], problems)
    cached = count(payload, names[2], problems)
    thoughts = count(payload, names[8], problems)
    tool = count(payload, names[9], problems)
    _, audio, image, video = _by_modality(payload, names[1], problems)
    cached_audio = cached_image = 0
    if cached:
        _, cached_audio, cached_image, cached_video = _by_modality(payload, names[3], problems)
        if cached_video:  # no provider has a price of its own for cached video
            video -= min(cached_video, video)
    if tool:
        _, tool_audio, tool_image, tool_video = _by_modality(payload, names[10], problems)
        audio, image, video = audio + tool_audio, image + tool_image, video + tool_video
    meters = split_input(
        prompt + tool,
        problems=problems,
        cached=cached,
        audio=audio,
        image=image,
        video=video,
        cached_audio=cached_audio,
        cached_image=cached_image,
    )
    out, details = names[4], names[5]
    if payload.get(out) is None and payload.get(names[6]) is not None:
        out, details = names[6], names[7]
    candidates = count(payload, out, problems)
    _, audio, image, video = _by_modality(payload, details, problems)
    meters += split_output(candidates + thoughts, problems=problems, audio=audio, image=image, video=video)
    tier = payload.get(names[11])
    if tier is not None:
        tier = _TIERS.get(getattr(tier, "value", tier) if not isinstance(tier, list | dict) else "")
    if tier is None:
        tier = text_of(payload, "serviceTier") or text_of(payload, "service_tier")
    usage = usage_of(meters, problems, reasoning=thoughts, tier=tier)
    grounded = payload.get("grounding")
    return with_grounding(usage, grounded) if isinstance(grounded, Mapping) else usage


def from_predictions(payload: Mapping[str, Any]) -> Usage:
    """Read what Imagen and Veo have made: images, seconds of video. They have one price for all sizes."""
    problems: list[str] = []
    images, seconds = count(payload, "images", problems), amount(payload, "video_seconds", problems)
    meters: Meters = [("images_output", images)] if images else []
    if seconds:
        meters.append(("seconds_output", seconds))
    return usage_of(meters, problems)


def grounding(candidates: Any) -> dict[str, int]:
    """Return what the candidates of a reply say of Google's grounding, under the names of the meters; {} when nothing
    was grounded.

    Models up to Gemini 2.5 are billed by the prompt that got a source, later ones by the query; Google Maps by the
    prompt. Which of them costs something is the model's price to say. A prompt for which no source was found is free.
    """
    found = {"grounding": 0, "grounded_prompts": 0, "maps_grounding": 0}
    for candidate in candidates if isinstance(candidates, list | tuple) else ():
        said = _either(candidate, "groundingMetadata", "grounding_metadata")
        chunks = _either(said, "groundingChunks", "grounding_chunks")
        if not isinstance(chunks, list | tuple) or not chunks:
            continue
        queries = _either(said, "webSearchQueries", "web_search_queries")
        if any(_either(chunk, "web", "web") is not None for chunk in chunks):
            found["grounded_prompts"] = 1
            found["grounding"] += len(queries) if isinstance(queries, list | tuple) and queries else 1
        if any(_either(chunk, "maps", "maps") is not None for chunk in chunks):
            found["maps_grounding"] = 1
    return {meter: quantity for meter, quantity in found.items() if quantity}


def with_grounding(usage: Usage, found: Mapping[str, Any]) -> Usage:
    """Return `usage` with the meters of `grounding`."""
    problems = list(usage.problems)
    more = [(meter, count(found, meter, problems)) for meter in ("grounding", "grounded_prompts", "maps_grounding")]
    added = tuple((meter, quantity) for meter, quantity in more if quantity)
    if len(problems) > len(usage.problems):
        return usage._replace(known=False, problems=tuple(problems))
    return usage._replace(meters=(*usage.meters, *added)) if added else usage


def _either(part: Any, camel: str, snake: str) -> Any:
    if not isinstance(part, Mapping):
        return None
    value = part.get(camel)
    return part.get(snake) if value is None else value


def _by_modality(payload: Mapping[str, Any], key: str, problems: list[str]) -> tuple[int, int, int, int]:
    """Return (text and documents, audio, image, video) token counts of a details list, zeros when there is none."""
    details = payload.get(key)
    if not details:
        return 0, 0, 0, 0
    if not isinstance(details, list | tuple):
        problems.append(f"{key} is a {type(details).__name__}, not a list")
        return 0, 0, 0, 0
    text = audio = image = video = 0
    for row in details:
        if not isinstance(row, Mapping):
            problems.append(f"{key} holds a {type(row).__name__}")
            continue
        tokens = count(row, "tokenCount" if "tokenCount" in row else "token_count", problems)
        modality = row.get("modality")
        modality = getattr(modality, "value", modality)
        if modality == "AUDIO":
            audio += tokens
        elif modality == "IMAGE":
            image += tokens
        elif modality == "VIDEO":
            video += tokens
        else:
            text += tokens
    return text, audio, image, video
