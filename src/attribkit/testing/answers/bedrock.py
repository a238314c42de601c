"""Amazon Bedrock's runtime: Converse and InvokeModel (Anthropic's bodies and Amazon's), whole and as event streams."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from attribkit.testing.answers.base import JSON, Answer, Context, Event, choose_tools, pieces, text_of, words_for
from attribkit.testing.answers.messages import messages
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import Tokens, tokens_of

__all__ = ["bedrock", "frame"]

_STREAM = "application/vnd.amazon.eventstream"


def frame(event: str, payload: JSON) -> bytes:
    """Return one message of an AWS event stream: lengths, headers, payload, each with its CRC-32."""
    names = ((":event-type", event), (":content-type", "application/json"), (":message-type", "event"))
    head = b"".join(
        bytes((len(name),)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in names
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + body
    return message + struct.pack(">I", zlib.crc32(message))


def _usage(t: Tokens) -> JSON:
    usage = {"inputTokens": t.input - t.cached, "outputTokens": t.output, "totalTokens": t.input + t.output}
    return {**usage, "cacheReadInputTokens": t.cached} if t.cached else usage


def bedrock(body: JSON, context: Context) -> Answer:
    """Answer `/model/<model>/<action>`."""
    _, model, action = context.path.rsplit("/", 2)
    model = unquote(model)
    if action.startswith("converse"):
        return _converse(body, context, model, streams=action == "converse-stream")
    return _invoke(body, context, model, streams=action == "invoke-with-response-stream")


def _converse(body: JSON, context: Context, model: str, *, streams: bool) -> Answer:
    turns = body.get("messages") or []
    prompt = "\n".join(filter(None, (text_of(body.get("system")), text_of(turns))))
    tools = [
        {"name": tool["toolSpec"]["name"], "parameters": tool["toolSpec"]["inputSchema"]["json"]}
        for tool in (body.get("toolConfig") or {}).get("tools") or []
    ]
    answered = any("toolResult" in part for part in (turns[-1].get("content") or [] if turns else []))
    calls = [] if answered else choose_tools(tools, None, text_of(turns[-1:]))
    words = words_for(model, prompt)
    limit = (body.get("inferenceConfig") or {}).get("maxTokens")
    tokens = tokens_of(model, prompt, words=8 * len(calls) if calls else len(words), limit=limit)
    usage = context.usage(tokens, _usage)
    reason = context.behaviour.finish or ("tool_use" if calls else "end_turn")
    facts: dict[str, Any] = {"model": model, "usage": usage, "charges": (Charge(model, None, tokens),)}
    metadata: JSON = {"usage": usage, "metrics": {"latencyMs": 12}}
    tier = (body.get("serviceTier") or {}).get("type")
    if tier:
        metadata["serviceTier"] = {"type": tier}
    blocks: list[JSON] = [
        {"toolUse": {"toolUseId": f"tooluse_{context.seq}_{i}", "name": name, "input": json.loads(arguments)}}
        for i, (name, arguments) in enumerate(calls)
    ]
    if not streams:
        content = blocks or [{"text": " ".join(words)}]
        reply = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": reason, **metadata}
        return Answer(reply, **facts)

    def events() -> Iterator[Event]:
        yield None, frame("messageStart", {"role": "assistant"})
        for index, block in enumerate(blocks):
            use = block["toolUse"]
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            yield None, frame("contentBlockStart", {"start": start, "contentBlockIndex": index})
            delta = {"toolUse": {"input": json.dumps(use["input"])}}
            yield None, frame("contentBlockDelta", {"delta": delta, "contentBlockIndex": index})
            yield None, frame("contentBlockStop", {"contentBlockIndex": index})
        if not blocks:
            for text in pieces(" ".join(words), context.behaviour.chunks):
                yield None, frame("contentBlockDelta", {"delta": {"text": text}, "contentBlockIndex": 0})
            yield None, frame("contentBlockStop", {"contentBlockIndex": 0})
        yield None, frame("messageStop", {"stopReason": reason})
        yield None, frame("metadata", metadata)

    return Answer(events=events(), content_type=_STREAM, **facts)


def _invoke(body: JSON, context: Context, model: str, *, streams: bool) -> Answer:
    if "anthropic" in model:
        answer = messages({**body, "model": model, "stream": streams}, context._replace(path="/messages"))
        if not streams:
            return answer
        plain = [dict(event) for _, event in answer.events or ()]
        metrics = {"inputTokenCount": answer.usage["input_tokens"], "outputTokenCount": answer.usage["output_tokens"]}
        plain[-1]["amazon-bedrock-invocationMetrics"] = {**metrics, "invocationLatency": 12, "firstByteLatency": 3}
        chunks = ((None, frame("chunk", {"bytes": base64.b64encode(json.dumps(e).encode()).decode()})) for e in plain)
        return answer._replace(events=chunks, content_type=_STREAM)
    prompt = text_of(body.get("inputText") or body.get("prompt"))
    if "embed" in model:
        tokens = tokens_of(model, prompt)
        reply: JSON = {"embedding": [0.1, 0.2], "inputTextTokenCount": tokens.input}
        return Answer(reply, model=model, usage=reply, charges=(Charge(model, None, tokens),))
    words = words_for(model, prompt)
    tokens = tokens_of(model, prompt, words=len(words))
    reply = {
        "generation": " ".join(words),
        "prompt_token_count": tokens.input,
        "generation_token_count": tokens.output,
        "stop_reason": "stop",
    }
    return Answer(reply, model=model, usage=reply, charges=(Charge(model, None, tokens),))
