"""Google's generateContent, whole and streamed, and embedContent: the Gemini API's paths and Vertex AI's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attribkit.testing.answers.base import JSON, Answer, Context, Event, choose_tools, pieces, text_of, words_for
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import Tokens, tokens_of

__all__ = ["POLLS", "gemini", "gemini_batches"]

POLLS = 2
"""A batch is done when it is asked for this time."""


def _usage(t: Tokens) -> JSON:
    usage: JSON = {
        "promptTokenCount": t.input,
        "candidatesTokenCount": t.output,
        "totalTokenCount": t.input + t.output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": t.input}],
    }
    if t.cached:
        usage["cachedContentTokenCount"] = t.cached
    return usage


def _text(contents: Any) -> str:
    if isinstance(contents, dict):
        contents = [contents]
    return "\n".join(text_of(part) for turn in contents or [] for part in turn.get("parts") or [])


def gemini(body: JSON, context: Context) -> Answer:
    """Answer `.../models/<model>:<method>`."""
    name, _, method = context.path.rpartition("/")[2].partition(":")
    model = context.behaviour.model or name
    if method in ("embedContent", "batchEmbedContents"):
        return _embedded(body, model, method)
    if method == "batchGenerateContent":
        return _batch(body, name, context)
    turns = body.get("contents") or []
    prompt = "\n".join(filter(None, (_text(body.get("systemInstruction")), _text(turns))))
    if method == "countTokens":
        return Answer({"totalTokens": tokens_of(name, prompt).input})
    last = turns[-1].get("parts") or [] if turns else []
    answered = any("functionResponse" in part for part in last)
    tools = [
        {
            "function": {
                "name": tool["name"],
                "parameters": tool.get("parametersJsonSchema") or _lower(tool.get("parameters")),
            }
        }
        for group in body.get("tools") or []
        for tool in group.get("functionDeclarations") or []
    ]
    calls = [] if answered else choose_tools(tools, None, _text(turns[-1:]))
    words = words_for(name, prompt)
    config = body.get("generationConfig") or {}
    tokens = tokens_of(name, prompt, words=8 * len(calls) if calls else len(words), limit=config.get("maxOutputTokens"))
    usage = context.usage(tokens, _usage)
    facts: dict[str, Any] = {
        "response_id": f"gen-{context.seq:08d}",
        "model": model,
        "usage": usage,
        "charges": (Charge(model, None, tokens),),
    }
    parts: list[JSON] = [{"functionCall": {"name": n, "args": json.loads(a)}} for n, a in calls]

    def reply(content: list[JSON], *, ends: bool) -> JSON:
        candidate: JSON = {"content": {"role": "model", "parts": content}, "index": 0}
        if ends:
            candidate["finishReason"] = context.behaviour.finish or "STOP"
        said = {"candidates": [candidate], "modelVersion": model, "responseId": facts["response_id"]}
        if ends and usage is not None:
            said["usageMetadata"] = usage
        elif usage is not None:
            said["usageMetadata"] = {"promptTokenCount": tokens.input, "totalTokenCount": tokens.input}
        return said

    if method == "streamGenerateContent":

        def events() -> Iterator[Event]:
            texts = [] if parts else pieces(" ".join(words), context.behaviour.chunks)
            contents: list[list[JSON]] = [parts] if parts else [[{"text": text}] for text in texts]
            for number, content in enumerate(contents, 1):
                yield None, reply(content, ends=number == len(contents))

        return Answer(events=events(), **facts)
    return Answer(reply(parts or [{"text": " ".join(words)}], ends=True), **facts)


def _lower(schema: Any) -> Any:
    """Return a schema with its types in JSON Schema's letters."""
    if isinstance(schema, dict):
        return {k: v.lower() if k == "type" and isinstance(v, str) else _lower(v) for k, v in schema.items()}
    return [_lower(item) for item in schema] if isinstance(schema, list) else schema


def _embedded(body: JSON, model: str, method: str) -> Answer:
    values = [0.1, 0.2, 0.3]
    if method == "embedContent":
        return Answer({"embedding": {"values": values}}, model=model)
    return Answer({"embeddings": [{"values": values} for _ in body.get("requests") or []]}, model=model)


def _batch(body: JSON, model: str, context: Context) -> Answer:
    """Answer batchGenerateContent with a batch that is done later."""
    asked = (body.get("batch") or {}).get("inputConfig") or {}
    name = f"batches/{context.seq:08d}"
    metadata: JSON = {
        "model": f"models/{model}",
        "state": "BATCH_STATE_PENDING",
        "createTime": "2026-11-20T10:00:00.5Z",
    }
    context.store[name] = {
        "batch": {"name": name, "metadata": metadata},
        "asked": [one["request"] for one in (asked.get("requests") or {}).get("requests") or []],
        "in_file": "fileName" in asked,
        "polls": 0,
        "owner": context.owner,
    }
    return Answer(context.store[name]["batch"], response_id=name)


def gemini_batches(body: JSON, context: Context) -> Answer:
    """Answer /v1beta/batches/<id>, and the download of a batch's output. A batch of a file has one line."""
    name = context.path.removeprefix("/v1beta/").partition(":")[0]
    if name.startswith("files/"):
        return Answer(context.store[name], content_type="application/octet-stream")
    stored = context.store[name]
    batch, charges = stored["batch"], []
    stored["polls"] += 1
    if stored["polls"] == POLLS:
        lines: list[JSON] = []
        model = batch["metadata"]["model"].rpartition("/")[2]
        for number, asked in enumerate(stored["asked"] or [{"contents": [{"parts": [{"text": "a line of a file"}]}]}]):
            path = f"/v1beta/models/{model}:generateContent"
            inner = context._replace(seq=context.seq * 1000 + number, path=path, owner=stored["owner"])
            if not _text(asked.get("contents")):
                lines.append({"error": {"code": 3, "message": "contents is not specified"}})
                continue
            answer = gemini(asked, inner)
            lines.append({"response": answer.body})
            charges += [charge._replace(batch=True, owner=stored["owner"]) for charge in answer.charges]
        output: JSON = {"inlinedResponses": {"inlinedResponses": lines}}
        if stored["in_file"]:
            file = f"files/batch-{context.seq}"
            text = "\n".join(json.dumps({"key": f"k{number}", **line}) for number, line in enumerate(lines))
            context.store[file], output = text.encode(), {"responsesFile": file}
        batch["metadata"].update(state="BATCH_STATE_SUCCEEDED", output=output)
        batch.update(done=True, response=output)
    return Answer(batch, response_id=name, charges=tuple(charges))
