"""What an OpenAI reply says: the facts in a parsed object, a raw response, a stream of events or plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from attribkit.calls import LLMCall, Reply
from attribkit.usage.dialects.openai import tool_calls

__all__ = ["KINDS", "StreamItems", "counted", "kind_of", "of_parsed", "of_raw", "of_text", "of_unparsed"]

_SCALARS = frozenset((int, type(None), str, float, bool))
_UNKNOWN = Reply()[4:]
_NOTHING: dict[str, Any] = {}
_KINDS_KEPT = 512
_CONTAINERS_KEPT = 4096
_containers: dict[str, None] = {}
KINDS: dict[type, str] = {}
"""What `kind_of` has said of each type of result."""
_inner: dict[type, tuple[str, ...]] = {}


def kind_of(result: Any) -> str:
    """Return "later" for a result that is still to be read, "raw" for one that is read but not parsed."""
    found = KINDS.get(type(result))
    if found is None:
        names = {cls.__name__ for cls in type(result).__mro__}
        if names & {"Stream", "AsyncStream", "BaseAPIResponse"}:
            found = "later"
        else:
            found = "raw" if "LegacyAPIResponse" in names else "parsed"
        if len(KINDS) < _KINDS_KEPT:
            KINDS[type(result)] = found
    return found


def of_raw(result: Any) -> Reply:
    """Read a raw response through the SDK's own parse, which keeps its result: the caller's parse is then free."""
    try:
        parsed = result.parse()
    except Exception:
        return Reply(http_status=result.status_code, problem="the reply could not be parsed")
    return of_parsed(parsed)


def of_parsed(result: Any) -> Reply:
    """Return the facts of a parsed reply, whatever type it has."""
    facts = result if type(result) is dict else getattr(result, "__dict__", None)
    if facts is None:
        return Reply(problem="the reply is not JSON" if isinstance(result, str) else None)
    get = facts.get
    usage, model, tier, response_id = get("usage"), get("model"), get("service_tier"), get("id")
    output = get("output")
    if output and usage is not None:
        usage = _with_tools(plain(usage), output, get("tools"))
    return tuple.__new__(
        Reply,
        (
            plain(usage) if usage is not None else None,
            model if type(model) is str else None,
            tier if type(tier) is str else None,
            response_id if type(response_id) is str else None,
            *_UNKNOWN,
        ),
    )


def _with_tools(usage: Any, output: Any, tools: Any) -> Any:
    """Return a Responses usage with the tools in its output that are billed by the call. A code interpreter's container
    is billed once: to the call in which this process first sees it."""
    if type(output) is not list or type(usage) is not dict or "server_side_tool_usage_details" in usage:
        return usage
    calls = tool_calls(output, tools)
    if not calls:
        return usage
    new = [one for one in calls.pop("code_containers", ()) if one not in _containers]
    if new:
        if len(_containers) >= _CONTAINERS_KEPT:
            _containers.clear()
        _containers.update(dict.fromkeys(new))
        calls["code_sessions"] = len(new)
    return {**usage, "server_side_tool_usage_details": calls}


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


def plain(value: Any) -> Any:
    """Return a parsed model as the JSON it came from: plain dicts, whatever the provider put there."""
    kind = type(value)
    inner = _inner.get(kind)
    if inner is None:
        inner = _inner_fields(kind)
        if inner is None:
            return value
    raw: dict[str, Any] = value.__dict__
    extra = value.__pydantic_extra__
    if extra:
        raw = {**raw, **extra}
    elif inner:
        raw = raw.copy()
    for name in inner:
        item = raw.get(name)
        if item is not None:
            flat = _inner.get(type(item)) == () and not item.__pydantic_extra__
            raw[name] = item.__dict__ if flat else plain(item)
    return raw


def _inner_fields(kind: type) -> tuple[str, ...] | None:
    """Return the fields of a model class that can hold a model, None when it is no model class."""
    fields = getattr(kind, "model_fields", None)
    if not isinstance(fields, Mapping):
        return None
    inner = tuple(name for name, field in fields.items() if not _scalar(field.annotation))
    if len(_inner) < _KINDS_KEPT:
        _inner[kind] = inner
    return inner


def _scalar(annotation: Any) -> bool:
    parts = get_args(annotation)
    return all(_scalar(part) for part in parts) if parts else annotation in _SCALARS


def counted(call: LLMCall, result: Any) -> Mapping[str, Any] | None:
    """Return what the request itself says was consumed, for APIs whose replies state no usage."""
    body = call.body
    if body is None:
        return None
    if call.api == "speech" and isinstance(body.get("input"), str):
        return {"characters": len(body["input"])}
    if call.api == "images" and isinstance(getattr(result, "data", None), list):
        return {"images": len(result.data), "size": body.get("size"), "quality": body.get("quality")}
    return None


class StreamItems:
    """How the events of an OpenAI stream are read: chat chunks, Responses events, run events."""

    @staticmethod
    def only_usage(item: Any) -> bool:
        """Return whether an item is the chunk that `include_usage` adds."""
        facts = item.__dict__
        return not facts.get("choices", True) and facts.get("usage") is not None

    @staticmethod
    def reply(first: Any, latest: Any, count: int) -> Reply:
        """Return the facts of the latest item, completed with those of the first: a cut stream has no other."""
        end, begin = of_parsed(_holder(latest)), of_parsed(_holder(first))
        return Reply(
            end.usage,
            end.model or begin.model,
            end.service_tier or begin.service_tier,
            end.response_id or begin.response_id,
            chunks=count,
            characters=_length(latest) * count,
        )


def _holder(item: Any) -> Any:
    """Return what of an event holds usage, model and id: the event itself, or the response or run inside it."""
    if isinstance(item, dict):
        return item.get("response") or item.get("data") or item
    facts = getattr(item, "__dict__", _NOTHING)
    return facts.get("response") or facts.get("data") or item


def _length(item: Any) -> int:
    """Return how many characters of text an event brings. Only the length is read."""
    facts = getattr(item, "__dict__", _NOTHING)
    text = facts.get("delta")
    choices = facts.get("choices")
    if choices:
        text = getattr(getattr(choices[0], "delta", None), "content", None)
    return len(text) if isinstance(text, str) else 0


def of_text(text: str) -> Reply:
    """Return the facts of a body that the caller read as text: JSON, or server-sent events up to their end."""
    lines = text.splitlines() if not text.lstrip().startswith("{") else [f"data:{text}"]
    events = [line[5:] for line in lines if line.startswith("data:")]
    found = Reply(problem="the reply states no usage")
    for event in reversed(events):
        if '"usage"' in event or event is events[0]:
            try:
                facts = json.loads(event)
            except ValueError:
                continue
            if isinstance(facts, dict):
                inner = facts.get("response") if isinstance(facts.get("response"), dict) else facts
                reply = of_parsed(inner)
                if reply.usage is not None:
                    return reply._replace(chunks=len(events))
                found = reply._replace(chunks=len(events))
    return found


def of_unparsed(response: Any) -> Reply:
    """Return the facts of a streaming response that was parsed, or read whole; of what was neither, nothing."""
    for parsed in getattr(response, "_parsed_by_type", {}).values():
        return of_parsed(parsed)
    http = response.http_response
    return of_text(http.text) if hasattr(http, "_content") else Reply()
