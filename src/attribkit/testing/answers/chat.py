"""Chat Completions, legacy completions and embeddings, on OpenAI's and Azure's paths."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from attribkit.testing.answers.base import (
    JSON,
    Answer,
    Context,
    Event,
    choose_tools,
    example_of,
    now,
    pieces,
    text_of,
    words_for,
)
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import Tokens, chat_usage, seed_of, tokens_of

__all__ = ["completion", "embeddings", "legacy"]


def _answer_text(body: JSON, words: list[str]) -> str:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema") or {}
        return json.dumps(example_of(schema, " ".join(words[:8])))
    if wanted.get("type") == "json_object":
        return json.dumps({"answer": " ".join(words)})
    return " ".join(words)


def completion(body: JSON, context: Context) -> Answer:
    """Answer /chat/completions."""
    messages = body.get("messages") or []
    last = messages[-1] if messages else {}
    prompt = text_of(messages)
    asked = body.get("model")
    words = words_for(asked, prompt)
    question = next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
    calls = []
    if last.get("role") not in ("tool", "function"):
        calls = choose_tools(body.get("tools"), body.get("tool_choice"), question)
    audio = "audio" in (body.get("modalities") or ())
    count = max(1, int(body.get("n") or 1))
    tokens = tokens_of(
        asked,
        prompt,
        words=8 * len(calls) if calls else len(words),
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
        reasoning=body.get("reasoning_effort") not in ("none", "minimal"),
        audio_input='"input_audio"' in context.raw.decode("utf-8", "replace"),
        audio_output=audio,
    )
    cut = len(words) * 4 // 3 + tokens.reasoning > tokens.output and not calls
    if cut:
        words = words[: max(0, tokens.output - tokens.reasoning) * 3 // 4]
    tokens = tokens._replace(output=tokens.output * count, reasoning=tokens.reasoning * count)
    finish = context.behaviour.finish or ("tool_calls" if calls else "length" if cut else "stop")
    text = _answer_text(body, words)
    base: JSON = {
        "id": f"chatcmpl-{seed_of(asked, prompt) >> 24:010x}{context.seq:06d}",
        "created": now(),
        "model": context.served(asked),
        "service_tier": context.tier(body.get("service_tier")),
        "system_fingerprint": "fp_loopback",
    }
    if base["service_tier"] is None:
        del base["service_tier"]
    tool_calls = [
        {"id": f"call_{context.seq}_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    usage = context.usage(tokens, chat_usage)
    facts: dict[str, Any] = {
        "response_id": base["id"],
        "model": base["model"],
        "tier": base.get("service_tier"),
        "usage": usage,
        "charges": (Charge(base["model"], base.get("service_tier"), tokens),),
    }
    if body.get("stream"):
        return Answer(events=_stream(body, context, base, text, tool_calls, finish, usage, count), **facts)
    message: JSON = {"role": "assistant", "content": None if calls else text, "refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = tool_calls
    if audio:
        sound = base64.b64encode(b"RIFF....WAVE").decode()
        message["audio"] = {
            "id": f"audio_{context.seq}",
            "data": sound,
            "expires_at": now() + 3600,
            "transcript": text,
        }
        message["content"] = None
    choices = [{"index": i, "message": message, "logprobs": None, "finish_reason": finish} for i in range(count)]
    reply = {**base, "object": "chat.completion", "choices": choices, "usage": usage}
    return Answer(reply, **facts)


def _stream(
    body: JSON, context: Context, base: JSON, text: str, calls: list[JSON], finish: str, usage: Any, count: int
) -> Iterator[Event]:
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    unasked = str(body.get("model")).startswith("mistral")  # states its usage in the last chunk in any case
    base = {**base, "object": "chat.completion.chunk"}
    if asked:
        base["usage"] = None

    def chunk(delta: JSON, reason: str | None = None, index: int = 0) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return None, {**base, "choices": [choice]}

    for index in range(count):
        yield chunk({"role": "assistant", "content": None if calls else "", "refusal": None}, index=index)
        for i, call in enumerate(calls):
            function = call["function"]
            yield chunk({"tool_calls": [{"index": i, **call, "function": {**function, "arguments": ""}}]}, index=index)
            for part in pieces(function["arguments"], 2):
                yield chunk({"tool_calls": [{"index": i, "function": {"arguments": part}}]}, index=index)
        if not calls:
            for part in pieces(text, context.behaviour.chunks):
                yield chunk({"content": part}, index=index)
        kind, last = chunk({}, finish, index)
        yield kind, ({**last, "usage": usage} if unasked and index == count - 1 else last)
    if asked:
        yield None, {**base, "choices": [], "usage": usage}
    yield None, "[DONE]"


def legacy(body: JSON, context: Context) -> Answer:
    """Answer /completions."""
    prompt, asked = text_of(body.get("prompt")), body.get("model")
    words = words_for(asked, prompt)
    tokens = tokens_of(asked, prompt, words=len(words), limit=body.get("max_tokens"), reasoning=False)
    usage = context.usage(tokens, chat_usage)
    model = context.served(asked)
    base = {"id": f"cmpl-{context.seq:08d}", "object": "text_completion", "created": now(), "model": model}
    facts: dict[str, Any] = {
        "response_id": base["id"],
        "model": model,
        "usage": usage,
        "charges": (Charge(model, None, tokens),),
    }
    if not body.get("stream"):
        choice = {"index": 0, "text": " ".join(words), "logprobs": None, "finish_reason": "stop"}
        return Answer({**base, "choices": [choice], "usage": usage}, **facts)

    def events() -> Iterator[Event]:
        for part in pieces(" ".join(words), context.behaviour.chunks):
            yield None, {**base, "choices": [{"index": 0, "text": part, "logprobs": None, "finish_reason": None}]}
        yield None, {**base, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}
        if (body.get("stream_options") or {}).get("include_usage"):
            yield None, {**base, "choices": [], "usage": usage}
        yield None, "[DONE]"

    return Answer(events=events(), **facts)


def embeddings(body: JSON, context: Context) -> Answer:
    """Answer /embeddings, as lists of floats or in base64."""
    given, asked = body.get("input"), body.get("model")
    texts = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    prompt = "\n".join(text if isinstance(text, str) else json.dumps(text) for text in texts)
    tokens = Tokens(tokens_of(asked, prompt).input)
    size = min(int(body.get("dimensions") or 16), 4096)
    data = []
    for index, text in enumerate(texts):
        seed = seed_of(asked, text if isinstance(text, str) else json.dumps(text))
        vector: Any = [((seed >> (k % 48)) % 1000 - 500) / 1000 for k in range(size)]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = context.usage(tokens, lambda t: {"prompt_tokens": t.input, "total_tokens": t.input})
    model = context.served(asked)
    return Answer(
        {"object": "list", "model": model, "data": data, "usage": usage},
        model=model,
        usage=usage,
        charges=(Charge(model, None, tokens),),
    )
