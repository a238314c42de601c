"""What HTTP bodies of model APIs say, read as bytes: which call a request is, and the facts in its reply.

Only facts are taken: model, usage, ids, and how long a text is. A body is dropped once it has been read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from attribkit.calls import LLMCall, Reply
from attribkit.instrumentation.clients.anthropic_replies import MessageEvents
from attribkit.instrumentation.clients.hosts import provider_at
from attribkit.instrumentation.clients.parsed import of_parsed
from attribkit.pipeline import Operation

__all__ = ["Body", "Request", "decoder", "read_request"]

_APIS = (
    ("/chat/completions", "chat"),
    ("/completions", "completions"),
    ("/responses", "responses"),
    ("/embeddings", "embeddings"),
    ("/messages", "messages"),
    ("/images/generations", "images"),
    ("/images/edits", "images"),
    ("/images/variations", "images"),
    ("/audio/speech", "speech"),
    ("/audio/transcriptions", "transcriptions"),
    ("/audio/translations", "transcriptions"),
    ("/moderations", "moderations"),
    (":generateContent", "generate_content"),
    (":streamGenerateContent", "generate_content"),
    (":embedContent", "embeddings"),
    (":batchEmbedContents", "embeddings"),
    ("/v2/chat", "chat"),
    ("/v2/embed", "embeddings"),
    ("/v2/rerank", "rerank"),
    ("/converse", "converse"),
    ("/converse-stream", "converse"),
)
_MODEL_IN_PATH = r"/models?/([^/:]+)(?::\w+|/converse(?:-stream)?)\Z"
_LARGEST_REQUEST = 8 << 20
_LARGEST_REPLY = 32 << 20
_LONGEST_LINE = 4 << 20
_NULL_USAGE = re.compile(rb'"usage(?:Metadata)?"\s*:\s*null')


class Request(NamedTuple):
    """One HTTP request to a gateway."""

    call: LLMCall
    text: bytes | None
    """Its JSON body as it was, None when it has none that can be read."""


def read_request(client: str, method: str, url: str, content: Any) -> Request:
    """Return what a request is: a call whose `api` is "" when it is none of a model."""
    url = url.partition("?")[0].partition("#")[0]
    path = url.rstrip("/")
    api = next((api for end, api in _APIS if path.endswith(end)), "") if method.upper() == "POST" else ""
    body = _parsed(content) if api else None
    model, stream = None, path.endswith((":streamGenerateContent", "/converse-stream"))
    if body is not None:
        model, stream = body.get("model"), stream or body.get("stream") is True
    if not isinstance(model, str):
        found = re.search(_MODEL_IN_PATH, path)
        model = unquote(found[1]) if found else None
    provider = provider_at(url) or ("bedrock" if api == "converse" else "")
    call = LLMCall(client, provider, api, url, model, stream, body)
    return Request(call, content if body is not None and isinstance(content, bytes) else None)


def _parsed(content: Any) -> Mapping[str, Any] | None:
    if isinstance(content, Mapping):
        return content
    if not isinstance(content, (bytes, bytearray, str)) or not 0 < len(content) <= _LARGEST_REQUEST:
        return None
    try:
        body = orjson.loads(content)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def decoder(encoding: str) -> Callable[[bytes], bytes] | None:
    """Return what undoes a content encoding piece by piece, None for one that cannot be undone here."""
    if encoding in ("", "identity"):
        return bytes
    if encoding in ("gzip", "x-gzip", "deflate"):
        import zlib

        return zlib.decompressobj(47).decompress
    try:
        if encoding == "zstd":
            return _function("zstandard", "ZstdDecompressor")().decompressobj().decompress  # type: ignore[no-any-return]
        if encoding == "br":
            made = _function("brotli", "Decompressor")()
            return made.process if hasattr(made, "process") else made.decompress  # type: ignore[no-any-return]
    except Exception:
        return None
    return None


def _function(module: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(module), name)


class Body:
    """Reads one reply's body, whole or piece by piece."""

    def __init__(self, operation: Operation, status: int, headers: Mapping[str, str]) -> None:
        self._operation, self._call = operation, operation.call
        self._look = operation.first_look()
        self._status = status
        kind = headers.get("content-type") or ""
        self._events = "event-stream" in kind or "ndjson" in kind
        self._decode = decoder((headers.get("content-encoding") or "").strip().lower())
        self._kept = bytearray()
        self._first: bytes | None = None
        self._latest: bytes | None = None
        self._usage: bytes | None = None
        self._count = 0
        self.done = False
        """True once a stream has said that nothing follows, whether or not it is read to its end."""
        self._messages = MessageEvents() if self._call.api == "messages" else None

    def feed_raw(self, piece: bytes) -> None:
        """Take a piece as it came over the wire, encoded or not."""
        if self._decode is not None and piece:
            try:
                self.feed(self._decode(piece))
            except Exception:  # not what its header says: the reply's usage is unknown
                self._decode = None

    def feed(self, piece: bytes) -> None:
        """Take a decoded piece."""
        self._kept += piece
        if not self._events:
            if len(self._kept) > _LARGEST_REPLY:
                self._kept.clear()
            return
        if b"\n" in piece:
            *lines, rest = bytes(self._kept).split(b"\n")
            self._kept[:] = rest
            for line in lines:
                self._take(line.strip())
        elif len(self._kept) > _LONGEST_LINE:
            self._kept.clear()

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            line = line[5:].strip()
        if not line.startswith(b"{"):
            self.done = self.done or line == b"[DONE]"
            return
        self._count += 1
        if self._messages is not None:
            facts = _json(line)
            if isinstance(facts, dict):
                self._messages.take(facts)
                self.done = facts.get("type") in ("message_delta", "message_stop")  # the first has all that is counted
            return
        self._latest = line
        if self._count == self._look:
            characters = _length(_json(line)) * self._count
            self._look = self._operation.looked(Reply(chunks=self._count, characters=characters))
        if self._first is None:
            self._first = line
        if b'"usage' in line and not _NULL_USAGE.search(line):
            self._usage = line

    def reply(self) -> Reply:
        """Return the facts of what has been read so far."""
        if self._status >= 400:
            return Reply(http_status=self._status)
        reply = self._of_events() if self._events else self._of_json(_json(self._kept))
        return reply._replace(http_status=self._status)

    def of_whole(self, content: bytes) -> Reply:
        """Return the facts of a body that the client has read already."""
        self._kept = bytearray()
        self._look = 0
        self.feed(content + b"\n" if self._events else content)
        return self.reply()

    def _of_json(self, facts: Any) -> Reply:
        call = self._call
        if isinstance(facts, list) and facts:
            facts = facts[-1]
        if call.api == "speech" and call.body is not None and isinstance(call.body.get("input"), str):
            return Reply(usage={"characters": len(call.body["input"])})
        if not isinstance(facts, dict):
            return Reply(problem="the reply is not JSON")
        reply = _facts(facts)
        if reply.usage is None and call.api == "images" and isinstance(facts.get("data"), list):
            body = call.body or {}
            usage = {"images": len(facts["data"]), "size": body.get("size"), "quality": body.get("quality")}
            return reply._replace(usage=usage)
        return reply

    def _of_events(self) -> Reply:
        if self._kept:
            self._take(bytes(self._kept).strip())
            self._kept.clear()
        if self._messages is not None:
            return self._messages.reply(None, None, self._count)
        if not self._count:
            return Reply(problem="the reply states no usage")
        begin, latest = _json(self._first or b""), _json(self._latest or b"")
        end = _json(self._usage) if self._usage is not None else latest
        first, last = _facts(begin), _facts(end)
        return Reply(
            last.usage,
            last.model or first.model,
            last.service_tier or first.service_tier,
            last.response_id or first.response_id,
            chunks=self._count,
            characters=_length(latest) * self._count,
        )


