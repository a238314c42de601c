"""The patch rows of requests and aiohttp, whose wrappers come with the first request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribkit.instrumentation.clients.http_calls import RawCalls
from attribkit.instrumentation.first_call import FirstCall
from attribkit.instrumentation.patching import Patch
from attribkit.late import Late
from attribkit.pipeline import Pipeline

if TYPE_CHECKING:
    from attribkit.instrumentation.clients import http_aiohttp, http_requests
else:
    http_aiohttp, http_requests = Late(f"{__package__}.http_aiohttp"), Late(f"{__package__}.http_requests")

__all__ = ["aiohttp", "requests"]


def requests(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows of requests."""
    around = FirstCall(lambda: http_requests.Requests(RawCalls(pipeline))).wrapper
    return (
        Patch("requests.sessions", "Session.send", around("send"), "http", "requests"),
        Patch("requests.sessions", "SessionRedirectMixin.rebuild_auth", around("rebuild_auth"), "http", "requests"),
    )


def aiohttp(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows of aiohttp."""
    around = FirstCall(lambda: http_aiohttp.Aiohttp(RawCalls(pipeline))).wrapper
    return (
        Patch("aiohttp.client", "ClientSession._request", around("request"), "http", "aiohttp"),
        Patch("aiohttp.client_reqrep", "ClientRequest.send", around("send"), "http", "aiohttp"),
    )
