"""Amazon Bedrock's runtime by boto3 and aiobotocore: Converse and InvokeModel, whole and as event streams."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import wrapt

from attribkit import faults
from attribkit.calls import LLMCall, Reply
from attribkit.instrumentation.clients.opening import REFUSALS, InForce, begin, under_way
from attribkit.instrumentation.patching import Patch
from attribkit.instrumentation.streams import Items, abandon_if_dropped, watch, watch_async
from attribkit.pipeline import Operation, Pipeline

__all__ = ["patches", "patches_async"]

_OPERATIONS = {
    "Converse": ("converse", False),
    "ConverseStream": ("converse", True),
    "InvokeModel": ("invoke", False),
    "InvokeModelWithResponseStream": ("invoke", True),
}
_COUNTS = (
    ("inputTokenCount", "x-amzn-bedrock-input-token-count"),
    ("outputTokenCount", "x-amzn-bedrock-output-token-count"),
    ("cacheReadInputTokenCount", "x-amzn-bedrock-cache-read-input-token-count"),
    ("cacheWriteInputTokenCount", "x-amzn-bedrock-cache-write-input-token-count"),
)
_METRICS = "amazon-bedrock-invocationMetrics"
_KEPT = "_attribkit_operation"
_CLIENTS = ("boto3", "aiobotocore")
_NOTHING: Mapping[str, Any] = {}


def _tier(facts: Mapping[str, Any]) -> str | None:
    tier = facts.get("serviceTier")
    kind = tier.get("type") if isinstance(tier, Mapping) else None
    return kind if isinstance(kind, str) else None


class _ConverseEvents:
    """How the events of a ConverseStream are read: the last one, `metadata`, states the usage."""

    def __init__(self) -> None:
        self._characters = 0

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        def take(event: Any) -> bool:
            delta = event.get("contentBlockDelta")
            if delta is not None:
                text = delta.get("delta", _NOTHING).get("text")
                self._characters += len(text) if isinstance(text, str) else 0
            return False

        return take

    def reply(self, first: Any, latest: Any, count: int) -> Reply:
        end = latest.get("metadata") or _NOTHING
        return Reply(end.get("usage"), None, _tier(end), chunks=count, characters=self._characters)


class _InvokeEvents:
    """How the chunks of an InvokeModelWithResponseStream are read: Bedrock adds its counts to the last one."""

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        return None

    def reply(self, first: Any, latest: Any, count: int) -> Reply:
        end = _chunk(latest)
        usage = end.get(_METRICS)
        if isinstance(usage, Mapping):
            return Reply(usage, chunks=count)
        message = _chunk(first).get("message")
        stated = message.get("usage") if isinstance(message, Mapping) else None
        if not isinstance(stated, Mapping):
            return Reply(chunks=count)
        estimated = f"cut after {count} chunks: a token for each of output"
        return Reply({**stated, "output_tokens": max(0, count - 1)}, chunks=count, estimated=estimated)


def _chunk(event: Any) -> dict[str, Any]:
    try:
        facts = orjson.loads(event["chunk"]["bytes"])
    except (KeyError, TypeError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


class _Bedrock:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def _begin(
        self, client: str, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, wait: bool = True
    ) -> tuple[Operation, str, Any] | None:
        """Return the operation of a call, its name and its parameters; None for what is no model call."""
        name = args[0] if args else kwargs.get("operation_name")
        known = _OPERATIONS.get(name) if isinstance(name, str) else None
        if known is None or instance.meta.service_model.service_name != "bedrock-runtime":
            return None
        api, stream = known
        params: Any = args[1] if len(args) > 1 else kwargs.get("api_params")
        try:
            model = params.get("modelId")
            body = params if api == "converse" else None
            url, region = instance.meta.endpoint_url, instance.meta.region_name
            model = model if isinstance(model, str) else None
            call = LLMCall(client, "bedrock", api, url, model, stream, body, None, False, region)
            operation = begin(self._pipeline, call, wait=wait)
        except REFUSALS:
            raise
        except Exception as fault:
            faults.note("bedrock.begin", fault)
            return None
        return operation, str(name), params

    def call(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        begun = self._begin("boto3", instance, args, kwargs)
        if begun is None:
            return wrapped(*args, **kwargs)
        operation, name, params = begun
        with InForce(operation):
            result = wrapped(name, _told(operation, params))
        try:
            _settle(operation, result, None if _says(operation, result) else _read(result))
        except Exception as fault:
            faults.note("bedrock.settle", fault)
        return result

    async def call_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        begun = self._begin("aiobotocore", instance, args, kwargs, wait=False)
        if begun is None:
            return await wrapped(*args, **kwargs)
        operation, name, params = begun
        if operation.waits:
            await operation.admitted()
        with InForce(operation):
            result = await wrapped(name, _told(operation, params))
            try:
                body = None if _says(operation, result) else await _read_async(result)
                _settle(operation, result, body)
            except Exception as fault:
                faults.note("bedrock.settle", fault)
        return result


def _told(operation: Operation, params: Any) -> Any:
    return params if operation.body is None else {**params, **operation.body}


def _counts(headers: Mapping[str, Any]) -> dict[str, int]:
    return {key: int(headers[name]) for key, name in _COUNTS if str(headers.get(name, "")).isdigit()}


def _headers(result: Any) -> Mapping[str, Any]:
    return (result.get("ResponseMetadata") or _NOTHING).get("HTTPHeaders") or _NOTHING


def _says(operation: Operation, result: Any) -> bool:
    """Tell whether a reply states its usage elsewhere than in a body that has to be read."""
    return operation.call.stream or operation.call.api == "converse" or bool(_counts(_headers(result)))


def _settle(operation: Operation, result: Any, body: Mapping[str, Any] | None) -> None:
    headers = operation.reply_headers = _headers(result)
    request_id = (result.get("ResponseMetadata") or _NOTHING).get("RequestId")
    if operation.call.stream:
        stream = result.get("stream") if operation.call.api == "converse" else result.get("body")
        vars(stream)[_KEPT] = operation  # reading it closes the operation
        abandon_if_dropped(stream, operation)
        return
    if operation.call.api == "converse":
        reply = Reply(result.get("usage"), None, _tier(result))
    else:
        reply = Reply(_counts(headers) or body, None, headers.get("x-amzn-bedrock-service-tier"))
    operation.finish(reply._replace(response_id=request_id, http_status=None))


def _facts(payload: bytes) -> Mapping[str, Any] | None:
    try:
        facts = orjson.loads(payload)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else {}


def _read(result: Any) -> Mapping[str, Any] | None:
    """Return the reply that a body holds, where no header counts tokens; the caller reads the same bytes again."""
    body = result["body"]
    payload = body.read()
    result["body"] = type(body)(io.BytesIO(payload), len(payload))
    return _facts(payload)


class _Again(wrapt.ObjectProxy):  # type: ignore[misc, type-arg, unused-ignore]
    """The content of a response of aiohttp that has been read, to be read once more."""

    def __init__(self, content: Any, payload: bytes) -> None:
        super().__init__(content)
        self._self_buffer, self._self_size = io.BytesIO(payload), len(payload)

    async def read(self, n: int = -1) -> bytes:
        return self._self_buffer.read(n)

    def at_eof(self) -> bool:
        return self._self_buffer.tell() == self._self_size


async def _read_async(result: Any) -> Mapping[str, Any] | None:
    body = result["body"]
    response: Any = getattr(body, "raw_stream", None) or getattr(
        body, "__wrapped__", None
    )  # before aiobotocore 3 a proxy
    if not hasattr(response, "content") or isinstance(response.content, bytes):
        return None  # of httpx, which gives a response's bytes once
    payload = await body.read()
    response.content = _Again(response.content, payload)
    result["body"] = type(body)(response, str(len(payload)))
    return _facts(payload)


def _create_request(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Once per attempt, before it is signed: put our headers beside those that the user set."""
    operation = under_way()
    if operation is not None and operation.call.client in _CLIENTS:
        try:
            params = args[0] if args else kwargs["params"]
            headers = operation.next_attempt().headers
            have = {str(name).lower() for name in params["headers"]}
            operation.added = tuple((name, value) for name, value in headers if name not in have)
            params = {**params, "headers": {**params["headers"], **dict(operation.added)}}
            if args:
                args = (params, *args[1:])
            else:
                kwargs = {**kwargs, "params": params}
        except Exception as fault:
            faults.note("bedrock.attempt", fault)
    return wrapped(*args, **kwargs)


