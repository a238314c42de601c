"""Raw calls by httpx and httpx2, which are alike: their patch rows."""

from __future__ import annotations

import sys
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

from attribkit import faults
from attribkit.instrumentation.clients.http_bodies import Body
from attribkit.instrumentation.clients.http_calls import Exchange, RawCalls
from attribkit.instrumentation.clients.opening import InForce
from attribkit.instrumentation.clients.stainless import BYPASSED, EXTENSION
from attribkit.instrumentation.deferred import streams
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Operation

__all__ = ["patches"]

_CONTENT = "attribkit.content"


class _Httpx:
    """The patches of one of the two libraries, which are alike."""

    def __init__(self, calls: RawCalls, library: str) -> None:
        self._calls = calls
        self._library = library
        self._streams: tuple[Any, Any] | None = None

    def _begin(self, request: Any, *, wait: bool = True) -> Exchange | None:
        extensions = request.extensions
        before = extensions.get(EXTENSION)
        if isinstance(before, Operation):
            if not before.closed:
                return None
            self._as_it_was(request, before)
        content = request.content if hasattr(request, "_content") else None
        return self._calls.begin(
            self._library,
            request.method,
            str(request.url),
            request.headers,
            lambda: content,
            bypassed=extensions.get(BYPASSED),
            wait=wait,
        )

    def _told(self, request: Any, exchange: Exchange) -> None:
        """Put what the gateway is told on the request."""
        try:
            # a dict of the request's own: before httpx 0.28 it is the app's, which may share it between requests
            request.extensions = extensions = {**request.extensions, EXTENSION: exchange.operation}
            if exchange.rewritten is not None and exchange.original is not None:
                extensions[_CONTENT] = exchange.original
                self._set_content(request, exchange.rewritten)
            exchange.stamp(request.headers)
        except Exception as fault:
            faults.note("http.httpx", fault)

    def _as_it_was(self, request: Any, before: Operation) -> None:
        """Take off what an earlier call put on a request that is sent once more."""
        for name, value in before.added:
            if request.headers.get(name) == value:
                del request.headers[name]
        original = request.extensions.pop(_CONTENT, None)
        if original is not None:
            self._set_content(request, original)
        del request.extensions[EXTENSION]

    def _set_content(self, request: Any, content: bytes) -> None:
        request.stream = sys.modules[self._library].ByteStream(content)
        if hasattr(request, "_content"):
            request._content = content
        request.headers["content-length"] = str(len(content))

    def direct_send(self, original: Any, switch: list[None]) -> Any:
        """Stands before every request of every SDK: one that is on record already goes on at once."""

        def send(client: Any, request: Any, **more: Any) -> Any:
            wrapped, before = send.__wrapped__, request.extensions.get(EXTENSION)  # type: ignore[attr-defined]
            if not switch or (type(before) is Operation and not before.closed):
                return wrapped(client, request, **more)
            return self.send(types.MethodType(wrapped, client), client, (request,), more)

        return send

    def send(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = args[0] if args else kwargs["request"]
        exchange = self._begin(request)
        if exchange is None:
            return wrapped(*args, **kwargs)
        self._told(request, exchange)
        with InForce(exchange.operation):
            response = wrapped(*args, **kwargs)
        self._answered(exchange, response)
        return response

    async def send_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = args[0] if args else kwargs["request"]
        exchange = self._begin(request, wait=False)
        if exchange is None:
            return await wrapped(*args, **kwargs)
        await exchange.admitted()
        self._told(request, exchange)
        with InForce(exchange.operation):
            response = await wrapped(*args, **kwargs)
        self._answered(exchange, response)
        return response

    def _answered(self, exchange: Exchange, response: Any) -> None:
        try:
            body = exchange.answered(response.status_code, response.headers)
            if hasattr(response, "_content"):
                exchange.finish(body.of_whole(response.content))
            else:
                exchange.operation.streaming(body.reply)
                sync, asynchronous = self._streams = self._streams or _stream_classes(sys.modules[self._library])
                there = response.stream
                watched = asynchronous if hasattr(there, "__aiter__") else sync
                response.stream = watched(there, exchange, body)
        except Exception as fault:
            faults.note("http.httpx", fault)

    def build_redirect_request(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is said in a body does not follow a redirect either; `redirects` keeps the headers from it."""
        request = wrapped(*args, **kwargs)
        try:
            operation, original = request.extensions.get(EXTENSION), request.extensions.get(_CONTENT)
            if original is None or not isinstance(operation, Operation) or request.method != "POST":
                return request
            if self._calls.leads_elsewhere(operation, str(request.url)):
                self._set_content(request, original)
        except Exception as fault:
            faults.note("http.redirect", fault)
        return request


def _stream_classes(library: Any) -> tuple[Any, Any]:
    """Return a library's byte streams as they are watched: every piece is handed on and looked at."""

    class Watched(library.SyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, exchange: Exchange, body: Body) -> None:
            self._inner, self._exchange, self._body = inner, exchange, body

        def __iter__(self) -> Iterator[bytes]:
            try:
                for piece in self._inner:
                    self._exchange.operation.first_chunk()
                    self._body.feed_raw(piece)
                    if self._body.done:
                        self._exchange.ended()
                    yield piece
            except BaseException as error:
                self._exchange.ended(error)
                raise
            self._exchange.ended()

        def close(self) -> None:
            self._inner.close()
            self._exchange.left()

    class AsyncWatched(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, exchange: Exchange, body: Body) -> None:
            self._inner, self._exchange, self._body = inner, exchange, body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for piece in self._inner:
                    self._exchange.operation.first_chunk()
                    self._body.feed_raw(piece)
                    if self._body.done:
                        self._exchange.ended()
                    yield piece
            except BaseException as error:
                self._exchange.ended(error)
                raise
            self._exchange.ended()

        async def aclose(self) -> None:
            await self._inner.aclose()
            self._exchange.left()

    return Watched, AsyncWatched


def patches(calls: RawCalls) -> tuple[Patch, ...]:
    """Return the rows of both libraries."""
    rows: list[Patch] = []
    for library in ("httpx", "httpx2"):
        httpx, module = _Httpx(calls, library), f"{library}._client"
        rows += (
            Patch(module, "Client.send", httpx.send, "http", library, hot=True, direct=httpx.direct_send),
            Patch(module, "AsyncClient.send", httpx.send_async, "http", library, hot=True),
            Patch(module, "BaseClient._build_redirect_request", httpx.build_redirect_request, "http", library),
            Patch(module, "Client.stream", streams, "http", library),
            Patch(library, "stream", streams, "http", library),
        )
    return tuple(rows)
