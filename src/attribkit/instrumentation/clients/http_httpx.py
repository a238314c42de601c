"""Raw calls by httpx and httpx2, which are alike: their patch rows."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.instrumentation.clients.http_calls import RawCalls
from attribkit.instrumentation.clients.opening import InForce
from attribkit.instrumentation.clients.stainless import BYPASSED, EXTENSION
from attribkit.instrumentation.first_call import FirstCall
from attribkit.instrumentation.patching import Patch, takes
from attribkit.late import Late
from attribkit.pipeline import Operation

if TYPE_CHECKING:
    from attribkit.instrumentation import deferred
    from attribkit.instrumentation.clients import http_httpx_calls
    from attribkit.instrumentation.clients.http_exchanges import Exchange
else:
    http_httpx_calls = Late(f"{__package__}.http_httpx_calls")
    deferred = Late("attribkit.instrumentation.deferred")

__all__ = ["patches"]


class _Httpx:
    """The patches of one of the two libraries, which are alike."""

    def __init__(self, calls: RawCalls, library: str) -> None:
        self._calls = calls
        self._library = library

    def _begin(self, request: Any, *, wait: bool = True) -> Exchange | None:
        extensions = request.extensions
        before = extensions.get(EXTENSION)
        if isinstance(before, Operation):
            if not before.closed:
                return None
            try:
                http_httpx_calls.as_it_was(self._library, request, before)
            except Exception as fault:
                faults.note("http.httpx", fault)
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

    def direct_send(self, original: Any, switch: list[None]) -> Any:
        """Stands before every request of every SDK: one that is on record already goes on at once."""
        defaults = original.__kwdefaults__ or {}
        if not takes(original, "self", "request", "stream", "auth", "follow_redirects") or len(defaults) != 3:
            return None

        def send(
            client: Any,
            request: Any,
            *,
            stream: Any = defaults["stream"],
            auth: Any = defaults["auth"],
            follow_redirects: Any = defaults["follow_redirects"],
        ) -> Any:
            wrapped, before = own["__wrapped__"], request.extensions.get(EXTENSION)
            if not switch or (type(before) is Operation and not before.closed):
                return wrapped(client, request, stream=stream, auth=auth, follow_redirects=follow_redirects)
            more = {"stream": stream, "auth": auth, "follow_redirects": follow_redirects}
            return self.send(types.MethodType(wrapped, client), client, (request,), more)

        own = vars(send)
        return send

    def send(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = args[0] if args else kwargs["request"]
        exchange = self._begin(request)
        if exchange is None:
            return wrapped(*args, **kwargs)
        http_httpx_calls.tell(self._library, request, exchange)
        with InForce(exchange.operation):
            response = wrapped(*args, **kwargs)
        http_httpx_calls.answered(self._library, exchange, response)
        return response

    async def send_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = args[0] if args else kwargs["request"]
        exchange = self._begin(request, wait=False)
        if exchange is None:
            return await wrapped(*args, **kwargs)
        await exchange.admitted()
        http_httpx_calls.tell(self._library, request, exchange)
        with InForce(exchange.operation):
            response = await wrapped(*args, **kwargs)
        http_httpx_calls.answered(self._library, exchange, response)
        return response

    def build_redirect_request(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What is said in a body does not follow a redirect either; `redirects` keeps the headers from it."""
        request = wrapped(*args, **kwargs)
        try:
            operation = request.extensions.get(EXTENSION)
            posted = isinstance(operation, Operation) and request.method == "POST"
            if posted and self._calls.leads_elsewhere(operation, str(request.url)):
                http_httpx_calls.as_the_app_gave_it(self._library, request)
        except Exception as fault:
            faults.note("http.redirect", fault)
        return request


def patches(calls: RawCalls) -> tuple[Patch, ...]:
    """Return the rows of both libraries."""
    rows: list[Patch] = []
    streams = FirstCall(lambda: deferred).wrapper("streams")
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
