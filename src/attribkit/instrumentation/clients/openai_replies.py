"""What an OpenAI reply says: the facts in a parsed object, a raw response, a stream of events or plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attribkit.calls import LLMCall, Reply
from attribkit.instrumentation.clients.parsed import of_parsed
from attribkit.pipeline import Operation

__all__ = ["StreamItems", "counted", "of_text"]

_NOTHING: dict[str, Any] = {}


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

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        return _only_usage if operation.hides_usage_chunk else None

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


def _only_usage(item: Any) -> bool:
    """Return whether an item is the chunk that `include_usage` adds."""
    facts = item.__dict__
    return not facts.get("choices", True) and facts.get("usage") is not None


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
