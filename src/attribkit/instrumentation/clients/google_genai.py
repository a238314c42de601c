"""Google's Gen AI SDK, on the Gemini API and on Vertex AI, over httpx, httpx2 or aiohttp: its patch rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from attribkit import context, faults
from attribkit.calls import LLMCall, Reply
from attribkit.instrumentation.clients.google_batches import GeminiBatches
from attribkit.instrumentation.clients.opening import REFUSALS, InForce, begin, status_of, under_way
from attribkit.instrumentation.patching import Patch
from attribkit.instrumentation.streams import abandon_if_dropped, watch, watch_async
from attribkit.pipeline import Operation, Pipeline
from attribkit.usage.dialects.gemini import grounding

__all__ = ["patches"]

_APIS = {
    "generateContent": "generateContent",
    "streamGenerateContent": "generateContent",
    "batchEmbedContents": "embeddings",
    "embedContent": "embeddings",
    "predict": "predict",
    "batchGenerateContent": "batches",
}
_KEPT = "_attribkit_operation"


def _endpoint(url: str) -> tuple[str, str | None]:
    """Return the API and the model of a URL that ends in `models/<model>:<method>`; ("", None) for any other."""
    path, colon, method = url.partition("?")[0].rpartition(":")
    api = _APIS.get(method, "") if colon else ""
    return (api, path.rpartition("/")[2] or None) if api else ("", None)


def _facts(reply: Any) -> Reply:
    """Return the facts of a generateContent reply, or of one chunk of it."""
    if type(reply) is not dict:
        return Reply(problem="the reply is not a JSON object")
    usage, model, response_id = reply.get("usageMetadata"), reply.get("modelVersion"), reply.get("responseId")
    if type(usage) is not dict:
        usage = None
    elif found := grounding(reply.get("candidates")):
        usage = {**usage, "grounding": found}
    return Reply(
        usage,
        model if type(model) is str else None,
        None,
        response_id if type(response_id) is str else None,
    )


def _length(chunk: Any) -> int:
    """Return how many characters of text a chunk brings. Only the length is read."""
    try:
        return sum(len(part.get("text") or "") for part in chunk["candidates"][0]["content"]["parts"])
    except (AttributeError, IndexError, KeyError, TypeError):
        return 0


class _Chunks:
    """How the chunks of a stream are read: each states the usage so far."""

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        return None

    def reply(self, first: Any, latest: Any, count: int) -> Reply:
        return _facts(latest)._replace(chunks=count, characters=_length(latest) * count)


def _request(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["http_request"]


def _streams(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return kwargs.get("stream") is True or args[-1:] == (True,)


def _instead(args: tuple[Any, ...], kwargs: dict[str, Any], request: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((request, *args[1:]), kwargs) if args else (args, {**kwargs, "http_request": request})


def _with_body(
    args: tuple[Any, ...], kwargs: dict[str, Any], operation: Operation
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with what the gateway wants in the body; the caller's own objects stay as they are."""
    if operation.body is None:
        return args, kwargs
    request = copy.copy(_request(args, kwargs))
    request.data = {**request.data, **operation.body}
    return _instead(args, kwargs, request)


