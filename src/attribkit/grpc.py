"""gRPC server interceptors: what a caller's signed carrier says is in force for its call.

`grpc.server(pool, interceptors=[AttributionInterceptor(audience="orders.internal:50051")])`, and
`grpc.aio.server(interceptors=[AsyncAttributionInterceptor(...)])`. What is believed is as in `attribkit.asgi`, save
that gRPC does not tell a service by which name it was called: name it here, or in the setting `audience`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from attribkit import runtime
from attribkit.context import Scope, bound, restored
from attribkit.instrumentation.hops.inbound import Inbound

__all__ = ["AsyncAttributionInterceptor", "AttributionInterceptor"]

AttributionInterceptor: Any
"""For `grpc.server`. Takes `key` and `audience`, by default those of the settings."""
AsyncAttributionInterceptor: Any
"""For `grpc.aio.server`."""

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def _within(grpc: Any, handler: Any, scope: Scope) -> Any:
    """Return `handler` with `scope` in force while it serves."""
    kind = next(kind for kind in _KINDS if getattr(handler, kind, None) is not None)
    made = getattr(grpc, f"{kind}_rpc_method_handler")
    return made(
        _served(getattr(handler, kind), scope, streams=kind.endswith("_stream")),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _served(function: Callable[[Any, Any], Any], scope: Scope, *, streams: bool) -> Callable[[Any, Any], Any]:
    if inspect.iscoroutinefunction(function):

        async def served_async(request: Any, call: Any) -> Any:
            with restored(scope):
                return await function(request, call)

        return served_async
    if inspect.isasyncgenfunction(function):

        async def streamed_async(request: Any, call: Any) -> AsyncIterator[Any]:
            async for item in bound(function(request, call), scope):
                yield item

        return streamed_async

    def served(request: Any, call: Any) -> Any:
        with restored(scope):
            return function(request, call)

    def streamed(request: Any, call: Any) -> Iterator[Any]:
        def items() -> Iterator[Any]:
            yield from function(request, call)

        return bound(items(), scope)  # type: ignore[no-any-return]

    return streamed if streams else served


def _scope(inbound: Inbound, details: Any) -> Scope | None:
    carriers = [(name, value) for name, value in details.invocation_metadata or () if name == "baggage"]
    return inbound.scope(carriers, lambda: "") if carriers else None


def __getattr__(name: str) -> Any:
    """Make a class when it is asked for: its base class is in a package that attribkit does not need otherwise."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import grpc  # type: ignore[import-untyped, unused-ignore]

    class AttributionInterceptor(grpc.ServerInterceptor):  # type: ignore[misc, unused-ignore]
        """Opens a scope for each call that brings a carrier of one of your own services."""

        def __init__(self, *, key: str | bytes | None = None, audience: str | tuple[str, ...] | None = None) -> None:
            self._inbound = Inbound(runtime.active, key, audience)

        def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            handler, scope = continuation(handler_call_details), _scope(self._inbound, handler_call_details)
            return handler if handler is None or scope is None else _within(grpc, handler, scope)

    class AsyncAttributionInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
        """The same for servers of grpc.aio."""

        def __init__(self, *, key: str | bytes | None = None, audience: str | tuple[str, ...] | None = None) -> None:
            self._inbound = Inbound(runtime.active, key, audience)

        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            handler, scope = await continuation(handler_call_details), _scope(self._inbound, handler_call_details)
            return handler if handler is None or scope is None else _within(grpc, handler, scope)

    globals().update(
        AttributionInterceptor=AttributionInterceptor, AsyncAttributionInterceptor=AsyncAttributionInterceptor
    )
    return globals()[name]