def _json(text: bytes | bytearray) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _facts(facts: Any) -> Reply:
    """Return the facts of a JSON object: of what is inside an event of the Responses API, or of the object itself."""
    if not isinstance(facts, dict):
        return Reply()
    inner = facts.get("response")
    facts = inner if isinstance(inner, dict) else facts
    reply = of_parsed(facts)
    if reply.usage is None:
        for key in ("delta", "meta"):  # Cohere: at the end of a stream, and in what is not a chat
            part = facts.get(key)
            usage = part.get("usage", part) if isinstance(part, dict) else None
            if isinstance(usage, dict) and "billed_units" in usage:
                return reply._replace(usage=usage)
    if reply.usage is None and isinstance(facts.get("usageMetadata"), dict):
        model, identity = facts.get("modelVersion"), facts.get("responseId")
        reply = reply._replace(
            usage=facts["usageMetadata"],
            model=model if isinstance(model, str) else None,
            response_id=identity if isinstance(identity, str) else None,
        )
    return reply


def _length(event: Any) -> int:
    """Return how many characters of text an event brings. Only the length is read."""
    try:
        delta = event.get("delta")
        if event.get("choices"):
            delta = event["choices"][0]["delta"].get("content")
        elif event.get("candidates"):
            delta = event["candidates"][0]["content"]["parts"][0].get("text")
        return len(delta) if isinstance(delta, str) else 0
    except (AttributeError, LookupError, TypeError):
        return 0