class _GenAI:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._batches = GeminiBatches(pipeline, _facts)

    def _begin(self, client: Any, request: Any, stream: bool, *, wait: bool = True) -> Operation | None:
        try:
            api, model = _endpoint(request.url)
            vertex = bool(client.vertexai)
            region = client.location if vertex and isinstance(client.location, str) else None
            body = request.data if isinstance(request.data, Mapping) else None
            provider = "vertex" if vertex else "gemini"
            call = LLMCall("google-genai", provider, api, request.url, model, stream, body, None, False, region)
            if api == "batches" or (not api and not vertex and self._batches.asked(request.url)):
                return self._begin_batch(call, wait)
            return begin(self._pipeline, call, wait=wait)
        except REFUSALS:
            raise
        except Exception as fault:
            faults.note("google-genai.begin", fault)
            return None

    def _begin_batch(self, call: LLMCall, wait: bool) -> Operation:
        creator = self._batches.creator_at(call.url)
        if creator is None:
            operation = begin(self._pipeline, call, wait=wait)
        else:
            with context.restored(context.Scope(creator.attribution, "restored", context.scope().operation)):
                operation = begin(self._pipeline, call, wait=wait)
        self._batches.begun(operation)
        return operation

    def request(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = self._begin(instance, _request(args, kwargs), _streams(args, kwargs))
        if operation is None:
            return wrapped(*args, **kwargs)
        args, kwargs = _with_body(args, kwargs, operation)
        with InForce(operation):
            if not hasattr(instance, "_request_once"):  # versions that do not retry
                _, args, kwargs = _sent(args, kwargs)
            response = wrapped(*args, **kwargs)
        self._settle(operation, response)
        return response

    async def request_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = self._begin(instance, _request(args, kwargs), _streams(args, kwargs), wait=False)
        if operation is None:
            return await wrapped(*args, **kwargs)
        if operation.waits:
            await operation.admitted()
        args, kwargs = _with_body(args, kwargs, operation)
        with InForce(operation):
            if not hasattr(instance, "_async_request_once"):
                _, args, kwargs = _sent(args, kwargs)
            response = await wrapped(*args, **kwargs)
        self._settle(operation, response)
        return response

    def download(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        content = wrapped(*args, **kwargs)
        self._batches.downloaded(args[0] if args else kwargs["path"], content)
        return content

    async def download_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        content = await wrapped(*args, **kwargs)
        self._batches.downloaded(args[0] if args else kwargs["path"], content)
        return content

    def _settle(self, operation: Operation, response: Any) -> None:
        if operation.later is not None:
            self._batches.answered(operation, response)
        if not operation.call.api:
            return
        try:
            operation.reply_headers = {key.lower(): value for key, value in response.headers.items()}
            parts = response.response_stream
            if not isinstance(parts, list):
                vars(response)[_KEPT] = operation  # its segments close the operation when they have been read
                abandon_if_dropped(response, operation)
                return
            try:
                reply = _facts(orjson.loads(parts[0])) if parts and parts[0] else Reply(problem="the reply is empty")
            except ValueError:
                reply = Reply(problem="the reply is not JSON")
            if reply.usage is None and operation.call.api == "predict":
                reply = reply._replace(usage=_counted(operation.call, parts))
            operation.finish(reply)
        except Exception as fault:
            faults.note("google-genai.settle", fault)


def _counted(call: LLMCall, parts: list[Any]) -> Mapping[str, Any] | None:
    """Return what a prediction that states no usage has made: images."""
    predictions = orjson.loads(parts[0]).get("predictions")
    if isinstance(predictions, list) and call.model is not None and call.model.startswith("imagen"):
        return {"images": len(predictions)}
    return None


def _sent(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Operation | None, tuple[Any, ...], dict[str, Any]]:
    """Start an attempt: return it with a copy of the request that has our headers beside those that the user set."""
    operation = under_way()
    if operation is None:
        return None, args, kwargs
    try:
        headers = operation.next_attempt().headers
        request = copy.copy(_request(args, kwargs))
        have = {name.lower() for name in request.headers}
        operation.added = tuple((name, value) for name, value in headers if name not in have)
        request.headers = {**request.headers, **dict(operation.added)}
        return operation, *_instead(args, kwargs, request)
    except Exception as fault:
        faults.note("google-genai.attempt", fault)
        return None, args, kwargs


def _once(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operation, args, kwargs = _sent(args, kwargs)
    try:
        return wrapped(*args, **kwargs)
    except Exception as error:
        if operation is not None:
            operation.note(http_status=status_of(error), error=type(error).__name__)
        raise


async def _once_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operation, args, kwargs = _sent(args, kwargs)
    try:
        return await wrapped(*args, **kwargs)
    except Exception as error:
        if operation is not None:
            operation.note(http_status=status_of(error), error=type(error).__name__)
        raise


def _operation_of(response: Any) -> Operation | None:
    operation = vars(response).pop(_KEPT, None)
    return operation if isinstance(operation, Operation) and not operation.closed else None


def _segments(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    items, operation = wrapped(*args, **kwargs), _operation_of(instance)
    return items if operation is None else watch(items, operation, _Chunks())


def _segments_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    items, operation = wrapped(*args, **kwargs), _operation_of(instance)
    return items if operation is None else watch_async(items, operation, _Chunks())


def _stream(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A stream asks when its first chunk is wanted, and is for whoever it was made for."""
    return context.bound(wrapped(*args, **kwargs), context.in_force())


async def _stream_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = context.in_force()
    return context.bound(await wrapped(*args, **kwargs), here)


def patches(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows that lead every client's calls through `pipeline`."""
    sdk = _GenAI(pipeline)

    def row(module: str, path: str, wrapper: Any, required: bool = True) -> Patch:
        return Patch(f"google.genai.{module}", path, wrapper, "google_genai", "google-genai", required)

    return (
        row("_api_client", "BaseApiClient._request", sdk.request),
        row("_api_client", "BaseApiClient._async_request", sdk.request_async),
        row("_api_client", "BaseApiClient._request_once", _once, False),
        row("_api_client", "BaseApiClient._async_request_once", _once_async, False),
        row("_api_client", "BaseApiClient.download_file", sdk.download, False),
        row("_api_client", "BaseApiClient.async_download_file", sdk.download_async, False),
        row("_api_client", "HttpResponse.segments", _segments),
        row("_api_client", "HttpResponse.async_segments", _segments_async),
        row("models", "Models.generate_content_stream", _stream),
        row("models", "AsyncModels.generate_content_stream", _stream_async),
        row("chats", "Chat.send_message_stream", _stream),
        row("chats", "AsyncChat.send_message_stream", _stream_async),
    )
