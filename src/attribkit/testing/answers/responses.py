"""The Responses API (whole, streamed, in the background) and Conversations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from attribkit.testing.answers.base import (
    JSON,
    Answer,
    Context,
    Event,
    choose_tools,
    example_of,
    not_found,
    now,
    pieces,
    text_of,
    words_for,
)
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import responses_usage, seed_of, tokens_of

__all__ = ["conversations", "responses"]

POLLS = 2
"""A background response is done when it is retrieved for this time."""


def responses(body: JSON, context: Context) -> Answer:
    """Answer /responses and what lies below it."""
    parts = context.path.strip("/").split("/")[1:]
    if not parts:
        return _create(body, context) if context.method == "POST" else not_found(context.path)
    if parts == ["input_tokens"]:
        tokens = tokens_of(body.get("model"), text_of(body.get("input")))
        return Answer({"object": "response.input_tokens", "input_tokens": tokens.input})
    stored = context.store.get(parts[0])
    if stored is None:
        return not_found(context.path)
    if context.method == "DELETE":
        del context.store[parts[0]]
        return Answer({"id": parts[0], "object": "response", "deleted": True})
    if parts[1:] == ["cancel"]:
        stored["cancelled"] = True
        return Answer({**stored["response"], "status": "cancelled", "usage": None, "output": []}, response_id=parts[0])
    if parts[1:] == ["input_items"]:
        return Answer({"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None})
    return _retrieve(stored, parts[0])


def _retrieve(stored: JSON, response_id: str) -> Answer:
    stored["polls"] += 1
    response = stored["response"]
    if stored.get("cancelled"):
        return Answer({**response, "status": "cancelled", "usage": None, "output": []}, response_id=response_id)
    if stored["polls"] < POLLS:
        return Answer({**response, "status": "in_progress", "usage": None, "output": []}, response_id=response_id)
    charges, stored["charges"] = stored["charges"], ()
    return Answer(
        response,
        response_id=response_id,
        model=response["model"],
        tier=response.get("service_tier"),
        usage=response["usage"],
        charges=charges,
    )


def _output(body: JSON, context: Context, prompt: str, items: list[Any]) -> tuple[list[JSON], int]:
    last = items[-1] if items else {}
    calls = []
    if not (isinstance(last, dict) and last.get("type") == "function_call_output"):
        question = next((text_of(i.get("content")) for i in reversed(items) if i.get("role") == "user"), "")
        calls = choose_tools(body.get("tools"), body.get("tool_choice"), question)
    if calls:
        return [
            {
                "type": "function_call",
                "id": f"fc_{context.seq}_{i}",
                "call_id": f"call_{context.seq}_{i}",
                "name": name,
                "arguments": arguments,
                "status": "completed",
            }
            for i, (name, arguments) in enumerate(calls)
        ], 8 * len(calls)
    words = words_for(body.get("model"), prompt)
    wanted = (body.get("text") or {}).get("format") or {}
    text = " ".join(words)
    if wanted.get("type") == "json_schema":
        text = json.dumps(example_of(wanted.get("schema") or {}, " ".join(words[:8])))
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": f"msg_{context.seq}", "role": "assistant", "status": "completed"}
    return [{**message, "content": [part]}], len(words)


def _create(body: JSON, context: Context) -> Answer:
    given, asked = body.get("input"), body.get("model")
    items = given if isinstance(given, list) else [{"role": "user", "content": given or ""}]
    prompt = "\n".join(filter(None, (text_of(body.get("instructions")), text_of(items))))
    output, words = _output(body, context, prompt, items)
    effort = (body.get("reasoning") or {}).get("effort")
    tokens = tokens_of(
        asked,
        prompt,
        words=words,
        limit=body.get("max_output_tokens"),
        reasoning=effort not in ("none", "minimal"),
    )
    model, tier = context.served(asked), context.tier(body.get("service_tier"))
    background = bool(body.get("background"))
    response: JSON = {
        "id": f"resp_{seed_of(asked, prompt):016x}{context.seq:08d}",
        "object": "response",
        "created_at": now(),
        "status": "completed",
        "background": background,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": effort, "summary": None},
        "service_tier": tier,
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": context.usage(tokens, responses_usage),
    }
    if body.get("conversation"):
        conversation = body["conversation"]
        response["conversation"] = conversation if isinstance(conversation, dict) else {"id": conversation}
    charges = (Charge(model, tier, tokens, owner=context.owner),)
    stored = {"response": response, "charges": charges if background else (), "polls": 0 if background else POLLS}
    context.store[response["id"]] = stored
    facts: dict[str, Any] = {"response_id": response["id"], "model": model, "tier": tier}
    if body.get("stream"):
        stored.update(charges=(), polls=POLLS)
        events = _stream(context, response)
        return Answer(events=events, usage=response["usage"], charges=charges, **facts)
    if background:
        return Answer({**response, "status": "queued", "usage": None, "output": []}, **facts)
    return Answer(response, usage=response["usage"], charges=charges, **facts)


def _stream(context: Context, response: JSON) -> Iterator[Event]:
    number = itertools.count()

    def event(kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, "sequence_number": next(number), **fields}

    running = {**response, "status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=running)
    yield event("response.in_progress", response=running)
    for index, item in enumerate(response["output"]):
        if item["type"] == "function_call":
            arguments = item["arguments"]
            at: JSON = {"output_index": index, "item_id": item["id"]}
            started = {**item, "arguments": "", "status": "in_progress"}
            yield event("response.output_item.added", output_index=index, item=started)
            for part in pieces(arguments, 2):
                yield event("response.function_call_arguments.delta", **at, delta=part)
            yield event("response.function_call_arguments.done", **at, arguments=arguments, name=item["name"])
        else:
            content = item["content"][0]
            at = {"output_index": index, "item_id": item["id"], "content_index": 0}
            started = {**item, "content": [], "status": "in_progress"}
            yield event("response.output_item.added", output_index=index, item=started)
            yield event("response.content_part.added", **at, part={**content, "text": ""})
            for part in pieces(content["text"], context.behaviour.chunks):
                yield event("response.output_text.delta", **at, delta=part, logprobs=[])
            yield event("response.output_text.done", **at, text=content["text"], logprobs=[])
            yield event("response.content_part.done", **at, part=content)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=response)


def conversations(body: JSON, context: Context) -> Answer:
    """Answer /conversations and their items."""
    parts = context.path.strip("/").split("/")[1:]
    if not parts:
        made: JSON = {"id": f"conv_{context.seq:08d}", "object": "conversation", "created_at": now()}
        context.store[made["id"]] = {**made, "metadata": body.get("metadata") or {}}
        return Answer(context.store[made["id"]], response_id=made["id"])
    conversation = context.store.get(parts[0])
    if conversation is None:
        return not_found(context.path)
    if parts[1:2] == ["items"]:
        items = [
            {"id": f"msg_{context.seq}_{i}", "type": "message", "status": "completed", "role": "user", **item}
            for i, item in enumerate(body.get("items") or [])
        ]
        return Answer({"object": "list", "data": items, "has_more": False, "first_id": None, "last_id": None})
    if context.method == "DELETE":
        del context.store[parts[0]]
        return Answer({"id": parts[0], "object": "conversation.deleted", "deleted": True})
    if context.method == "POST":
        conversation["metadata"] = body.get("metadata") or {}
    return Answer(conversation, response_id=parts[0])
