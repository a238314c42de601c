"""SDKs that stand on a plain HTTP client and have no patches of their own: how their requests are told from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["SDK", "sdk_of"]


class SDK(NamedTuple):
    """An SDK, as the User-Agent of its requests names it."""

    name: str
    """Its package."""
    provider: str
    """Who answers it, in the words of the price engine; "" where it speaks to many."""


_BY_AGENT = (
    ("litellm/", "", SDK("litellm", "")),
    ("cohere/", "", SDK("cohere", "cohere")),
    ("speakeasy-sdk/python", "mistralai", SDK("mistralai", "mistral")),
    ("mistral-client-python/", "", SDK("mistralai", "mistral")),
)


def sdk_of(headers: Mapping[str, str]) -> SDK | None:
    """Return the SDK that sends a request with these headers, None when it is the app itself."""
    agent = headers.get("user-agent") or headers.get("User-Agent") or ""
    for start, end, sdk in _BY_AGENT:
        if agent.startswith(start) and agent.endswith(end):
            return sdk
    return None
