"""Raw HTTP calls to a gateway: the patch rows of httpx, httpx2, requests and aiohttp."""

from __future__ import annotations

from attribkit.instrumentation.clients import http_aiohttp, http_httpx, http_requests
from attribkit.instrumentation.clients.http_calls import RawCalls
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Pipeline

__all__ = ["patches"]


def patches(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows that every raw request passes; a request to no gateway passes as it is."""
    calls = RawCalls(pipeline)
    return (*http_httpx.patches(calls), *http_requests.patches(calls), *http_aiohttp.patches(calls))
