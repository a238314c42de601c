"""Raw calls by requests: its wrappers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attribkit import faults
from attribkit.instrumentation.clients.http_bodies import Body
from attribkit.instrumentation.clients.http_calls import RawCalls
from attribkit.instrumentation.clients.http_exchanges import Exchange
from attribkit.instrumentation.clients.opening import InForce

__all__ = ["Requests"]

_ATTRIBUTE = "_attribkit_exchange"


class Requests:
    def __init__(self, calls: RawCalls) -> None:
        self._calls = calls

    def _begin(self, request: Any) -> Exchange | None:
        before = request.__dict__.pop(_ATTRIBUTE, None)
        if before is not None:
            _as_it_was(request, before)
        exchange = self._calls.begin(
            "requests", request.method or "", request.url or "", request.headers, lambda: request.body
        )
        if exchange is None:
            return None
        try:
            setattr(request, _ATTRIBUTE, exchange)
            if exchange.original is None and isinstance(request.body, str):
                exchange.original = request.body.encode()
            if exchange.rewritten is not None and exchange.original is not None:
                _set_content(request, exchange.rewritten)
            exchange.stamp(request.headers)
        except Exception as fault:
            faults.note("http.requests", fault)
        return exchange

    def send(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Once for a call; a session calls it again for each redirect, inside."""
        exchange = self._begin(args[0] if args else kwargs["request"])
        if exchange is None:
            return wrapped(*args, **kwargs)
        with InForce(exchange.operation):
            response = wrapped(*args, **kwargs)
        try:
            body = exchange.answered(response.status_code, response.headers)
            if kwargs.get("stream", instance.stream):
                _watch(response, exchange, body)
            else:
                exchange.finish(body.of_whole(response.content))
        except Exception as fault:
            faults.note("http.requests", fault)
        return response

    def rebuild_auth(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A redirect has copied headers and body of the request before it."""
        try:
            request = args[0] if args else kwargs["prepared_request"]
            response = args[1] if len(args) > 1 else kwargs["response"]
            exchange = getattr(response.request, _ATTRIBUTE, None)
            if exchange is not None:
                if self._calls.leads_elsewhere(exchange.operation, request.url):
                    _as_it_was(request, exchange)
                else:
                    setattr(request, _ATTRIBUTE, exchange)
        except Exception as fault:
            faults.note("http.redirect", fault)
        return wrapped(*args, **kwargs)


def _as_it_was(request: Any, exchange: Exchange) -> None:
    """Take off what we have put on a request."""
    for name, value in exchange.operation.added:
        if request.headers.get(name) == value:
            del request.headers[name]
    if exchange.rewritten is not None and request.body == exchange.rewritten and exchange.original is not None:
        _set_content(request, exchange.original)


def _set_content(request: Any, content: bytes) -> None:
    request.body = content
    request.headers["Content-Length"] = str(len(content))


def _watch(response: Any, exchange: Exchange, body: Body) -> None:
    """Look at each piece that the app reads of a streamed response."""
    iter_content, close = response.iter_content, response.close
    encoding = response.encoding or "utf-8"

    def watched(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            for piece in iter_content(*args, **kwargs):
                exchange.operation.first_chunk()
                body.feed(piece if isinstance(piece, bytes) else piece.encode(encoding, "replace"))
                yield piece
        except BaseException as error:
            exchange.ended(error)
            raise
        exchange.ended()

    def closed() -> None:
        close()
        exchange.left()

    response.iter_content, response.close = watched, closed
    exchange.operation.streaming(body.reply)
