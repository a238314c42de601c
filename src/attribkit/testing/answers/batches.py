"""Files and the Batch API: lines are answered one by one when the batch is done, at half the price."""

from __future__ import annotations

import json
from typing import Any

from attribkit.testing.answers.base import JSON, Answer, Context, not_found, now
from attribkit.testing.answers.chat import completion, embeddings, legacy
from attribkit.testing.answers.forms import form_of
from attribkit.testing.answers.responses import responses
from attribkit.testing.journal import Charge

__all__ = ["batches", "files"]

POLLS = 2
"""A batch is done when it is retrieved for this time."""

_LINES = {"/chat/completions": completion, "/embeddings": embeddings, "/completions": legacy, "/responses": responses}


def _file(context: Context, name: str, content: bytes, purpose: str) -> JSON:
    made = {
        "id": f"file-{context.seq:08d}{len(context.store)}",
        "object": "file",
        "bytes": len(content),
        "created_at": now(),
        "filename": name,
        "purpose": purpose,
        "status": "processed",
    }
    context.store[str(made["id"])] = {"file": made, "content": content}
    return made


def files(body: JSON, context: Context) -> Answer:
    """Answer /files."""
    parts = context.path.strip("/").split("/")[1:]
    if not parts:
        if context.method == "GET":
            found = [
                stored["file"] for stored in context.store.values() if isinstance(stored, dict) and "file" in stored
            ]
            return Answer({"object": "list", "data": found, "has_more": False, "first_id": None, "last_id": None})
        form = form_of(context.raw, context.content_type)
        content = form.get("file", b"")
        return Answer(_file(context, str(form.get("filename")), content, str(form.get("purpose", "batch"))))
    stored = context.store.get(parts[0])
    if stored is None:
        return not_found(context.path)
    if parts[1:] == ["content"]:
        return Answer(stored["content"], content_type="application/octet-stream")
    if context.method == "DELETE":
        del context.store[parts[0]]
        return Answer({"id": parts[0], "object": "file", "deleted": True})
    return Answer(stored["file"])


def batches(body: JSON, context: Context) -> Answer:
    """Answer /batches."""
    parts = context.path.strip("/").split("/")[1:]
    if not parts:
        return _create(body, context)
    batch = context.store.get(parts[0])
    if batch is None:
        return not_found(context.path)
    facts: dict[str, Any] = {"response_id": parts[0]}
    if parts[1:] == ["cancel"]:
        batch.update(status="cancelled", cancelled_at=now())
    elif batch["status"] in ("validating", "in_progress"):
        batch["_polls"] += 1
        batch["status"] = "in_progress"
        if batch["_polls"] >= POLLS:
            facts["charges"] = _finish(batch, context)
            facts["usage"] = batch["usage"]
    return Answer({key: value for key, value in batch.items() if not key.startswith("_")}, **facts)


def _create(body: JSON, context: Context) -> Answer:
    batch: JSON = {
        "id": f"batch_{context.seq:08d}",
        "object": "batch",
        "endpoint": body.get("endpoint"),
        "errors": None,
        "input_file_id": body.get("input_file_id"),
        "completion_window": body.get("completion_window") or "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now(),
        "expires_at": now() + 86_400,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": body.get("metadata"),
        "usage": None,
        "_polls": 0,
        "_owner": context.owner,
    }
    context.store[batch["id"]] = batch
    shown = {key: value for key, value in batch.items() if not key.startswith("_")}
    return Answer(shown, response_id=batch["id"])


def _finish(batch: JSON, context: Context) -> tuple[Charge, ...]:
    """Answer every line of the input file; return the charges."""
    content = (context.store.get(batch["input_file_id"]) or {"content": b""})["content"]
    lines, charges = [], []
    sums = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    cached = reasoning = 0
    for number, line in enumerate(filter(None, map(bytes.strip, content.splitlines()))):
        asked = json.loads(line)
        path = str(asked.get("url", batch["endpoint"])).removeprefix("/v1")
        inner = context._replace(seq=context.seq * 1000 + number, method="POST", path=path, owner=batch["_owner"])
        answer = _LINES.get(path, completion)({**asked["body"], "stream": False}, inner)
        for charge in answer.charges:
            charges.append(charge._replace(batch=True, owner=batch["_owner"]))
            tokens = charge.tokens
            sums["input_tokens"] += tokens.input
            sums["output_tokens"] += tokens.output
            sums["total_tokens"] += tokens.input + tokens.output
            cached, reasoning = cached + tokens.cached, reasoning + tokens.reasoning
        response = {"status_code": 200, "request_id": f"req_{inner.seq}", "body": answer.body}
        done = {
            "id": f"batch_req_{inner.seq}",
            "custom_id": asked.get("custom_id"),
            "response": response,
            "error": None,
        }
        lines.append(json.dumps(done))
    made = _file(context, f"{batch['id']}_output.jsonl", "\n".join(lines).encode() + b"\n", "batch_output")
    details = {
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens_details": {"reasoning_tokens": reasoning},
    }
    batch.update(
        status="completed",
        completed_at=now(),
        output_file_id=made["id"],
        request_counts={"total": len(lines), "completed": len(lines), "failed": 0},
        usage={**sums, **details},
    )
    return tuple(charges)
