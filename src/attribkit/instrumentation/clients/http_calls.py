"""Which raw HTTP requests are model calls of the app's own, whichever library sends them.

Where a client patch has an operation under way, an SDK stands on the HTTP client and the call is its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.context import scope
from attribkit.errors import AttributionRequired, BudgetExceeded
from attribkit.instrumentation.clients.http_sdks import SDK, sdk_of
from attribkit.late import Late
from attribkit.pipeline import Operation, Pipeline

if TYPE_CHECKING:
    from attribkit.instrumentation.clients import http_exchanges
else:
    http_exchanges = Late(f"{__package__}.http_exchanges")

__all__ = ["RawCalls"]

_PATCHED_SDK = r"(?i:\w*(?:openai|anthropic)/)"


class RawCalls:
    """Reads HTTP requests to gateways into operations of one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def begin(
        self,
        client: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Callable[[], Any],
        *,
        bypassed: str | None = None,
        wait: bool = True,
    ) -> http_exchanges.Exchange | None:
        """Return the exchange of a request that goes to a gateway on the app's own account, None for any other.

        `bypassed` names the SDK whose request came past its own patches. With `wait=False` the exchange has to be
        `admitted()` before it is sent.
        """
        try:
            under_way = scope().operation
            if isinstance(under_way, Operation) and not under_way.closed:
                return None
            sdk = sdk_of(headers) if bypassed is None else SDK(bypassed, "")
            route = self._pipeline.target(url.partition("?")[0]).route
            if route is None and sdk is None:
                return None
            if (
                bypassed is None
                and "x-stainless-lang" in headers
                and re.match(_PATCHED_SDK, headers.get("user-agent") or "")
            ):
                return None  # its patches are off
            return http_exchanges.opened(
                self._pipeline,
                client,
                sdk,
                method,
                url,
                headers,
                content(),
                known=route is not None,
                wait=wait,
            )
        except (AttributionRequired, BudgetExceeded):
            raise
        except Exception as fault:
            faults.note("http.begin", fault)
            return None

    def leads_elsewhere(self, operation: Operation, url: str) -> bool:
        """Tell whether `url`, to which a request was redirected, is not under its gateway's prefix."""
        return self._pipeline.gateways.match(url) is not operation.target.route
