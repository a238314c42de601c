"""The Anthropic Messages API, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attribkit.testing.answers.base import JSON, Answer, Context, Event, choose_tools, pieces, text_of, words_for
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import anthropic_usage, tokens_of

__all__ = ["messages"]


def messages(body: JSON, context: Context) -> Answer:
    """Answer /messages and /messages/count_tokens."""
    turns = body.get("messages") or []
    asked = body.get("model")
    prompt = "\n".join(filter(None, (text_of(body.get("system")), text_of(turns))))
    if context.path.endswith("/count_tokens"):
        return Answer({"input_tokens": tokens_of(asked, prompt).input})
    content = turns[-1].get("content") if turns else None
    answered = isinstance(content, list) and any(
        isinstance(p, dict) and p.get("type") == "tool_result" for p in content
    )
    choice = body.get("tool_choice") or {}
    calls = (
        [] if answered or choice.get("type") == "none" else choose_tools(body.get("tools"), choice, text_of(content))
    )
    words = words_for(asked, prompt)
    tokens = tokens_of(asked, prompt, words=8 * len(calls) if calls else len(words), limit=body.get("max_tokens"))
    blocks: list[JSON] = [
        {"type": "tool_use", "id": f"toolu_{context.seq}_{i}", "name": name, "input": json.loads(arguments)}
        for i, (name, arguments) in enumerate(calls)
    ] or [{"type": "text", "text": " ".join(words), "citations": None}]
    model = context.behaviour.model or asked or "claude-sonnet-4-5-20250929"
    usage = context.usage(tokens, anthropic_usage)
    message: JSON = {
        "id": f"msg_{context.seq:08d}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": context.behaviour.finish or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": usage,
    }
    facts: dict[str, Any] = {
        "response_id": message["id"],
        "model": model,
        "usage": usage,
        "charges": (Charge(model, None, tokens),),
    }
    if body.get("stream"):
        return Answer(events=_stream(message, context.behaviour.chunks), **facts)
    return Answer(message, **facts)


def _stream(message: JSON, chunks: int) -> Iterator[Event]:
    def event(kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, **fields}

    usage = message["usage"]
    first = {**usage, "output_tokens": 1} if isinstance(usage, dict) else usage
    yield event("message_start", message={**message, "content": [], "stop_reason": None, "usage": first})
    yield event("ping")
    for index, block in enumerate(message["content"]):
        if block["type"] == "tool_use":
            yield event("content_block_start", index=index, content_block={**block, "input": {}})
            for part in pieces(json.dumps(block["input"]), 2):
                delta = {"type": "input_json_delta", "partial_json": part}
                yield event("content_block_delta", index=index, delta=delta)
        else:
            yield event("content_block_start", index=index, content_block={**block, "text": ""})
            for part in pieces(block["text"], chunks):
                yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": part})
        yield event("content_block_stop", index=index)
    last = {"output_tokens": usage.get("output_tokens")} if isinstance(usage, dict) else usage
    yield event("message_delta", delta={"stop_reason": message["stop_reason"], "stop_sequence": None}, usage=last)
    yield event("message_stop")
