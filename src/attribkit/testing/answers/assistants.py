"""Assistants v2: assistants, threads, messages, and runs that are polled, streamed, or wait for tool outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attribkit.testing.answers.base import (
    JSON,
    Answer,
    Context,
    Event,
    choose_tools,
    not_found,
    now,
    pieces,
    text_of,
    words_for,
)
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import Tokens, tokens_of

__all__ = ["assistants", "threads"]

POLLS = 2
"""A run is done when it is retrieved for this time."""


def _page(data: list[Any]) -> Answer:
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return Answer({"object": "list", "data": data, "has_more": False, **ends})


def assistants(body: JSON, context: Context) -> Answer:
    """Answer /assistants."""
    parts = context.path.strip("/").split("/")[1:]
    if parts:
        found = context.store.get(parts[0])
        return Answer(found) if found else not_found(context.path)
    made: JSON = {
        "id": f"asst_{context.seq:08d}",
        "object": "assistant",
        "created_at": now(),
        "name": body.get("name"),
        "description": body.get("description"),
        "model": body.get("model") or "gpt-5-mini",
        "instructions": body.get("instructions"),
        "tools": body.get("tools") or [],
        "metadata": body.get("metadata") or {},
    }
    context.store[made["id"]] = made
    return Answer(made)


def threads(body: JSON, context: Context) -> Answer:
    """Answer /threads and what lies below: messages, runs, steps."""
    parts = context.path.strip("/").split("/")[1:]
    if not parts:
        return Answer(_thread(body, context))
    if parts == ["runs"]:
        return _start(_thread(body.get("thread") or {}, context), body, context)
    thread = context.store.get(parts[0])
    if thread is None:
        return not_found(context.path)
    if len(parts) == 1:
        if context.method == "POST":
            thread["metadata"] = body.get("metadata") or thread["metadata"]
        return Answer(_public(thread))
    if parts[1] == "messages":
        return _messages(thread, body, context, parts[2:])
    if parts[1] == "runs":
        return _runs(thread, body, context, parts[2:])
    return not_found(context.path)


def _public(stored: JSON) -> JSON:
    return {key: value for key, value in stored.items() if not key.startswith("_")}


def _thread(body: JSON, context: Context) -> JSON:
    thread: JSON = {
        "id": f"thread_{context.seq:08d}",
        "object": "thread",
        "created_at": now(),
        "metadata": body.get("metadata") or {},
        "tool_resources": body.get("tool_resources") or {},
        "_messages": [],
        "_runs": [],
    }
    context.store[thread["id"]] = thread
    for message in body.get("messages") or []:
        _say(thread, message.get("role", "user"), text_of(message.get("content")))
    return thread


def _say(thread: JSON, role: str, text: str, **fields: Any) -> JSON:
    message = {
        "id": f"msg_{thread['id'][7:]}_{len(thread['_messages'])}",
        "object": "thread.message",
        "created_at": now(),
        "thread_id": thread["id"],
        "role": role,
        "status": "completed",
        "assistant_id": None,
        "run_id": None,
        "attachments": [],
        "metadata": {},
        "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
        **fields,
    }
    thread["_messages"].append(message)
    return message


def _messages(thread: JSON, body: JSON, context: Context, rest: list[str]) -> Answer:
    if rest:
        found = next((m for m in thread["_messages"] if m["id"] == rest[0]), None)
        return Answer(found) if found else not_found(context.path)
    if context.method == "POST":
        metadata = body.get("metadata") or {}
        return Answer(_say(thread, body.get("role", "user"), text_of(body.get("content")), metadata=metadata))
    return _page(thread["_messages"][::-1])


def _start(thread: JSON, body: JSON, context: Context) -> Answer:
    assistant = context.store.get(body.get("assistant_id") or "") or {}
    for message in body.get("additional_messages") or []:
        _say(thread, message.get("role", "user"), text_of(message.get("content")))
    tools = body["tools"] if body.get("tools") is not None else assistant.get("tools") or []
    run: JSON = {
        "id": f"run_{context.seq:08d}",
        "object": "thread.run",
        "created_at": now(),
        "thread_id": thread["id"],
        "assistant_id": body.get("assistant_id") or "asst_0",
        "status": "queued",
        "model": context.served(body.get("model") or assistant.get("model")),
        "instructions": body.get("instructions") or assistant.get("instructions") or "",
        "tools": tools,
        "metadata": body.get("metadata") or {},
        "required_action": None,
        "last_error": None,
        "incomplete_details": None,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "response_format": "auto",
        "tool_choice": body.get("tool_choice") or "auto",
        "started_at": None,
        "expires_at": now() + 600,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None,
        "max_completion_tokens": body.get("max_completion_tokens"),
        "max_prompt_tokens": body.get("max_prompt_tokens"),
        "truncation_strategy": {"type": "auto", "last_messages": None},
        "usage": None,
        "_polls": 0,
        "_outputs": None,
        "_context": context._replace(raw=b""),
    }
    context.store[run["id"]] = run
    thread["_runs"].append(run)
    if body.get("stream"):
        return _streamed(thread, run, context, created=True)
    return Answer(_public(run), response_id=run["id"], model=run["model"])


def _calls_of(thread: JSON, run: JSON) -> list[JSON]:
    question = next((text_of(m["content"][0]["text"]["value"]) for m in thread["_messages"][::-1]), "")
    calls = choose_tools(run["tools"], run["tool_choice"], question)
    return [
        {"id": f"call_{run['id'][4:]}_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]


def _require(run: JSON, calls: list[JSON]) -> None:
    run["status"] = "requires_action"
    run["required_action"] = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}


def _complete(thread: JSON, run: JSON) -> tuple[JSON, Charge]:
    prompt = "\n".join(m["content"][0]["text"]["value"] for m in thread["_messages"])
    if run["_outputs"]:
        prompt += "\n" + "\n".join(str(output.get("output")) for output in run["_outputs"])
    words = words_for(run["model"], prompt)
    counted = tokens_of(run["model"], prompt, words=len(words))
    tokens = Tokens(counted.input, 0, counted.output)
    context: Context = run["_context"]
    run.update(status="completed", started_at=run["created_at"], completed_at=now(), required_action=None)
    run["usage"] = context.usage(
        tokens,
        lambda t: {"prompt_tokens": t.input, "completion_tokens": t.output, "total_tokens": t.input + t.output},
    )
    message = _say(thread, "assistant", " ".join(words), run_id=run["id"], assistant_id=run["assistant_id"])
    return message, Charge(run["model"], None, tokens, owner=context.owner)


def _runs(thread: JSON, body: JSON, context: Context, rest: list[str]) -> Answer:
    if not rest:
        return (
            _start(thread, body, context) if context.method == "POST" else _page([_public(r) for r in thread["_runs"]])
        )
    run = next((r for r in thread["_runs"] if r["id"] == rest[0]), None)
    if run is None:
        return not_found(context.path)
    if rest[1:2] == ["steps"]:
        return _page([])
    if rest[1:2] == ["cancel"]:
        run.update(status="cancelled", cancelled_at=now())
    elif rest[1:2] == ["submit_tool_outputs"]:
        run.update(_outputs=body.get("tool_outputs") or [], status="queued", required_action=None, _polls=0)
        if body.get("stream"):
            return _streamed(thread, run, context)
    elif context.method == "GET" and run["status"] in ("queued", "in_progress"):
        return _polled(thread, run)
    return Answer(_public(run), response_id=run["id"], model=run["model"], usage=run["usage"])


def _polled(thread: JSON, run: JSON) -> Answer:
    charges: tuple[Charge, ...] = ()
    run["_polls"] += 1
    run["status"] = "in_progress"
    calls = _calls_of(thread, run) if run["_outputs"] is None else []
    if calls:
        _require(run, calls)
    elif run["_polls"] >= POLLS:
        charges = (_complete(thread, run)[1],)
    return Answer(_public(run), response_id=run["id"], model=run["model"], usage=run["usage"], charges=charges)


def _streamed(thread: JSON, run: JSON, context: Context, created: bool = False) -> Answer:
    events: list[Event] = []
    if created:
        events.append(("thread.run.created", _public(run)))
    events.append(("thread.run.queued", _public(run)))
    run["status"] = "in_progress"
    events.append(("thread.run.in_progress", _public(run)))
    calls = _calls_of(thread, run) if run["_outputs"] is None else []
    charges: tuple[Charge, ...] = ()
    if calls:
        _require(run, calls)
        events.append(("thread.run.requires_action", _public(run)))
    else:
        message, charge = _complete(thread, run)
        charges = (charge,)
        events += _spoken(message, context.behaviour.chunks)
        events.append(("thread.run.completed", _public(run)))
    events.append(("done", "[DONE]"))
    return Answer(events=events, response_id=run["id"], model=run["model"], usage=run["usage"], charges=charges)


def _spoken(message: JSON, chunks: int) -> Iterator[Event]:
    started = {**message, "content": [], "status": "in_progress"}
    yield "thread.message.created", started
    yield "thread.message.in_progress", started
    for part in pieces(message["content"][0]["text"]["value"], chunks):
        content = {"index": 0, "type": "text", "text": {"value": part, "annotations": []}}
        yield (
            "thread.message.delta",
            {"id": message["id"], "object": "thread.message.delta", "delta": {"content": [content]}},
        )
    yield "thread.message.completed", message
