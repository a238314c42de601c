"""Anthropic's message batches: lines are answered one by one when the batch has ended, at half the price."""

from __future__ import annotations

import json
from typing import Any

from attribkit.testing.answers.base import JSON, Answer, Context, not_found
from attribkit.testing.answers.messages import messages

__all__ = ["message_batches"]

POLLS = 2
"""A batch has ended when it is retrieved for this time."""


def message_batches(body: JSON, context: Context) -> Answer:
    """Answer /messages/batches."""
    parts = context.path.strip("/").split("/")[2:]
    if not parts:
        return _create(body, context)
    batch = context.store.get(parts[0])
    if batch is None:
        return not_found(context.path)
    facts: dict[str, Any] = {"response_id": parts[0]}
    if parts[1:] == ["results"]:
        return Answer(batch["_results"], content_type="application/binary")
    if parts[1:] == ["cancel"]:
        batch["processing_status"] = "canceling"
    if batch["processing_status"] != "ended":
        batch["_polls"] += 1
        if batch["_polls"] >= POLLS:
            facts["charges"] = _finish(batch, context)
    return Answer({key: value for key, value in batch.items() if not key.startswith("_")}, **facts)


def _create(body: JSON, context: Context) -> Answer:
    asked = body.get("requests") or []
    counts = {"processing": len(asked), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    batch: JSON = {
        "id": f"msgbatch_{context.seq:08d}",
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": counts,
        "created_at": "2026-11-20T10:00:00Z",
        "expires_at": "2026-11-21T10:00:00Z",
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
        "_asked": asked,
        "_polls": 0,
        "_owner": context.owner,
    }
    context.store[batch["id"]] = batch
    return Answer({key: value for key, value in batch.items() if not key.startswith("_")}, response_id=batch["id"])


def _finish(batch: JSON, context: Context) -> tuple[Any, ...]:
    """Answer every request of the batch, the last one first; return the charges."""
    lines, charges, counts = [], [], batch["request_counts"]
    cancelled = batch["processing_status"] == "canceling"
    for number, asked in enumerate(batch["_asked"]):
        path = "/messages"
        inner = context._replace(seq=context.seq * 1000 + number, method="POST", path=path, owner=batch["_owner"])
        if cancelled:
            result: JSON = {"type": "canceled"}
        elif not asked["params"].get("max_tokens"):
            error = {"type": "invalid_request_error", "message": "max_tokens: Field required"}
            result = {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
        else:
            answer = messages({**asked["params"], "stream": False}, inner)
            body = answer.body
            assert isinstance(body, dict)
            body = {**body, "usage": {**(body["usage"] or {}), "service_tier": "batch"}}
            result = {"type": "succeeded", "message": body}
            charges += [charge._replace(batch=True, owner=batch["_owner"]) for charge in answer.charges]
        counts["processing"] -= 1
        counts[result["type"]] += 1
        lines.append(json.dumps({"custom_id": asked["custom_id"], "result": result}))
    batch["_results"] = "".join(f"{line}\n" for line in reversed(lines)).encode()
    batch.update(processing_status="ended", ended_at="2026-11-20T11:00:00Z")
    batch["results_url"] = f"/v1/messages/batches/{batch['id']}/results"
    return tuple(charges)
