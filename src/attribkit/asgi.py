"""ASGI middleware (FastAPI, Starlette, any other): what a caller's signed carrier says is in force for its request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from attribkit import runtime
from attribkit.context import restored
from attribkit.instrumentation.hops.inbound import Inbound

__all__ = ["AttributionMiddleware"]

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


class AttributionMiddleware:
    """Opens a scope for each HTTP request and websocket that brings a carrier of one of your own services.

    `app.add_middleware(AttributionMiddleware)` takes key, audience and age from the settings of `instrument()`: a
    carrier is believed when it was signed with `carrier_key`, for this host, at most `carrier_max_age` seconds ago.
    What is not believed is refused, counted and logged once, and the request goes on without it. `audience` names the
    hosts ("orders.internal", "orders.internal:8080") by which callers reach this service; without any it is what the
    request's Host header says.
    """

    def __init__(
        self, app: Any, *, key: str | bytes | None = None, audience: str | tuple[str, ...] | None = None
    ) -> None:
        self.app: _App = app
        self._inbound = Inbound(runtime.active, key, audience)

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Run the app: its background tasks and streamed body are a part of that."""
        if scope["type"] in ("http", "websocket"):
            carriers = [pair for pair in scope["headers"] if pair[0] == b"baggage"]
            if carriers:
                found = self._inbound.scope(carriers, lambda: _host(scope))
                if found is not None:
                    with restored(found):
                        await self.app(scope, receive, send)
                    return
        await self.app(scope, receive, send)


def _host(scope: _Message) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return str(value, "latin-1")
    return ""
