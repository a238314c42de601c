"""WSGI middleware (Flask, Django, any other): what a caller's signed carrier says is in force for its request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attribkit import context, runtime
from attribkit.context import Scope, leave, restored
from attribkit.instrumentation.hops.inbound import Inbound

__all__ = ["AttributionMiddleware"]

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class AttributionMiddleware:
    """Opens a scope for each request that brings a carrier of one of your own services, until its body has been sent.

    `app.wsgi_app = AttributionMiddleware(app.wsgi_app)` in Flask, `application = AttributionMiddleware(application)` in
    Django's wsgi.py. What is believed, and what `key` and `audience` mean, is as in `attribkit.asgi`.
    """

    def __init__(
        self, app: _App, *, key: str | bytes | None = None, audience: str | tuple[str, ...] | None = None
    ) -> None:
        self.app = app
        self._inbound = Inbound(runtime.active, key, audience)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Run the app. A body that is made while it is sent is made in the request's scope."""
        baggage = environ.get("HTTP_BAGGAGE")
        if baggage:
            host = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
            found = self._inbound.scope((("baggage", baggage),), lambda: host)
            if found is not None:
                with restored(found):
                    body = self.app(environ, start_response)
                    return body if isinstance(body, (list, tuple)) else _Body(body, found)
        return self.app(environ, start_response)


class _Body:
    """A response body, each piece of which is made in the request's scope."""

    def __init__(self, body: Iterable[bytes], scope: Scope) -> None:
        self._body = body
        self._pieces: Iterator[bytes] | None = None
        self._scope = scope

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        before = context.scope()
        entered, token = self._scope, context.enter(self._scope)
        try:
            if self._pieces is None:
                self._pieces = iter(self._body)
            return next(self._pieces)
        finally:
            self._scope = context.scope()  # what the body has opened and not yet closed is kept for its next piece
            leave(token, entered, before)

    def close(self) -> None:
        """Close the body, where there is something to close, in its scope."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with restored(self._scope):
                close()
