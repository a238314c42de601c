"""Batches at the Gemini API: attributed where they are created, each line charged once, where it is read.

Lines come in the batch itself, when it was made of inline requests, or in a file that is downloaded. A batch there
carries nothing of ours, so who created it is kept beside the ledger, for the processes that share it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from attribkit import faults
from attribkit.calls import LLMCall, Reply
from attribkit.gateways.jobs import Creator
from attribkit.instrumentation.clients.jobs import LATER, NOBODY, PART, BatchLine, JobBook, Kept, json_lines
from attribkit.pipeline import Operation, Pipeline

__all__ = ["GeminiBatches"]

_Known = tuple[LLMCall, str, int, str | None]
"""The call that saw a batch, its name, when it was created, and the model it asks."""
_BATCHES = re.compile(r"/batches(?:/([^/:?]+))?(?:[:?]|$)")


class GeminiBatches(JobBook):
    """The batches that this process has created or seen. `read` gives the facts of a generateContent reply."""

    def __init__(self, pipeline: Pipeline, read: Callable[[Any], Reply]) -> None:
        super().__init__(pipeline)
        self._read = read
        self._outputs = Kept()

    def asked(self, url: str) -> bool:
        """True for a request about batches that exist."""
        return _BATCHES.search(url) is not None

    def creator_at(self, url: str) -> Creator | None:
        """Return who created the batch that a request is about, None when it is about none that is known here."""
        found = _BATCHES.search(url)
        return self.creator_of(f"batches/{found[1]}") if found is not None and found[1] else None

    def begun(self, operation: Operation) -> None:
        """Say of a request about batches that its own reply costs nothing."""
        operation.later = LATER["batches"] if operation.call.api else PART

    def answered(self, operation: Operation, response: Any) -> None:
        """Look at the reply to a request about batches: it can be one, or a list of them."""
        try:
            parts = response.response_stream
            facts = orjson.loads(parts[0]) if isinstance(parts, list) and parts and parts[0] else None
            listed = facts.get("operations") if isinstance(facts, dict) else None
            for one in listed if isinstance(listed, list) else (facts,):
                if isinstance(one, dict) and isinstance(one.get("name"), str):
                    self._seen(operation, one["name"], one)
        except ValueError:
            return
        except Exception as fault:
            faults.note("google-genai.batches", fault)

    def downloaded(self, path: str, content: Any) -> None:
        """Look at a file that was downloaded: it can be a batch's output."""
        known: _Known | None = self._outputs.get(path.partition(":")[0].lstrip("/"))
        if known is None or not isinstance(content, bytes):
            return
        try:
            for number, facts in json_lines(content):
                self._take(known, str(facts.get("key") or number), facts)
        except Exception as fault:
            faults.note("google-genai.batches", fault)

    def _seen(self, operation: Operation, name: str, facts: Mapping[str, Any]) -> None:
        if operation.call.api:
            self.created(operation, name, told=False)
        metadata = facts.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        model = metadata.get("model")
        model = model.rpartition("/")[2] if isinstance(model, str) else operation.call.model
        known = operation.call, name, _seconds(metadata.get("createTime")), model
        for output in (metadata.get("output"), facts.get("response")):
            if not isinstance(output, dict):
                continue
            if isinstance(output.get("responsesFile"), str):
                self._outputs.keep(output["responsesFile"], known)
            inline = output.get("inlinedResponses")
            lines = inline.get("inlinedResponses") if isinstance(inline, dict) else None
            for number, line in enumerate(lines if isinstance(lines, list) else ()):
                if isinstance(line, dict):
                    self._take(known, str(number), line)

    def _take(self, known: _Known, key: str, facts: Mapping[str, Any]) -> None:
        call, batch, created, model = known
        answer, error = facts.get("response"), facts.get("error")
        if isinstance(answer, dict) and not error:
            reply = self._read(answer)
            line = BatchLine(key, reply._replace(model=reply.model or model))
        else:
            said = error if isinstance(error, dict) else {}
            line = BatchLine(key, Reply(), "error", str(said.get("status") or said.get("code") or "error")[:64])
        self.charge_line(call, self.creator_of(batch) or NOBODY, "generateContent", batch, created, line)


def _seconds(text: Any) -> int:
    try:
        return int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp())
    except (TypeError, ValueError):
        return 0
