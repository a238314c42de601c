"""HTTP redirects in httpx and httpx2: what we put on a request does not follow it to another place."""

from __future__ import annotations

from typing import Any

from attribkit import faults
from attribkit.instrumentation.clients.stainless import EXTENSION
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Operation, Pipeline

__all__ = ["patches"]


def patches(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows that keep our headers from following a redirect out of the gateway's prefix."""

    def redirect_headers(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        headers = wrapped(*args, **kwargs)
        request = args[0] if args else kwargs.get("request")
        url = args[1] if len(args) > 1 else kwargs.get("url")
        operation = getattr(request, "extensions", {}).get(EXTENSION)
        if isinstance(operation, Operation):
            try:
                if pipeline.gateways.match(str(url)) is not operation.target.route:
                    for name, _ in operation.added:
                        headers.pop(name, None)
            except Exception as fault:
                for name, _ in operation.added:
                    headers.pop(name, None)
                faults.note("redirect", fault)
        return headers

    return tuple(
        Patch(f"{library}._client", "BaseClient._redirect_headers", redirect_headers, "redirects", library)
        for library in ("httpx", "httpx2")
    )
