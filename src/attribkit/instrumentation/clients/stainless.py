"""SDKs that the Stainless generator makes (OpenAI's, Anthropic's): one choke point per request, on httpx or httpx2.

`request` opens one operation and ends it on any exception; `_build_request` runs once per attempt and gives it its
headers; a reply is read once the SDK has parsed it, a stream while it is read.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, ClassVar

from attribkit import context, faults
from attribkit.calls import LLMCall, Reply
from attribkit.context import Scope, enter, in_force, leave, reset, scope
from attribkit.errors import AttributionRequired, BudgetExceeded
from attribkit.instrumentation.clients.headers import put
from attribkit.instrumentation.clients.hosts import provider_at
from attribkit.instrumentation.clients.parsed import KINDS, kind_of, of_parsed, of_raw, said_of
from attribkit.instrumentation.deferred import when_entered
from attribkit.instrumentation.patching import Direct, Patch, takes
from attribkit.instrumentation.streams import Items, abandon_if_dropped, watch, watch_async
from attribkit.pipeline import Operation, Pipeline

__all__ = ["BYPASSED", "EXTENSION", "StainlessSDK"]

EXTENSION = "attribkit"
"""The key in an HTTP request's `extensions` under which its operation travels."""

BYPASSED = "attribkit.bypassed"
"""The key under which a request names its SDK when it came past our wrapper of `request`: another instrumentor took
itself off by putting back the method that it had found. Such a request is recorded where the HTTP client sends it."""

_RAW = "X-Stainless-Raw-Response"
_OMITTED = frozenset({"Omit", "NotGiven"})
_no_headers: set[type] = set()
"""The SDKs' types for what was not given."""
_PARAMETERS = ("self", "cast_to", "options", "stream", "stream_cls")
_URLS_KEPT = 1024
_asked = itemgetter("url", "method", "json_data", "extra_json", "headers")
_new = tuple.__new__
_KEPT = 1 << 22
"""Characters of a body, read piece by piece, that are looked at for its usage: the first or the last so many."""


# -- requests ---------------------------------------------------------------------------------------------------------


