"""What an Anthropic reply says when it does not come parsed: the events of a stream, or plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attribkit.calls import Reply
from attribkit.instrumentation.clients.parsed import of_parsed
from attribkit.pipeline import Operation
from attribkit.usage.models import plain

__all__ = ["MessageEvents", "of_text"]

_TEXTS = ("text", "thinking", "partial_json")


class MessageEvents:
    """Reads the events of one Messages stream: `message_start` states the input, `message_delta` the output."""

    def __init__(self) -> None:
        self._begin = Reply()
        self._end: Any = None
        self._characters = 0
        self._count = 0

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        def take(item: Any) -> bool:
            self.take(item)
            if getattr(item, "type", None) == "message_stop":  # before whoever owns the span ends it with the stream
                operation.finish(self.reply(None, None, self._count))
            return False

        return take

    def take(self, item: Any) -> None:
        """Note what one event says; it may be a model or plain JSON."""
        self._count += 1
        facts = item if type(item) is dict else getattr(item, "__dict__", {})
        kind = facts.get("type")
        if kind == "content_block_delta":
            delta = facts.get("delta")
            delta = delta if type(delta) is dict else getattr(delta, "__dict__", {})
            self._characters += sum(len(delta[key]) for key in _TEXTS if isinstance(delta.get(key), str))
        elif kind == "message_start":
            self._begin = of_parsed(facts.get("message"))
        elif kind == "message_delta":
            self._end = plain(facts.get("usage"))
        elif kind is None or kind == "completion":  # the API before Messages
            self._begin = of_parsed(item)

    def reply(self, first: Any, latest: Any, count: int) -> Reply:
        """Return the facts so far. Where the output was not stated yet, it is an estimate beside the stated input."""
        stated = plain(self._begin.usage)
        if not isinstance(stated, Mapping):
            usage, estimated = self._end, None
        elif isinstance(self._end, Mapping):
            usage, estimated = {**stated, **{k: v for k, v in self._end.items() if v is not None}}, None
        else:
            output = max(self._count - 1, self._characters // 4)
            usage = {**stated, "output_tokens": output}
            estimated = f"cut after {self._count} events: a token for 4 characters, at least 1, for each of output"
        return self._begin._replace(
            usage=usage, chunks=self._count, characters=self._characters, estimated=estimated if usage else None
        )


def of_text(text: str) -> Reply:
    """Return the facts of a body that the caller read as text: JSON, or server-sent events up to their end."""
    if text.lstrip().startswith("{"):
        try:
            return of_parsed(json.loads(text))
        except ValueError:
            return Reply(problem="the reply is not JSON")
    events = MessageEvents()
    count = 0
    for line in text.splitlines():
        if line.startswith("data:"):
            try:
                events.take(json.loads(line[5:]))
            except ValueError:
                continue
            count += 1
    return events.reply(None, None, count) if count else Reply(problem="the reply states no usage")
