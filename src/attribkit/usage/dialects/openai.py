"""OpenAI's usage objects: Chat Completions (and the many servers that speak it), Responses, embeddings, images,
audio and Realtime.

Prompt and input counts include cached, cache-write, audio and image tokens; completion and output counts include
reasoning, audio, and accepted and rejected prediction tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from attribkit.usage.counts import MOST, Meters, amount, count, part, split_input, split_output, text_of, usage_of
from attribkit.usage.model import NO_USAGE, Usage

__all__ = [
    "from_chat",
    "from_duration",
    "from_embeddings",
    "from_images",
    "from_request",
    "from_responses",
    "plain_chat",
    "text_counts",
    "tool_calls",
    "with_tools",
]


_CACHED_ELSEWHERE = frozenset(("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens"))
"""DeepSeek says the first, Moonshot and Together the second, Mistral the third, beside the totals."""


_counts_of = itemgetter("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
_new = tuple.__new__


Counts = tuple[tuple[tuple[str, int], ...], int, int]
"""Meters of text, reasoning tokens, and all input tokens."""


def text_counts(payload: Any) -> Counts | None:
    """Read a payload of text tokens, cached or not, as nearly all are, JSON or a model; None for any other."""
    if type(payload) is not dict:
        return model_counts(payload)
    try:
        prompt, completion, asked, made = _counts_of(payload)
        # What the details say beside 0 and null: audio, images and predictions are not for here.
        cached = 0 if asked is None else _only(asked, "cached_tokens")
        reasoning = 0 if made is None else _only(made, "reasoning_tokens")
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    if len(payload) > 5 and not _CACHED_ELSEWHERE.isdisjoint(payload):  # the four and their total are five
        return None
    return _counted(prompt, completion, cached, reasoning)


def model_counts(usage: Any) -> Counts | None:
    """The same for the SDK's model of such a payload. On every call's path."""
    try:
        if usage.__pydantic_extra__:
            return None
        prompt, completion, asked, made = _counts_of(usage.__dict__)
        cached = reasoning = 0
        if asked is not None:
            if asked.__pydantic_extra__:
                return None
            details = asked.__dict__
            said = details.values()
            if any(said):
                (cached,) = filter(None, said)
                if cached is not details["cached_tokens"]:
                    return None
        if made is not None:
            if made.__pydantic_extra__:
                return None
            details = made.__dict__
            said = details.values()
            if any(said):
                (reasoning,) = filter(None, said)
                if reasoning is not details["reasoning_tokens"]:
                    return None
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    return _counted(prompt, completion, cached, reasoning)


def _only(details: Mapping[str, Any], name: str) -> Any:
    """Return what `details` say under `name`, 0 for nothing. Raises ValueError where they say anything else."""
    (said,) = [*filter(None, details.values())] or (0,)
    if said and said is not details.get(name):
        raise ValueError(name)
    return said


def _counted(prompt: Any, completion: Any, cached: Any, reasoning: Any) -> Counts | None:
    if type(prompt) is not int or type(completion) is not int or prompt > MOST or completion > MOST:
        return None
    if reasoning and (type(reasoning) is not int or not 0 < reasoning <= MOST):
        return None
    if cached:
        if type(cached) is not int or cached < 0:
            return None
        if cached < prompt and completion > 0:
            return (("input", prompt - cached), ("cache_read", cached), ("output", completion)), reasoning, prompt
    elif prompt > 0 and completion > 0:
        return (("input", prompt), ("output", completion)), reasoning, prompt
    if cached > prompt or prompt < 0 or completion < 0:
        return None
    split = ("input", prompt - cached), ("cache_read", cached), ("output", completion)
    meters = tuple(meter for meter in split if meter[1])  # one of 0 is left out
    return (meters, reasoning, prompt) if meters else None


def plain_chat(payload: Any) -> Usage | None:
    """Return the usage of a payload that `text_counts` reads."""
    counts = text_counts(payload)
    if counts is None:
        return None
    meters, reasoning, _ = counts
    return _new(Usage, (meters, reasoning, True, (), None, None, None, None, None, None, ()))


def from_chat(payload: Mapping[str, Any]) -> Usage:
    """Read a Chat Completions usage object."""
    plain = plain_chat(payload)
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
    """Read an embeddings usage object; Voyage and Jina state only `total_tokens`. Voyage bills images and videos by
    their pixels; its total counts them as tokens too."""
    problems: list[str] = []
    tokens = count(payload, "prompt_tokens", problems) or count(payload, "total_tokens", problems)
    pixels = count(payload, "image_pixels", problems) + count(payload, "video_pixels", problems)
    if pixels:
        tokens = count(payload, "text_tokens", problems)
    meters: Meters = [("input", tokens)] if tokens else []
    if pixels:
        meters.append(("pixels", pixels))
    return usage_of(meters, problems)


def from_duration(payload: Mapping[str, Any]) -> Usage:
    """Read a transcription billed by its length in seconds."""
    problems: list[str] = []
    seconds = amount(payload, "seconds", problems)
    if seconds is None:
        return NO_USAGE._replace(problems=tuple(problems))
    return usage_of([("seconds", seconds)] if seconds else [], problems)


def from_request(payload: Mapping[str, Any]) -> Usage:
    """Read what a request itself says, for APIs that answer without a usage object: characters of speech, images by
    their quality and size, seconds of video by its size. Without a quality or size images are those that DALL-E 3
    takes, and a video is of the ordinary size."""
    problems: list[str] = []
    meters: Meters = []
    characters = count(payload, "characters", problems)
    if characters:
        meters.append(("characters", characters))
    images = count(payload, "images", problems)
    if images:
        size = text_of(payload, "size") or "1024x1024"
        meters.append((f"images_output:{text_of(payload, 'quality') or 'standard'}/{size}", images))
    seconds = amount(payload, "video_seconds", problems)
    if seconds:
        frame = text_of(payload, "size")
        meters.append((f"videos_seconds:{frame}" if frame else "videos_seconds", seconds))
    return usage_of(meters, problems)


def tool_calls(output: Iterable[Any], tools: Any = None) -> dict[str, Any]:
    """Return what the output items of a Responses reply say of tools that are billed by the call, under the names that
    a usage object can carry in "server_side_tool_usage_details"; {} when there are none.

    Only searches are billed of what the web search tool does. Code interpreter sessions are billed by their container,
    which can be the one of an earlier call: their ids are returned ("code_containers"), not a count.
    """
    calls: dict[str, Any] = {}
    for item in output:
        get = item.get if type(item) is dict else getattr(item, "__dict__", _NOTHING).get
        kind = get("type")
        if kind == "web_search_call":
            action = get("action")
            act = action.get("type") if isinstance(action, dict) else getattr(action, "type", None)
            if act is None or act == "search":
                key = "web_search_preview_calls" if _preview(tools) else "web_search_calls"
                calls[key] = calls.get(key, 0) + 1
        elif kind == "file_search_call":
            calls["file_search_calls"] = calls.get("file_search_calls", 0) + 1
        elif kind == "code_interpreter_call":
            container = get("container_id")
            if isinstance(container, str) and container not in calls.setdefault("code_containers", []):
                calls["code_containers"].append(container)
    return calls


_NOTHING: dict[str, Any] = {}


def _preview(tools: Any) -> bool:
    """Return whether a reply's tools name the preview of web search, which has a price of its own on some models."""
    if not isinstance(tools, list | tuple):
        return False
    kinds = [tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None) for tool in tools]
    return any(isinstance(kind, str) and kind.startswith("web_search_preview") for kind in kinds)


def with_tools(usage: Usage, calls: Mapping[str, Any]) -> Usage:
    """Return `usage` with the meters of tool calls; each container counts as one session."""
    problems: list[str] = []
    meters: Meters = list(usage.meters)
    containers = calls.get("code_containers")
    if containers:
        calls = {**calls, "code_sessions": len(containers)}
    _count_tools(calls, meters, problems)
    return usage._replace(meters=tuple(meters)) if len(meters) > len(usage.meters) else usage


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
    """xAI states its server-side tools inside usage; each call has a price. What OpenAI's replies say in their output
    is put here by their readers, under the same names."""
    for key, meter in (
        ("web_search_calls", "web_search"),
        ("web_search_preview_calls", "web_search_preview"),
        ("x_search_calls", "x_search"),
        ("code_interpreter_calls", "code_execution"),
        ("code_sessions", "code_session"),
        ("file_search_calls", "file_search"),
    ):
        calls = count(tools, key, problems)
        if calls:
            meters.append((meter, calls))
