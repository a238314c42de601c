"""The OpenAI SDK, 1.x on httpx to 3.x on httpx2: its patch rows, and how its requests and replies are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.calls import LLMCall, Reply
from attribkit.instrumentation.clients.hosts import provider_at
from attribkit.instrumentation.clients.openai_replies import StreamItems, counted, of_text
from attribkit.instrumentation.clients.stainless import StainlessSDK
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Pipeline

__all__ = ["patches"]


class _OpenAI(StainlessSDK):
    name: ClassVar[str] = "openai"
    apis: ClassVar[Mapping[str, str]] = {
        "/chat/completions": "chat",
        "/completions": "completions",
        "/responses": "responses",
        "/embeddings": "embeddings",
        "/images/generations": "images",
        "/images/edits": "images",
        "/images/variations": "images",
        "/audio/speech": "speech",
        "/audio/transcriptions": "transcriptions",
        "/audio/translations": "transcriptions",
        "/moderations": "moderations",
        "/videos": "videos",
        "/batches": "batches",
        "/threads/runs": "runs",
    }

    def api_of(self, method: str, path: str) -> str:
        api = super().api_of(method, path)
        if not api and method.lower() == "post" and "/threads/" in path:
            last = path.split("?", 1)[0].rstrip("/").rpartition("/")[2]
            api = "runs" if last in ("runs", "submit_tool_outputs") else ""
        return api

    def provider_of(self, client: Any, url: str) -> str:
        azure = any(cls.__name__ == "BaseAzureClient" for cls in type(client).__mro__)
        return "azure" if azure else provider_at(url)

    def counted(self, call: LLMCall, result: Any) -> Mapping[str, Any] | None:
        return counted(call, result)

    def items(self) -> StreamItems:
        return StreamItems()

    def of_text(self, text: str) -> Reply:
        return of_text(text)


def patches(pipeline: Pipeline, *, read_replies: bool = True) -> tuple[Patch, ...]:
    """Return the rows that lead every OpenAI client's calls through `pipeline`.

    `read_replies` is for gateways that say things in their response headers; without them it would be a patch for
    nothing on every call.
    """
    sdk = _OpenAI(pipeline)
    return (
        *sdk.patches(),
        sdk.row("", "OpenAI.request", sdk.request_on_subclass, own=True),
        sdk.row("", "AsyncOpenAI.request", sdk.request_async_on_subclass, own=True),
        sdk.row("", "AzureOpenAI.request", sdk.request_on_subclass, own=True),
        sdk.row("", "AsyncAzureOpenAI.request", sdk.request_async_on_subclass, own=True),
        *(
            sdk.row("._base_client", f"{cls}._process_response", sdk.process_response, required=False, hot=True)
            for cls in ("SyncAPIClient", "AsyncAPIClient")
            if read_replies
        ),
    )
