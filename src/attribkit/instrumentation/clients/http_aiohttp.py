"""Raw calls by aiohttp: its wrappers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import wrapt

from attribkit import context, faults
from attribkit.context import enter, leave
from attribkit.instrumentation.clients.http_bodies import Body
from attribkit.instrumentation.clients.http_calls import RawCalls
from attribkit.instrumentation.clients.http_exchanges import Exchange

__all__ = ["Aiohttp"]

_ATTRIBUTE = "_attribkit_exchange"


class Aiohttp:
    def __init__(self, calls: RawCalls) -> None:
        self._calls = calls
        self._under_way: dict[int, Exchange] = {}
        """By the identity of their operation: a request is built further in, and finds its exchange by the scope."""

    def _begin(self, session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exchange | None:
        method, url = args[0] if args else kwargs["method"], args[1] if len(args) > 1 else kwargs["str_or_url"]
        build = getattr(session, "_build_url", None)
        if build is not None:
            url = build(url)
        content = kwargs.get("json")
        if content is None:
            content = kwargs.get("data")
        headers = {str(name).lower(): str(value) for name, value in dict(kwargs.get("headers") or {}).items()}
        return self._calls.begin("aiohttp", method, str(url), headers, lambda: content, wait=False)

    async def request(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Once for a call; redirects are followed inside."""
        exchange = None
        with suppress(KeyError, TypeError, ValueError):  # a wrong call: aiohttp says so itself
            exchange = self._begin(instance, args, kwargs)
        if exchange is None:
            return await wrapped(*args, **kwargs)
        await exchange.admitted()
        inner, key = exchange.scope(), id(exchange.operation)
        self._under_way[key] = exchange
        token = enter(inner)
        try:
            response = await wrapped(*args, **kwargs)
        except BaseException as error:
            exchange.operation.fail(error, http_status=getattr(error, "status", None))
            raise
        finally:
            leave(token, inner)
            self._under_way.pop(key, None)
        try:
            body = exchange.answered(response.status, response.headers)
            exchange.operation.streaming(body.reply)
            response.content = _Watched(response.content, exchange, body)
            if response.content.at_eof():
                exchange.ended()
        except Exception as fault:
            faults.note("http.aiohttp", fault)
        return response

    async def send(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Once for each request on the wire; one that follows a redirect gets the caller's headers, and the body of the
        request before it."""
        try:
            exchange = self._under_way.get(id(context.scope().operation))
            if exchange is not None:
                told = not self._calls.leads_elsewhere(exchange.operation, str(instance.url))
                if exchange.rewritten is not None and hasattr(instance, "update_body"):
                    await _tell(instance, exchange, told)
                if told:
                    exchange.stamp(instance.headers)
        except Exception as fault:
            faults.note("http.aiohttp", fault)
        return await wrapped(*args, **kwargs)


async def _tell(request: Any, exchange: Exchange, told: bool) -> None:
    """Put what the gateway is told into a request's body, or take it out again for another place."""
    there = getattr(request.body, "_value", None)
    if not isinstance(there, bytes) or (told and there == exchange.rewritten):
        return
    if told:
        exchange.original = there
        await request.update_body(exchange.rewritten)
    elif there == exchange.rewritten:
        await request.update_body(exchange.original)


class _Watched(wrapt.ObjectProxy):  # type: ignore[misc, type-arg, unused-ignore]
    """A response's stream reader: every piece that the app reads is looked at."""

    def __init__(self, inner: Any, exchange: Exchange, body: Body) -> None:
        super().__init__(inner)
        self._self_exchange, self._self_body = exchange, body

    def _self_take(self, piece: bytes) -> bytes:
        exchange = self._self_exchange
        if not exchange.operation.closed:
            exchange.operation.first_chunk()
            self._self_body.feed(piece)
            if self.__wrapped__.at_eof():
                exchange.ended()
        return piece

    async def _self_read(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            piece = await getattr(self.__wrapped__, name)(*args, **kwargs)
        except BaseException as error:
            self._self_exchange.ended(error)
            raise
        self._self_take(piece[0] if isinstance(piece, tuple) else piece)
        return piece

    async def read(self, *args: Any, **kwargs: Any) -> Any:
        return await self._self_read("read", *args, **kwargs)

    async def readany(self) -> Any:
        return await self._self_read("readany")

    async def readline(self, *args: Any, **kwargs: Any) -> Any:
        return await self._self_read("readline", *args, **kwargs)

    async def readuntil(self, *args: Any, **kwargs: Any) -> Any:
        return await self._self_read("readuntil", *args, **kwargs)

    async def readexactly(self, *args: Any, **kwargs: Any) -> Any:
        return await self._self_read("readexactly", *args, **kwargs)

    async def readchunk(self) -> Any:
        return await self._self_read("readchunk")

    def read_nowait(self, *args: Any, **kwargs: Any) -> Any:
        return self._self_take(self.__wrapped__.read_nowait(*args, **kwargs))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _until_empty(self.readline)

    def iter_any(self) -> AsyncIterator[bytes]:
        return _until_empty(self.readany)

    def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        return _until_empty(self.read, n)

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        while (piece := await self.readchunk()) != (b"", False):
            yield piece


async def _until_empty(read: Any, *args: Any) -> AsyncIterator[bytes]:
    while piece := await read(*args):
        yield piece
