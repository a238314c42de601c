"""The OpenAI SDK, 1.x on httpx to 3.x on httpx2: its patch rows, and how its requests and replies are read."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from attribkit import context, faults
from attribkit.calls import LLMCall, Reply
from attribkit.context import Scope
from attribkit.instrumentation.clients.hosts import provider_at
from attribkit.instrumentation.clients.openai_replies import StreamItems, counted, of_text
from attribkit.instrumentation.clients.stainless import StainlessSDK
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Operation, Pipeline

if TYPE_CHECKING:
    from attribkit.instrumentation.clients.openai_runs import Jobs

__all__ = ["patches"]

_making = threading.Lock()

_NO_JOBS = frozenset({"/chat/completions", "/completions", "/embeddings", "/models", "/moderations"})


def _in_background(options: Any) -> bool:
    body = options.json_data
    extra = options.extra_json
    return bool(isinstance(body, Mapping) and body.get("background")) or bool(extra and extra.get("background"))


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
    simple: ClassVar[frozenset[str]] = frozenset({"chat", "completions", "embeddings", "moderations"})
    managers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("chat._completions", "ChatCompletionStreamManager"),
        ("responses._responses", "ResponseStreamManager"),
        ("_assistants", "AssistantStreamManager"),
    )

    @functools.cached_property
    def _jobs(self) -> Jobs:
        """What is known of work that outlives its request; loaded with the first request that is about any."""
        from attribkit.instrumentation.clients.openai_runs import Jobs

        with _making:
            return cast("Jobs", self.__dict__.setdefault("_jobs", Jobs(self._pipeline)))

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

    def items(self, operation: Operation) -> StreamItems:
        if operation.later is None:
            return StreamItems()
        from attribkit.instrumentation.clients.openai_runs import JobItems

        return JobItems(self._jobs)

    def begin_any(self, client: Any, options: Any, stream: bool, wait: bool) -> Operation | None:
        path = options.url
        if path in _NO_JOBS or (path == "/responses" and not _in_background(options)):
            return StainlessSDK.begin_any(self, client, options, stream, wait)  # super() costs 1,000 instructions
        creator = self._jobs.creator_at(path)
        if creator is not None:
            with context.restored(Scope(creator.attribution, "restored", context.scope().operation)):
                operation = super().begin_any(client, options, stream, wait)
        else:
            operation = super().begin_any(client, options, stream, wait)
        if operation is not None:
            try:
                self._jobs.begun(operation, path)
            except Exception as fault:
                faults.note("openai.jobs", fault)
        return operation

    def answered(self, operation: Operation, result: Any) -> None:
        self._jobs.answered(operation, "", result)

    def polled(self, operation: Operation, path: str, result: Any) -> None:
        self._jobs.answered(operation, path, result)

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
