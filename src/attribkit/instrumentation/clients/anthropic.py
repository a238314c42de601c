"""The Anthropic SDK, direct and on Bedrock, Vertex and Foundry: its patch rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.calls import Reply
from attribkit.context import Scope, restored, scope
from attribkit.instrumentation.clients.anthropic_batches import MessageBatches
from attribkit.instrumentation.clients.anthropic_replies import MessageEvents, of_text
from attribkit.instrumentation.clients.hosts import provider_at
from attribkit.instrumentation.clients.stainless import StainlessSDK
from attribkit.instrumentation.deferred import iterates
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Operation, Pipeline

__all__ = ["patches"]

_PLATFORMS = (("Bedrock", "bedrock"), ("Vertex", "vertex"), ("Foundry", "azure"))


class _Anthropic(StainlessSDK):
    """A reply is read as soon as it is parsed: the SDK's own span, which it ends next, then gets the cost."""

    name: ClassVar[str] = "anthropic"
    apis: ClassVar[Mapping[str, str]] = {
        "/v1/messages": "messages",
        "/v1/complete": "completions",
        "/v1/messages/batches": "batches",
    }
    managers: ClassVar[tuple[tuple[str, str], ...]] = (
        ("_messages", "MessageStreamManager"),
        ("_beta_messages", "BetaMessageStreamManager"),
        ("_prompt_caching_beta_messages", "PromptCachingBetaMessageStreamManager"),
    )
    omits_later: ClassVar[bool] = True

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.batches = MessageBatches(pipeline)

    def begin_any(self, client: Any, options: Any, stream: bool, wait: bool) -> Operation | None:
        path = options.url
        if "/batches" not in path:
            return StainlessSDK.begin_any(self, client, options, stream, wait)
        creator = self.batches.creator_at(path)
        if creator is None:
            operation = super().begin_any(client, options, stream, wait)
        else:
            with restored(Scope(creator.attribution, "restored", scope().operation)):
                operation = super().begin_any(client, options, stream, wait)
        if operation is not None:
            self.batches.begun(operation, path)
        return operation

    def answered(self, operation: Operation, result: Any) -> None:
        self.batches.answered(operation, result)

    def polled(self, operation: Operation, path: str, result: Any) -> None:
        self.batches.answered(operation, result)

    def provider_of(self, client: Any, url: str) -> str:
        for cls in type(client).__mro__:
            for word, provider in _PLATFORMS:
                if word in cls.__name__:
                    return provider
        return provider_at(url)

    def region_of(self, client: Any) -> str | None:
        region = getattr(client, "aws_region", None) or getattr(client, "region", None)
        return region if isinstance(region, str) else None

    def url_of(self, base: str, path: str) -> str:
        return base.rstrip("/") + path  # the version is in the path, and can be in a gateway's prefix

    def items(self, operation: Operation) -> MessageEvents:
        return MessageEvents()

    def of_text(self, text: str) -> Reply:
        return of_text(text)

    def process_response(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().process_response(wrapped, instance, args, kwargs)
        operation = scope().operation
        if isinstance(operation, Operation) and operation.call.api and not operation.closed:
            self.settle(operation, result)
        return result

    async def process_response_async(
        self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = await super().process_response(wrapped, instance, args, kwargs)
        operation = scope().operation
        if isinstance(operation, Operation) and operation.call.api and not operation.closed:
            self.settle(operation, result)
        return result


def patches(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows that lead every Anthropic client's calls through `pipeline`."""
    sdk = _Anthropic(pipeline)
    return (
        *sdk.patches(),
        sdk.row("._base_client", "SyncAPIClient._process_response", sdk.process_response, required=False),
        sdk.row("._base_client", "AsyncAPIClient._process_response", sdk.process_response_async, required=False),
        sdk.row(".lib.tools._beta_runner", "BaseSyncToolRunner.__init__", iterates("_iterator"), required=False),
        sdk.row("._decoders.jsonl", "JSONLDecoder.__decode__", sdk.batches.decoded),
        sdk.row("._decoders.jsonl", "AsyncJSONLDecoder.__decode__", sdk.batches.decoded_async),
    )
