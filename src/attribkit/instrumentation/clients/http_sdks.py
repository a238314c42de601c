"""SDKs that stand on a plain HTTP client, which is where they are recorded: how their requests are told from others."""

from __future__ import annotations

from collections.abc import Mapping

from attribkit.instrumentation.patching import Patch

__all__ = ["SDK", "patches", "sdk_of"]


class SDK:
    """An SDK, as the User-Agent of its requests names it."""

    __slots__ = ("name", "provider")

    def __init__(self, name: str, provider: str) -> None:
        self.name = name
        """Its package."""
        self.provider = provider
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


def patches() -> tuple[Patch, ...]:
    """Return the rows that keep the scope of Cohere's streams, which ask at their first step."""
    from attribkit.instrumentation.deferred import streams

    return (
        Patch("cohere.v2.client", "V2Client.chat_stream", streams, "http", "cohere", False),
        Patch("cohere.base_client", "BaseCohere.chat_stream", streams, "http", "cohere", False),
    )
