"""Calls to own services over gRPC: channels to a peer carry the signed carrier in their metadata."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

from attribkit import faults
from attribkit.instrumentation.hops.peers import Peers
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]

_Details = namedtuple("_Details", "method timeout metadata credentials wait_for_ready compression")


def _url(target: str, scheme: str) -> str:
    """Return a channel's target as a URL: "host:port" with or without a name resolver in front."""
    return f"{scheme}://{target.rpartition('/')[2].removeprefix('ipv4:').removeprefix('dns:')}"


def _stamped(peers: Peers, url: str, details: Any) -> Any:
    """Return a call's details with the carrier in its metadata; as they were when there is nothing to say."""
    try:
        metadata = list(details.metadata or ())
        there = {"baggage": ",".join(value for name, value in metadata if name == "baggage")}
        if peers.stamp(there, lambda: url) is None:
            return details
        rest = [(name, value) for name, value in metadata if name != "baggage"]
        return _Details(
            details.method,
            details.timeout,
            (*rest, ("baggage", there["baggage"])),
            details.credentials,
            details.wait_for_ready,
            getattr(details, "compression", None),
        )
    except Exception as fault:
        faults.note("grpc.call", fault)
        return details


def _interceptors(grpc: Any, peers: Peers, url: str) -> list[Any]:
    class Carrier(
        grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
        grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
        grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
        grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
    ):
        def _call(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(_stamped(peers, url, details), request)

        intercept_unary_unary = intercept_unary_stream = _call
        intercept_stream_unary = intercept_stream_stream = _call

    return [Carrier()]


def _async_interceptors(aio: Any, peers: Peers, url: str) -> list[Any]:
    """Return one for each kind of call: grpc.aio takes an interceptor for a single kind."""

    def of(kind: str, base: Any) -> Any:
        async def intercept(self: Any, continuation: Any, details: Any, request: Any) -> Any:
            there = _stamped(peers, url, details)
            if there is not details:
                metadata = aio.Metadata(*there.metadata)
                there = aio.ClientCallDetails(
                    details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
                )
            return await continuation(there, request)

        return type("Carrier", (base,), {f"intercept_{kind}": intercept})()

    return [
        of("unary_unary", aio.UnaryUnaryClientInterceptor),
        of("unary_stream", aio.UnaryStreamClientInterceptor),
        of("stream_unary", aio.StreamUnaryClientInterceptor),
        of("stream_stream", aio.StreamStreamClientInterceptor),
    ]


def patches(peers: Peers | None) -> tuple[Patch, ...]:
    """Return the rows where channels are opened; none without peers. A channel that is open already is not seen."""
    if peers is None:
        return ()

    def opened(scheme: str) -> Callable[..., Any]:
        def channel(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            there = wrapped(*args, **kwargs)
            try:
                url = _url(args[0] if args else kwargs["target"], scheme)
                if peers.audience(url) is not None:
                    import grpc  # type: ignore[import-untyped, unused-ignore]

                    return grpc.intercept_channel(there, *_interceptors(grpc, peers, url))
            except Exception as fault:
                faults.note("grpc.channel", fault)
            return there

        return channel

    def opened_async(scheme: str) -> Callable[..., Any]:
        def channel(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            place = 3 if scheme == "http" else 4
            try:
                url = _url(args[0] if args else kwargs["target"], scheme)
                if peers.audience(url) is not None and len(args) <= place:
                    from grpc import aio

                    ours = _async_interceptors(aio, peers, url)
                    kwargs = {**kwargs, "interceptors": [*(kwargs.get("interceptors") or ()), *ours]}
            except Exception as fault:
                faults.note("grpc.channel", fault)
            return wrapped(*args, **kwargs)

        return channel

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(module, path, wrapper, "peers", "grpcio")

    return (
        row("grpc", "insecure_channel", opened("http")),
        row("grpc", "secure_channel", opened("https")),
        row("grpc.aio", "insecure_channel", opened_async("http")),
        row("grpc.aio", "secure_channel", opened_async("https")),
    )
