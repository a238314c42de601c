"""A LiteLLM callback that writes one JSON line for each call: who it was for, as the proxy understood it, and its cost.

The file is $ATTRIBKIT_LITELLM_ROWS, or litellm-rows.jsonl in the working directory. `call_id` is attribkit's own, so
the lines can be held against its ledger one by one. No message text is read or written.
"""

from __future__ import annotations

import json
import os
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

PATH = os.environ.get("ATTRIBKIT_LITELLM_ROWS", "litellm-rows.jsonl")


def row(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what is worth keeping of LiteLLM's standard logging payload."""
    metadata = payload.get("metadata") or {}
    return {
        "call_id": payload.get("litellm_call_id") or payload.get("id"),
        "trace_id": payload.get("trace_id"),
        "status": payload.get("status"),
        "model": payload.get("model"),
        "attribution": metadata.get("spend_logs_metadata") or {},
        "tags": [tag for tag in payload.get("request_tags") or [] if not tag.startswith("User-Agent:")],
        "end_user": payload.get("end_user"),
        "input_tokens": payload.get("prompt_tokens"),
        "output_tokens": payload.get("completion_tokens"),
        "cost_usd": payload.get("response_cost"),
    }


class Rows(CustomLogger):
    def _write(self, kwargs: dict[str, Any]) -> None:
        payload = kwargs.get("standard_logging_object")
        if payload is None:
            return
        said = row(payload)
        said["call_id"] = kwargs.get("litellm_call_id") or said["call_id"]
        with open(PATH, "a", encoding="utf-8") as out:
            out.write(json.dumps(said, default=str) + "\n")

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._write(kwargs)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._write(kwargs)


rows = Rows()
