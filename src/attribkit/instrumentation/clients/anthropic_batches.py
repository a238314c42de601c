"""Message batches at Anthropic: attributed where they are created, each line charged once, where its result is read.

A batch there has no metadata of its own, so who created it is kept beside the ledger, for the processes that share it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any

from attribkit import faults
from attribkit.calls import Reply
from attribkit.gateways.jobs import Creator
from attribkit.instrumentation.clients.jobs import LATER, NOBODY, PART, BatchLine, JobBook, Kept, facts_of
from attribkit.instrumentation.clients.parsed import of_parsed
from attribkit.pipeline import Operation, Pipeline

__all__ = ["MessageBatches"]

_BATCH = re.compile(r"/messages/batches/([^/?]+)")
_STATUS = {"errored": "error", "canceled": "cancelled", "expired": "error"}


class MessageBatches(JobBook):
    """The message batches that this process has created or seen."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._created_s = Kept()

    def creator_at(self, path: str) -> Creator | None:
        """Return who created the batch that a request is about, None when it is about none that is known here."""
        found = _BATCH.search(path)
        return self.creator_of(found[1]) if found is not None else None

    def begun(self, operation: Operation, path: str) -> None:
        """Say of a request about batches that its own reply costs nothing."""
        if operation.call.api == "batches":
            operation.later = LATER["batches"]
        elif not operation.call.api:
            operation.later = PART

    def answered(self, operation: Operation, result: Any) -> None:
        """Look at the reply to a request about batches: it can be one, or a list of them."""
        try:
            if hasattr(result, "parse") and hasattr(result, "http_response"):
                if not hasattr(result.http_response, "_content"):
                    return
                result = result.parse()
            listed = facts_of(result).get("data")
            for one in listed if isinstance(listed, list) else (result,):
                facts = facts_of(one)
                identity, created = facts.get("id"), facts.get("created_at")
                if facts.get("type") == "message_batch" and isinstance(identity, str):
                    if isinstance(created, datetime):
                        self._created_s.keep(identity, int(created.timestamp()))
                    if operation.call.api:
                        self.created(operation, identity, told=False)
        except Exception as fault:
            faults.note("anthropic.batches", fault)

    def take(self, operation: Operation, batch: str, item: Any) -> None:
        """Charge one line of a batch's results."""
        try:
            line = _line(facts_of(item))
            created = self._created_s.get(batch, 0)
            self.charge_line(operation.call, self.creator_of(batch) or NOBODY, "messages", batch, created, line)
        except Exception as fault:
            faults.note("anthropic.batches", fault)

    def decoded(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The lines of a reply are read one by one: those of a batch's results are charged as they are."""
        items = wrapped(*args, **kwargs)
        found = _results_of(instance)
        return items if found is None else self._follow(items, *found)

    def decoded_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items = wrapped(*args, **kwargs)
        found = _results_of(instance)
        return items if found is None else self._follow_async(items, *found)

    def _follow(self, items: Iterator[Any], operation: Operation, batch: str) -> Iterator[Any]:
        for item in items:
            self.take(operation, batch, item)
            yield item

    async def _follow_async(self, items: AsyncIterator[Any], operation: Operation, batch: str) -> AsyncIterator[Any]:
        async for item in items:
            self.take(operation, batch, item)
            yield item


def _results_of(decoder: Any) -> tuple[Operation, str] | None:
    """Return the operation and the batch of a reply that is a batch's results, None for any other."""
    try:
        request = decoder.http_response.request
        operation = request.extensions.get("attribkit")
        found = _BATCH.search(request.url.path)
    except Exception:
        return None
    if found is None or not isinstance(operation, Operation) or operation.later is None:
        return None
    return operation, found[1]


def _line(facts: Mapping[str, Any]) -> BatchLine:
    key, result = str(facts.get("custom_id")), facts_of(facts.get("result"))
    kind = result.get("type")
    if kind == "succeeded":
        return BatchLine(key, of_parsed(result.get("message")))
    word = facts_of(facts_of(facts_of(result.get("error")).get("error"))).get("type")
    error = word[:64] if isinstance(word, str) else str(kind)[:64]
    return BatchLine(key, Reply(), _STATUS.get(str(kind), "error"), error)  # type: ignore[arg-type]