def _get_response(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Remember how an attempt failed, whether or not another follows."""
    result = wrapped(*args, **kwargs)
    _note(result)
    return result


async def _get_response_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await wrapped(*args, **kwargs)
    _note(result)
    return result


def _note(result: Any) -> None:
    operation = under_way()
    if operation is None or operation.call.client not in _CLIENTS:
        return
    try:
        answered, error = result
        if error is not None:
            operation.note(error=type(error).__name__)
        elif answered is not None and answered[0].status_code >= 300:
            code = (answered[1].get("Error") or _NOTHING).get("Code")
            operation.note(http_status=answered[0].status_code, error=code if isinstance(code, str) else None)
    except Exception as fault:
        faults.note("bedrock.attempt", fault)


def _operation_of(stream: Any) -> Operation | None:
    operation = vars(stream).get(_KEPT)
    return operation if isinstance(operation, Operation) and not operation.closed else None


def _reader(operation: Operation) -> Items:
    return _ConverseEvents() if operation.call.api == "converse" else _InvokeEvents()


def _events(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    items, operation = wrapped(*args, **kwargs), _operation_of(instance)
    return items if operation is None else watch(items, operation, _reader(operation))


def _events_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    items, operation = wrapped(*args, **kwargs), _operation_of(instance)
    return items if operation is None else watch_async(items, operation, _reader(operation))


def _close(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operation = _operation_of(instance)
    if operation is not None:
        operation.abandon(operation.seen())
    return wrapped(*args, **kwargs)


def patches(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows that lead every Bedrock client's calls through `pipeline`."""

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(f"botocore.{module}", path, wrapper, "bedrock", "botocore")

    return (
        row("client", "BaseClient._make_api_call", _Bedrock(pipeline).call),
        row("endpoint", "Endpoint.create_request", _create_request),
        row("endpoint", "Endpoint._get_response", _get_response),
        row("eventstream", "EventStream.__iter__", _events),
        row("eventstream", "EventStream.close", _close),
    )


def patches_async(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows of aiobotocore, whose classes stand beside botocore's and inherit the rest."""

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(f"aiobotocore.{module}", path, wrapper, "bedrock", "aiobotocore")

    return (
        row("client", "AioBaseClient._make_api_call", _Bedrock(pipeline).call_async),
        row("endpoint", "AioEndpoint.create_request", _create_request),
        row("endpoint", "AioEndpoint._get_response", _get_response_async),
        row("eventstream", "AioEventStream.__anext__", _events_async),
    )
