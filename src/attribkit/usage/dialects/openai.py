"""OpenAI's usage objects: Chat Completions (and the many servers that speak it), Responses, embeddings, images,
audio and Realtime.

Prompt and input counts include cached, cache-write, audio and image tokens; completion and output counts include
reasoning, audio, and accepted and rejected prediction tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribkit.usage.counts import MOST, Meters, amount, count, part, split_input, split_output, usage_of
from attribkit.usage.model import NO_USAGE, Usage

__all__ = ["from_chat", "from_duration", "from_embeddings", "from_images", "from_responses"]


_CACHED_ELSEWHERE = frozenset(("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens"))
"""DeepSeek says the first, Moonshot and Together the second, Mistral the third, beside the totals."""


_INT = {int}


def _plain_chat(payload: Mapping[str, Any]) -> Usage | None:
    """Read a payload of text tokens, cached or not, as nearly all are; None for any other. On every call's path."""
    try:
        prompt, completion = payload["prompt_tokens"], payload["completion_tokens"]
        asked, made = payload["prompt_tokens_details"], payload["completion_tokens_details"]
        # What the details say beside 0 and null: audio, images and predictions are not for here.
        parts, shares = [*filter(None, asked.values())], [*filter(None, made.values())]
        cached, reasoning = asked["cached_tokens"] if parts else 0, made["reasoning_tokens"] if shares else 0
    except (KeyError, TypeError, AttributeError):
        return None
    if (parts and parts != [cached]) or (shares and shares != [reasoning]):
        return None
    if {type(prompt), type(completion), type(cached), type(reasoning)} != _INT:
        return None
    if not (0 <= cached <= prompt <= MOST and 0 <= completion <= MOST and 0 <= reasoning <= MOST):
        return None
    if not _CACHED_ELSEWHERE.isdisjoint(payload):
        return None
    meters: tuple[tuple[str, int], ...]
    if cached:
        meters = (("input", prompt - cached), ("cache_read", cached), ("output", completion))
        if cached == prompt or not completion:
            meters = tuple(meter for meter in meters if meter[1])
    elif prompt and completion:
        meters = (("input", prompt), ("output", completion))
    else:
        meters = (("input", prompt),) if prompt else (("output", completion),) if completion else ()
    return tuple.__new__(Usage, (meters, reasoning, True, (), None, None, None, None, None, None))


def from_chat(payload: Mapping[str, Any]) -> Usage:
    """Read a Chat Completions usage object."""
    plain = _plain_chat(payload)
    if plain is not None:
        return plain
    problems: list[str] = []
    prompt = count(payload, "prompt_tokens", problems)
    completion = count(payload, "completion_tokens", problems)
    cached = written = audio = image = reasoning = audio_out = image_out = 0
    details = part(payload, "prompt_tokens_details", problems)
    if details is not None:
        cached = count(details, "cached_tokens", problems)
        written = count(details, "cache_write_tokens", problems) or count(details, "cache_creation_tokens", problems)
        audio = count(details, "audio_tokens", problems)
        image = count(details, "image_tokens", problems)
    if not cached and not _CACHED_ELSEWHERE.isdisjoint(payload):
        cached = (
            count(payload, "prompt_cache_hit_tokens", problems)
            or count(payload, "cached_tokens", problems)
            or count(payload, "num_cached_tokens", problems)
        )
    details = part(payload, "completion_tokens_details", problems)
    if details is not None:
        reasoning = count(details, "reasoning_tokens", problems)
        audio_out = count(details, "audio_tokens", problems)
        image_out = count(details, "image_tokens", problems)
    if cached or written or audio or image:
        meters = split_input(prompt, problems=problems, cached=cached, written=written, audio=audio, image=image)
    else:
        meters = [("input", prompt)] if prompt else []
    if audio_out or image_out:
        meters += split_output(completion, problems=problems, audio=audio_out, image=image_out)
    elif completion:
        meters.append(("output", completion))
    return Usage(tuple(meters), reasoning, not problems, tuple(problems))


def from_responses(payload: Mapping[str, Any]) -> Usage:
    """Read a Responses, Realtime or transcription usage object (`input_tokens` includes everything)."""
    return _from_input_output(payload, image_endpoint=False)


def from_images(payload: Mapping[str, Any]) -> Usage:
    """Read an images usage object, whose output tokens are image tokens unless it splits them."""
    return _from_input_output(payload, image_endpoint=True)


def from_embeddings(payload: Mapping[str, Any]) -> Usage:
    """Read an embeddings usage object; Voyage and Jina state only `total_tokens`."""
    problems: list[str] = []
    tokens = count(payload, "prompt_tokens", problems) or count(payload, "total_tokens", problems)
    return usage_of([("input", tokens)] if tokens else [], problems)


def from_duration(payload: Mapping[str, Any]) -> Usage:
    """Read a transcription billed by its length in seconds."""
    problems: list[str] = []
    seconds = amount(payload, "seconds", problems)
    if seconds is None:
        return NO_USAGE._replace(problems=tuple(problems))
    return usage_of([("seconds", seconds)] if seconds else [], problems)


def _from_input_output(payload: Mapping[str, Any], *, image_endpoint: bool) -> Usage:
    problems: list[str] = []
    total_in = count(payload, "input_tokens", problems)
    total_out = count(payload, "output_tokens", problems)
    cached = written = audio = image = cached_audio = cached_image = reasoning = audio_out = image_out = 0
    # Responses and images say input_tokens_details; Realtime and transcriptions input_token_details
    details = part(payload, "input_tokens_details", problems) or part(payload, "input_token_details", problems)
    if details is not None:
        cached = count(details, "cached_tokens", problems)
        written = count(details, "cache_write_tokens", problems)
        audio = count(details, "audio_tokens", problems)
        image = count(details, "image_tokens", problems)
        inner = part(details, "cached_tokens_details", problems)
        if inner is not None:
            cached_audio = count(inner, "audio_tokens", problems)
            cached_image = count(inner, "image_tokens", problems)
    details = part(payload, "output_tokens_details", problems) or part(payload, "output_token_details", problems)
    if details is not None:
        reasoning = count(details, "reasoning_tokens", problems)
        audio_out = count(details, "audio_tokens", problems)
        image_out = count(details, "image_tokens", problems)
        if image_endpoint and not image_out and not count(details, "text_tokens", problems):
            image_out = total_out
    elif image_endpoint:
        image_out = total_out
    meters: Meters
    if cached or written or audio or image:
        meters = split_input(
            total_in,
            problems=problems,
            cached=cached,
            written=written,
            audio=audio,
            image=image,
            cached_audio=cached_audio,
            cached_image=cached_image,
        )
    else:
        meters = [("input", total_in)] if total_in else []
    if audio_out or image_out:
        meters += split_output(total_out, problems=problems, audio=audio_out, image=image_out)
    elif total_out:
        meters.append(("output", total_out))
    tools = payload.get("server_side_tool_usage_details") or payload.get("num_server_side_tools_used")
    if isinstance(tools, Mapping):
        _count_tools(tools, meters, problems)
    return Usage(tuple(meters), reasoning, not problems, tuple(problems))


def _count_tools(tools: Mapping[str, Any], meters: Meters, problems: list[str]) -> None:
    """xAI states its server-side tools inside usage; each call has a price."""
    for key, meter in (
        ("web_search_calls", "web_search"),
        ("x_search_calls", "x_search"),
        ("code_interpreter_calls", "code_execution"),
        ("file_search_calls", "file_search"),
    ):
        calls = count(tools, key, problems)
        if calls:
            meters.append((meter, calls))
