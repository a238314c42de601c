"""One raw HTTP request to a gateway and its reply, whichever library sends it: headers, one span and one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from attribkit import context, faults
from attribkit.calls import Reply
from attribkit.context import Scope
from attribkit.instrumentation.clients.headers import put
from attribkit.instrumentation.clients.http_bodies import Body, read_request
from attribkit.instrumentation.clients.http_sdks import SDK
from attribkit.pipeline import Operation, Pipeline

__all__ = ["Exchange", "opened"]


class HTTPStatusError(Exception):
    """What a row calls an answer with an error status: raw clients raise nothing."""


class Exchange:
    """One request to a gateway and its reply."""

    __slots__ = ("_fixed", "_stamped", "body", "operation", "original", "rewritten")

    def __init__(self, operation: Operation, original: bytes | None, *, fixed: bool) -> None:
        self.operation = operation
        self.original = original
        """The body as the app gave it."""
        self.rewritten: bytes | None = None
        """The body with what the gateway is told there, None when it stays as it is."""
        self._fixed = fixed
        self.body: Body | None = None
        self._stamped = False

    def shape(self) -> None:
        """Write the body anew with what the gateway is told there, unless it is signed."""
        operation = self.operation
        changes = dict(operation.body or {})
        changes.pop("stream_options", None)  # the app reads the stream itself: an extra event could not be hidden
        operation.body = changes or None
        if changes and operation.call.body is not None and not self._fixed:
            self.rewritten = orjson.dumps({**operation.call.body, **changes})

    async def admitted(self) -> None:
        """Wait, without blocking the event loop, for a budget that has not answered yet. Raises BudgetExceeded."""
        if self.operation.waits:
            await self.operation.admitted()
            self.shape()

    def scope(self) -> Scope:
        """Return what is in force while the request is under way."""
        operation = self.operation
        return Scope(operation.attribution, operation.hop, operation)

    def stamp(self, headers: Any) -> None:
        """Start the attempt and put its headers beside those of the app."""
        if self._stamped:
            return
        self._stamped = True
        added = put(headers, self.operation.next_attempt())
        if added is not None:
            self.operation.added = added

    def answered(self, status: int, headers: Mapping[str, str]) -> Body:
        """Note the reply's status and headers; return what reads its body."""
        operation = self.operation
        route = operation.target.route
        if route is not None and route.reads_reply:
            operation.reply_headers = headers
        self.body = Body(operation, status, headers)
        return self.body

    def finish(self, reply: Reply) -> None:
        """Close with a reply that was read whole."""
        status = reply.http_status
        if status is not None and not 200 <= status < 300:
            self.operation.fail(HTTPStatusError(), http_status=status)
        else:
            self.operation.finish(reply)

    def ended(self, error: BaseException | None = None) -> None:
        """Close a streamed reply: at its end, or where it broke off."""
        try:
            operation, reply = self.operation, self.body.reply() if self.body is not None else Reply()
            if operation.closed:
                return
            if error is None:
                self.finish(reply)
            elif isinstance(error, GeneratorExit):
                self.left()
            else:
                cancelled = type(error).__name__ == "CancelledError"
                operation.abandon(reply, "cancelled" if cancelled else "error", type(error).__name__)
        except Exception as fault:
            faults.note("http.ended", fault)

    def left(self) -> None:
        """Close a streamed reply that nobody read to its end."""
        if not self.operation.closed:
            reply = self.body.reply() if self.body is not None else Reply()
            if reply.http_status is not None and reply.http_status >= 400:
                self.finish(reply)
            else:
                self.operation.abandon(reply)


def opened(
    pipeline: Pipeline,
    client: str,
    sdk: SDK | None,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: Any,
    *,
    known: bool,
    wait: bool,
) -> Exchange | None:
    """Return the exchange of a request, begun in `pipeline`; `known` says whether its URL is a gateway's. None for one
    of an SDK that asks no model. Raises AttributionRequired and BudgetExceeded."""
    request = read_request(client if sdk is None else sdk.name, method, url, content)
    if sdk is not None:
        if not known and not request.call.api:
            return None
        if sdk.provider and not request.call.provider:
            request = request._replace(call=request.call._replace(provider=sdk.provider))
    here = context.in_force()
    operation = pipeline.begin(request.call, here.attribution, here.hop, wait=wait)
    exchange = Exchange(operation, request.text, fixed=_signed(headers))
    if not operation.waits:
        exchange.shape()
    return exchange


def _signed(headers: Mapping[str, str]) -> bool:
    """Tell whether a signature over the body stands in the headers (AWS)."""
    return (headers.get("authorization") or "").startswith("AWS4-")
