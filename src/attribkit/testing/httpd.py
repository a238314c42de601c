"""A small HTTP/1.1 server on asyncio: keep-alive, chunked bodies both ways, and ways to break a reply on purpose."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple

__all__ = ["MAX_HEAD", "BadRequest", "Connection", "Request", "serve"]

MAX_HEAD = 16 * 1024
"""Bytes of request line and headers together; as in Node, and so in the Portkey gateway."""
MAX_BODY = 64 * 1024 * 1024
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Request(NamedTuple):
    """One request as it arrived: headers raw and in order, the body whole."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    """Counts the connections of this server, so that keep-alive can be seen."""
    problem: int = 0
    """The status to refuse it with: 400 control characters in a header, 431 head too long, 0 well formed."""

    def header(self, name: str) -> str | None:
        """Return the first header called `name` (any case), or None."""
        name = name.lower()
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class BadRequest(Exception):
    """The bytes that arrived are not HTTP/1.1."""


class Connection:
    """The reply side of one connection. A handler answers each request with `send`, or `begin`, `chunk`..., `end`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.closing = False
        """True when the connection ends after this reply."""

    @property
    def left(self) -> bool:
        """True once the client has hung up."""
        return self._reader.at_eof() or self._writer.is_closing()

    def _head(self, status: int, headers: list[tuple[str, str]], framing: str) -> bytes:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Status"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{key}: {value}" for key, value in headers), framing]
        if self.closing:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a whole reply."""
        self._writer.write(self._head(status, headers, f"content-length: {len(body)}") + body)
        await self._writer.drain()

    async def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send the head of a chunked reply."""
        self._writer.write(self._head(status, headers, "transfer-encoding: chunked"))
        await self._writer.drain()

    async def chunk(self, data: bytes) -> None:
        """Send one chunk in a write of its own."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def end(self) -> None:
        """End a chunked reply."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def until_left(self, seconds: float | None) -> None:
        """Wait until the client hangs up, for at most `seconds`."""
        try:
            await asyncio.wait_for(self._reader.read(1), seconds)
        except TimeoutError:
            return
        self.closing = True

    def drop(self) -> None:
        """Cut the connection where it is, without ending the reply."""
        self.closing = True
        self._writer.transport.abort()


Handler = Callable[[Request, Connection], Awaitable[None]]


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        if not size:
            while (await reader.readline()).strip():
                pass
            return bytes(body)
        if len(body) + size > MAX_BODY:
            raise BadRequest("body too large")
        body += await reader.readexactly(size)
        await reader.readexactly(2)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    try:
        method, target, version = lines[0].decode("ascii").split(" ")
    except ValueError as error:
        raise BadRequest("request line") from error
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest("version")
    headers = []
    problem = 431 if len(head) > MAX_HEAD else 0
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or _CONTROL.search(line):
            problem = problem or 400
        headers.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
    framing = {name.lower(): value for name, value in headers}
    if framing.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in framing.get("transfer-encoding", "").lower():
        body = await _read_chunked(reader)
    else:
        length = int(framing.get("content-length") or 0)
        if not 0 <= length <= MAX_BODY:
            raise BadRequest("content-length")
        body = await reader.readexactly(length)
    return Request(method, target, tuple(headers), body, number, problem)


async def serve(handler: Handler, host: str, port: int) -> tuple[asyncio.Server, set[asyncio.Task[None]]]:
    """Listen, and return the server with the tasks of its open connections; port 0 takes a free one."""
    tasks: set[asyncio.Task[None]] = set()
    count = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        number = count
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        connection = Connection(reader, writer)
        try:
            while not connection.closing:
                request = await _read_request(reader, writer, number)
                connection.closing = (request.header("connection") or "").lower() == "close" or bool(request.problem)
                await handler(request, connection)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client hung up
        except (BadRequest, ValueError, asyncio.LimitOverrunError):
            connection.closing = True
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, port, limit=1 << 20, backlog=4096)
    return server, tasks
