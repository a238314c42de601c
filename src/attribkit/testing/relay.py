"""A recording relay: requests go on to a real gateway, and are written down with the usage that comes back."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from attribkit.testing.httpd import Connection, Request

__all__ = ["Relay"]

_HOP_BY_HOP = frozenset({"connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"})


def _read_facts(entry: dict[str, Any], event: object) -> None:
    """Take id, model, tier and usage from one JSON reply or stream event."""
    if isinstance(event, Mapping) and isinstance(event.get("response"), Mapping):
        event = event["response"]  # the events of the Responses API hold the response
    if not isinstance(event, Mapping):
        return
    for key, name in (("id", "response_id"), ("model", "model"), ("service_tier", "tier"), ("usage", "usage")):
        if event.get(key) is not None:
            entry[name] = event[key]


class Relay:
    """Sends requests on to `upstream` (its scheme, host and port), each over a connection of its own."""

    def __init__(self, upstream: str) -> None:
        url = urlsplit(upstream)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{upstream!r} is no http or https URL")
        self._client = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = url.hostname, url.port
        self._threads = ThreadPoolExecutor(64, thread_name_prefix="relay")

    async def forward(self, entry: dict[str, Any], request: Request, connection: Connection) -> None:
        """Answer one request with what the upstream says; 502 when it cannot be reached."""
        loop = asyncio.get_running_loop()
        headers = {k: v for k, v in request.headers if k.lower() not in _HOP_BY_HOP and k.lower() != "accept-encoding"}
        upstream = self._client(self._host, self._port, timeout=600)

        def start() -> http.client.HTTPResponse:
            upstream.request(request.method, request.target, request.body or None, headers)
            return upstream.getresponse()

        try:
            reply = await loop.run_in_executor(self._threads, start)
        except OSError as error:
            entry.update(status=502, outcome="answered")
            said = {"error": {"message": f"{self._host} cannot be reached: {error}", "type": "relay"}}
            await connection.send(502, [("content-type", "application/json")], json.dumps(said).encode())
            return
        try:
            entry.update(status=reply.status, outcome="left")
            kept = [(key, value) for key, value in reply.getheaders() if key.lower() not in _HOP_BY_HOP]
            if reply.headers.get_content_type() == "text/event-stream":
                await self._stream(entry, reply, connection, kept)
            else:
                body = await loop.run_in_executor(self._threads, reply.read)
                entry["outcome"] = "answered"
                with contextlib.suppress(ValueError):  # sound, pictures, an HTML page
                    _read_facts(entry, json.loads(body))
                await connection.send(reply.status, kept, body)
        finally:
            upstream.close()

    async def _stream(
        self,
        entry: dict[str, Any],
        reply: http.client.HTTPResponse,
        connection: Connection,
        headers: list[tuple[str, str]],
    ) -> None:
        loop = asyncio.get_running_loop()
        await connection.begin(reply.status, headers)
        rest = b""
        while data := await loop.run_in_executor(self._threads, reply.read1, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    entry["chunks"] += 1
                    try:
                        _read_facts(entry, json.loads(line[5:]))
                    except ValueError:
                        continue  # [DONE]
            await connection.chunk(data)
        entry["outcome"] = "answered"
        await connection.end()
