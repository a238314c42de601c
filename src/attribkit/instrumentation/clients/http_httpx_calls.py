"""One recorded call by httpx or httpx2: its request as the gateway gets it, and its reply."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

from attribkit import faults
from attribkit.instrumentation.clients.http_bodies import Body
from attribkit.instrumentation.clients.http_exchanges import Exchange
from attribkit.instrumentation.clients.stainless import EXTENSION
from attribkit.pipeline import Operation

__all__ = ["answered", "as_it_was", "as_the_app_gave_it", "tell"]

_CONTENT = "attribkit.content"
"""The extension that holds the body as the app gave it, where we have written it anew."""


def tell(library: str, request: Any, exchange: Exchange) -> None:
    """Put what the gateway is told on the request."""
    try:
        # a dict of the request's own: before httpx 0.28 it is the app's, which may share it between requests
        request.extensions = extensions = {**request.extensions, EXTENSION: exchange.operation}
        if exchange.rewritten is not None and exchange.original is not None:
            extensions[_CONTENT] = exchange.original
            _set_content(library, request, exchange.rewritten)
        exchange.stamp(request.headers)
    except Exception as fault:
        faults.note("http.httpx", fault)


def as_it_was(library: str, request: Any, before: Operation) -> None:
    """Take off what an earlier call put on a request that is sent once more."""
    for name, value in before.added:
        if request.headers.get(name) == value:
            del request.headers[name]
    as_the_app_gave_it(library, request)
    request.extensions.pop(_CONTENT, None)
    del request.extensions[EXTENSION]


def as_the_app_gave_it(library: str, request: Any) -> None:
    """Give a request the body back that it had before we wrote it anew."""
    original = request.extensions.get(_CONTENT)
    if original is not None:
        _set_content(library, request, original)


def _set_content(library: str, request: Any, content: bytes) -> None:
    request.stream = sys.modules[library].ByteStream(content)
    if hasattr(request, "_content"):
        request._content = content
    request.headers["content-length"] = str(len(content))


def answered(library: str, exchange: Exchange, response: Any) -> None:
    """Read the reply, or watch it as the app reads it."""
    try:
        body = exchange.answered(response.status_code, response.headers)
        if hasattr(response, "_content"):
            exchange.finish(body.of_whole(response.content))
        else:
            exchange.operation.streaming(body.reply)
            sync, asynchronous = _stream_classes(sys.modules[library])
            there = response.stream
            watched = asynchronous if hasattr(there, "__aiter__") else sync
            response.stream = watched(there, exchange, body)
    except Exception as fault:
        faults.note("http.httpx", fault)


@cache
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