class StainlessSDK:
    """One such SDK: leads the requests of its clients through one pipeline. A subclass says what is its own."""

    name: ClassVar[str]
    """The SDK's module and package."""
    apis: ClassVar[Mapping[str, str]]
    """Path of a POST request -> the model API that it is."""
    managers: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Context managers that ask for a stream where they are entered: module and class. (The asynchronous ones hold a
    coroutine, which knows where it was made.)"""
    simple: ClassVar[frozenset[str]] = frozenset()
    """The APIs of whose requests nothing has to be known but path, model and body."""
    omits_later: ClassVar[bool] = False
    """True when a body still holds what was not given, to be left out when it is sent."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._name = self.name
        self._told_whole = type(self).url_of is not StainlessSDK.url_of
        simple = {} if self.omits_later or self._told_whole else self.apis
        self._simple = {path: api for path, api in simple.items() if api in self.simple}
        self._urls: dict[int, tuple[Any, str, str, str | None]] = {}
        self._hidden = False
        """True once a call came by a subclass's own method: it may come by the base class's too."""

    def api_of(self, method: str, path: str) -> str:
        """Return which model API a request is, "" when it is none (files, lists, polls): such requests get no row."""
        return self.apis.get(path.split("?", 1)[0].rstrip("/"), "") if method.lower() == "post" else ""

    def provider_of(self, client: Any, url: str) -> str:
        """Return the provider, in the price engine's words, behind a client; "" when that is not known."""
        return provider_at(url)

    def region_of(self, client: Any) -> str | None:
        """Return the region that a client is bound to, None for none."""
        return None

    def url_of(self, base: str, path: str) -> str:
        """Return what of a request's URL decides whether it goes to a gateway."""
        return base

    def counted(self, call: LLMCall, result: Any) -> Mapping[str, Any] | None:
        """Return what the request itself says was consumed, for APIs whose replies state no usage."""
        return None

    def items(self, operation: Operation) -> Items:
        """Return a reader for the events of one stream."""
        raise NotImplementedError

    def polled(self, operation: Operation, path: str, result: Any) -> None:
        """Look at the reply to a request about work that goes on apart from requests."""

    def answered(self, operation: Operation, result: Any) -> None:
        """Look at the reply to a request whose work goes on after it."""

    def of_text(self, text: str) -> Reply:
        """Return the facts of a body that the caller read as text: JSON, or server-sent events up to their end."""
        raise NotImplementedError

    def _base(self, client: Any, url: Any) -> tuple[Any, str, str, str | None]:
        """Return a client's base URL, its text, and the provider and region behind it; remembered by the identity of
        the URL."""
        text = str(url)
        if len(self._urls) >= _URLS_KEPT:
            self._urls.clear()
        known = self._urls[id(url)] = url, text, self.provider_of(client, text), self.region_of(client)
        return known

    def begin(self, client: Any, options: Any, stream: bool, wait: bool = True) -> Operation | None:
        """Return the operation of one request, None when our own reading of it failed."""
        try:
            try:  # a pydantic model: to ask it for an attribute costs four times as much
                path, method, body, extra, headers = _asked(options.__dict__)
            except KeyError:
                return self.begin_any(client, options, stream, wait)
            api = self._simple.get(path)
            if api is None or extra or method != "post" or type(body) is not dict:
                return self.begin_any(client, options, stream, wait)
            url = client._base_url
            known = self._urls.get(id(url))
            if known is None or known[0] is not url:
                known = self._base(client, url)
            _, base, provider, region = known
            model = body.get("model")
            if type(model) is not str:
                model = None
            here = in_force()
            call = _new(LLMCall, (self._name, provider, api, base, model, stream, body, None, False, region))
            operation = self._pipeline.begin(call, here.attribution, here.hop, wait, here.operation)
            if not client._custom_headers and (
                len(headers) == (_RAW in headers)
                if type(headers) is dict
                else type(headers) in _no_headers or _given_none(headers)
            ):
                operation.alike = type(client)
            if stream:
                _keep_raw(operation, options)
            return operation
        except (AttributionRequired, BudgetExceeded):
            raise
        except Exception as fault:
            faults.note(f"{self.name}.begin", fault)
            return None

    def begin_any(self, client: Any, options: Any, stream: bool, wait: bool) -> Operation | None:
        """Return the operation of a request of any kind. Raises what refuses it."""
        said = options.__dict__.get
        path, method, body, url = said("url"), said("method"), said("json_data"), client._base_url
        known = self._urls.get(id(url))
        if known is None or known[0] is not url:
            known = self._base(client, url)
        _, base, provider, region = known
        api = method == "post" and self.apis.get(path)
        if not api:
            if path.startswith("http"):
                base, path = path, ""
            api = self.api_of(method, path)
        model = None
        if isinstance(body, Mapping):
            if self.omits_later:
                body = {key: value for key, value in body.items() if type(value).__name__ not in _OMITTED}
            extra = said("extra_json")
            if extra:
                body = {**body, **extra}
            model = body.get("model")
            if type(model) is not str:
                model = None
            if said("files"):
                body = None
        else:
            body = None
        here = in_force()
        if self._told_whole:
            base = self.url_of(base, path)
        call = _new(LLMCall, (self.name, provider, api, base, model, stream, body, None, False, region))
        operation = self._pipeline.begin(call, here.attribution, here.hop, wait, here.operation)
        if stream:
            _keep_raw(operation, options)
        return operation

    def request(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call, client, cast_to, options, stream, stream_cls = _named(wrapped, instance, *args, **kwargs)
        request = self._requesting([None])
        request.__wrapped__ = call
        return request(client, cast_to, options, stream=stream, stream_cls=stream_cls)

    def request_on_subclass(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._hidden = True
        return self.request(wrapped, instance, args, kwargs)

    async def request_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await self._request_async(*_named(wrapped, instance, *args, **kwargs))

    def request_async_on_subclass(
        self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._hidden = True
        return self.request_async(wrapped, instance, args, kwargs)

    def _direct_request(self, original: Any, switch: list[None]) -> Any:
        return self._requesting(switch) if takes(original, *_PARAMETERS) else None

    def _requesting(self, switch: list[None]) -> Any:
        """Return a function that stands in the place of the one that becomes its `__wrapped__`."""
        begin, settle = self.begin, self.settle

        def request(client: Any, cast_to: Any, options: Any, *, stream: Any = False, stream_cls: Any = None) -> Any:
            wrapped = own["__wrapped__"]
            if not switch or (self._hidden and _begun()):
                return wrapped(client, cast_to, options, stream=stream, stream_cls=stream_cls)
            operation = begin(client, options, stream is True)
            if operation is None:
                return wrapped(client, cast_to, options, stream=stream, stream_cls=stream_cls)
            if operation.more is not None and operation.body is not None:
                options = _with_body(options, operation.body)
            token = enter(Scope(operation.attribution, operation.hop, operation))
            try:
                result = wrapped(client, cast_to, options, stream=stream, stream_cls=stream_cls)
            except BaseException as error:
                operation.fail(error, http_status=getattr(error, "status_code", None))
                raise
            finally:
                reset(token)
            if operation.call[2]:
                if not operation.closed:
                    settle(operation, result)
            elif operation.later is not None:
                self.polled(operation, options.url, result)
            return result

        own = vars(request)
        return request

    def _direct_request_async(self, original: Any, switch: list[None]) -> Any:
        async def request(
            client: Any, cast_to: Any, options: Any, *, stream: Any = False, stream_cls: Any = None
        ) -> Any:
            if switch:
                return await self._request_async(request.__wrapped__, client, cast_to, options, stream, stream_cls)  # type: ignore[attr-defined]
            return await original(client, cast_to, options, stream=stream, stream_cls=stream_cls)

        return request if takes(original, *_PARAMETERS) else None

    async def _request_async(
        self, wrapped: Any, client: Any, cast_to: Any, options: Any, stream: Any, stream_cls: Any
    ) -> Any:
        if self._hidden and _begun():
            return await wrapped(client, cast_to, options, stream=stream, stream_cls=stream_cls)
        operation = self.begin(client, options, stream is True, False)
        if operation is None:
            return await wrapped(client, cast_to, options, stream=stream, stream_cls=stream_cls)
        if operation.more is not None:
            if operation.waits:
                await operation.admitted()
                _keep_raw(operation, options)
            if operation.body is not None:
                options = _with_body(options, operation.body)
        inner = Scope(operation.attribution, operation.hop, operation)
        token = enter(inner)
        context.moved()
        try:
            result = await wrapped(client, cast_to, options, stream=stream, stream_cls=stream_cls)
        except BaseException as error:
            operation.fail(error, http_status=getattr(error, "status_code", None))
            raise
        finally:
            leave(token, inner)
            context.moved()
        if operation.call[2]:
            if not operation.closed:
                self.settle(operation, result)
        elif operation.later is not None:
            self.polled(operation, options.url, result)
        return result

    # -- replies ------------------------------------------------------------------------------------------------------

    def settle(self, operation: Operation, result: Any) -> None:
        """Close the operation with what came back, unless that is still to be read."""
        try:
            call, kind = operation.call, KINDS.get(type(result)) or kind_of(result)
            if call[2] == "chat" and not call[5] and kind != "later":
                said = said_of(result, kind == "raw")
                if said is not None:
                    operation.finish_with(*said)
                    return
            if kind == "later":
                if call.stream or not hasattr(getattr(result, "http_response", None), "_content"):
                    if not hasattr(result, "http_response"):
                        abandon_if_dropped(result, operation)
                    return  # its proxy closes the operation when it has been read
                reply = self.of_unparsed(result)
            elif kind == "raw":
                if call.stream:
                    return
                reply = of_raw(result)
            else:
                reply = of_parsed(result)
            if reply.usage is None:
                reply = reply._replace(usage=self.counted(call, result))
            operation.finish(reply)
            if operation.later is not None:
                self.answered(operation, result)
        except Exception as fault:
            faults.note(f"{self.name}.settle", fault)

    def process_response(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The reply is there: keep its headers for a gateway that says its own id or the cost in them."""
        operation = scope().operation
        if isinstance(operation, Operation):
            route, response = operation.target.route, kwargs.get("response")
            if route is not None and route.reads_reply and response is not None:
                operation.reply_headers = response.headers
        return wrapped(*args, **kwargs)

    def of_unparsed(self, response: Any) -> Reply:
        """Return the facts of a streaming response that was parsed, or read whole; of what was neither, nothing."""
        for parsed in getattr(response, "_parsed_by_type", {}).values():
            return of_parsed(parsed)
        http = response.http_response
        return self.of_text(http.text) if hasattr(http, "_content") else Reply()

    def stream(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items, operation = wrapped(*args, **kwargs), _operation_of(instance.response)
        return items if operation is None else watch(items, operation, self.items(operation))

    def stream_async(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items, operation = wrapped(*args, **kwargs), _operation_of(instance.response)
        return items if operation is None else watch_async(items, operation, self.items(operation))

    def close_response(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = _operation_of(instance.http_response)
        if operation is not None:
            try:
                reply = self.of_unparsed(instance)
                if reply.usage is not None or reply.response_id is not None:
                    operation.finish(reply)
                else:
                    operation.abandon(operation.seen())
            except Exception as fault:
                faults.note(f"{self.name}.close", fault)
        return wrapped(*args, **kwargs)

    def iterated(self, end: str) -> Any:
        """Return the wrapper of a method that reads a body piece by piece, each followed by `end`."""

        def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            items, operation = wrapped(*args, **kwargs), _operation_of(instance.http_response)
            if operation is None:
                return items
            pieces = _Pieces(self.of_text)
            operation.streaming(pieces.reply)
            follow = _follow_async if hasattr(items, "__aiter__") else _follow
            return follow(items, operation, pieces, end)

        return wrapper

    # -- rows ---------------------------------------------------------------------------------------------------------

    def row(
        self,
        module: str,
        path: str,
        wrapper: Any,
        *,
        required: bool = True,
        own: bool = False,
        hot: bool = False,
        direct: Direct | None = None,
    ) -> Patch:
        """Return a patch row of this SDK."""
        return Patch(f"{self.name}{module}", path, wrapper, self.name, self.name, required, own, hot, direct=direct)

    def patches(self) -> tuple[Patch, ...]:
        """Return the rows that lead every client's calls through the pipeline."""
        row = self.row
        base, streams, responses = "._base_client", "._streaming", "._response"
        return (
            row(base, "SyncAPIClient.request", self.request, hot=True, direct=self._direct_request),
            row(base, "AsyncAPIClient.request", self.request_async, hot=True, direct=self._direct_request_async),
            row(base, "BaseClient._build_request", _build_request, hot=True, direct=_direct_build_request),
            row(base, "BaseClient._should_retry", _should_retry, required=False),
            row(base, "SyncAPIClient._sleep_for_retry", _sleep_for_retry, required=False),
            row(base, "AsyncAPIClient._sleep_for_retry", _sleep_for_retry, required=False),
            row(base, "SyncAPIClient._retry_request", _sleep_for_retry, required=False),  # before 1.60
            row(base, "AsyncAPIClient._retry_request", _sleep_for_retry, required=False),
            row(streams, "Stream.__stream__", self.stream),
            row(streams, "AsyncStream.__stream__", self.stream_async),
            row(streams, "Stream.close", _close),
            row(streams, "AsyncStream.close", _close),
            *(
                row(responses, f"{cls}.{name}", wrapper)
                for cls in ("APIResponse", "AsyncAPIResponse")
                for name, wrapper in (
                    ("close", self.close_response),
                    ("iter_bytes", self.iterated("")),
                    ("iter_text", self.iterated("")),
                    ("iter_lines", self.iterated("\n")),
                )
            ),
            row(responses, "ResponseContextManager.__init__", when_entered, required=False),
            *(
                row(f".lib.streaming.{module}", f"{cls}.__init__", when_entered, required=False)
                for module, cls in self.managers
            ),
        )


def _begun() -> bool:
    """Return whether this very request has begun already, in our wrapper on a subclass."""
    operation = scope().operation
    return type(operation) is Operation and operation.attempt is None and not operation.closed


def _given_none(headers: Any) -> bool:
    """Return whether one request was given no headers; remember how the SDK says so."""
    if type(headers).__name__ in _OMITTED:
        _no_headers.add(type(headers))
    return type(headers) in _no_headers


def _keep_raw(operation: Operation, options: Any) -> None:
    """Ask for no usage chunk where it could not be hidden from the caller."""
    if operation.hides_usage_chunk and _read_raw(options):
        operation.body = {k: v for k, v in (operation.body or {}).items() if k != "stream_options"} or None


def _read_raw(options: Any) -> bool:
    """Return whether the caller will read the event stream itself, where an extra chunk could not be hidden."""
    headers = options.headers
    return isinstance(headers, Mapping) and headers.get(_RAW) == "stream"


def _with_body(options: Any, changes: dict[str, Any]) -> Any:
    """Return a request's options with `changes` in the JSON body; the caller's own objects stay as they are."""
    options = copy.copy(options)
    options.json_data = {**options.json_data, **changes}
    extra = options.extra_json
    if extra and not changes.keys().isdisjoint(extra):
        options.extra_json = {key: changes.get(key, value) for key, value in extra.items()}
    return options


def _named(
    wrapped: Any, client: Any, cast_to: Any, options: Any, *more: Any, stream: Any = False, stream_cls: Any = None,
    **others: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Return a call of a bound `request`, whatever else it has (retries, before 1.60), as one of a function with the
    parameters it has now."""

    def call(client: Any, cast_to: Any, options: Any, **streaming: Any) -> Any:
        return wrapped(cast_to, options, *more, **streaming, **others)

    return call, client, cast_to, options, stream, stream_cls


def _build_request(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    request = wrapped(*args, **kwargs)
    _begin_attempt(instance, request)
    return request


def _direct_build_request(original: Any, switch: list[None]) -> Any:
    def build_request(client: Any, options: Any, *, retries_taken: int = 0) -> Any:
        request = own["__wrapped__"](client, options, retries_taken=retries_taken)
        if switch:
            _begin_attempt(client, request)
        return request

    own = vars(build_request)
    return build_request if takes(original, "self", "options", "retries_taken") else None


def _begin_attempt(client: Any, request: Any) -> None:
    """Once per attempt: put our headers on the built request, beside those that the user set."""
    operation = scope().operation
    if type(operation) is Operation and not operation.closed:
        try:
            attempt = operation.next_attempt()
            request.extensions[EXTENSION] = operation
            if attempt.shared or attempt.fresh:
                alike = operation.alike
                if alike is not None:
                    alike = alike, operation.target
                added = put(request.headers, attempt, alike)
                if added is not None:
                    operation.added = added
        except Exception as fault:
            faults.note("sdk.build_request", fault)
    elif operation is None:
        home = next((cls.__module__ for cls in type(client).__mro__ if cls.__name__ == "BaseClient"), "")
        request.extensions[BYPASSED] = home.partition(".")[0]


def _should_retry(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An attempt failed with a status: remember it for its row, whether or not another attempt follows."""
    operation = scope().operation
    if isinstance(operation, Operation):
        response = args[0] if args else kwargs.get("response")
        operation.note(http_status=getattr(response, "status_code", None), error="APIStatusError")
    return wrapped(*args, **kwargs)


def _sleep_for_retry(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An attempt failed and another follows: remember the transport's exception, unless a status says more."""
    operation = scope().operation
    if isinstance(operation, Operation) and operation.attempt is not None and operation.attempt.http_status is None:
        error = sys.exc_info()[1]
        operation.note(error=type(error).__name__ if error is not None else None)
    return wrapped(*args, **kwargs)


# -- replies ----------------------------------------------------------------------------------------------------------


def _operation_of(response: Any) -> Operation | None:
    try:
        operation = response.request.extensions.get(EXTENSION)
    except Exception:
        return None
    if not isinstance(operation, Operation) or operation.closed:
        return None
    return operation if operation.call.api or operation.later is not None else None


def _close(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operation = _operation_of(instance.response)
    if operation is not None:
        operation.abandon(operation.seen())
    return wrapped(*args, **kwargs)


# -- with_streaming_response ------------------------------------------------------------------------------------------


class _Pieces:
    """What was read of a body piece by piece, kept until its usage has been found."""

    __slots__ = ("_of_text", "_parts", "_size")

    def __init__(self, of_text: Callable[[str], Reply]) -> None:
        self._of_text = of_text
        self._parts: list[str] = []
        self._size = 0

    def take(self, piece: Any, end: str) -> None:
        text = piece.decode("utf-8", "replace") if isinstance(piece, bytes) else str(piece)
        self._parts.append(text + end)
        self._size += len(text)
        while self._size > _KEPT and len(self._parts) > 1:
            self._size -= len(self._parts.pop(0))

    def reply(self) -> Reply:
        return self._of_text("".join(self._parts))


def _follow(items: Iterator[Any], operation: Operation, pieces: _Pieces, end: str) -> Iterator[Any]:
    for item in items:
        operation.first_chunk()
        pieces.take(item, end)
        yield item
    operation.finish(pieces.reply())


async def _follow_async(
    items: AsyncIterator[Any], operation: Operation, pieces: _Pieces, end: str
) -> AsyncIterator[Any]:
    async for item in items:
        operation.first_chunk()
        pieces.take(item, end)
        yield item
    operation.finish(pieces.reply())
