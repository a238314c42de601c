"""gRPC between own services, sync and asyncio, each kind of call, over real channels on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
from services.serving import KEY

import attribkit

grpc = pytest.importorskip("grpc")
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def _said() -> bytes:
    return json.dumps(attribkit.current().as_dict()).encode()


def _handlers(*, asynchronous: bool) -> Any:
    def one(request: Any, call: Any) -> bytes:
        return _said()

    def many(request: Any, call: Any) -> Iterator[bytes]:
        yield _said()
        yield _said()

    async def one_async(request: Any, call: Any) -> bytes:
        return _said()

    async def many_async(request: Any, call: Any) -> AsyncIterator[bytes]:
        yield _said()
        yield _said()

    unary, stream = (one_async, many_async) if asynchronous else (one, many)
    methods = {
        kind: getattr(grpc, f"{kind}_rpc_method_handler")(stream if kind.endswith("_stream") else unary)
        for kind in KINDS
    }
    return grpc.method_handlers_generic_handler("who", methods)


def _fields(reply: Any) -> list[Any]:
    return [json.loads(item) for item in ([reply] if isinstance(reply, bytes) else reply)]


def _ask(channel: Any, metadata: Any = None) -> list[Any]:
    found = []
    for kind in KINDS:
        call = getattr(channel, kind)(f"/who/{kind}")
        request = iter([b"", b""]) if kind.startswith("stream") else b""
        found += _fields(call(request, timeout=20, metadata=metadata))
    return found


@pytest.mark.parametrize("peers", [["http://127.0.0.1"], ["http://localhost"]])
def test_sync(peers: list[str]) -> None:
    from attribkit.grpc import AttributionInterceptor

    attribkit.instrument(ledger=None, peers=peers, carrier_key=KEY)
    listening = []

    def serve() -> Any:
        server = grpc.server(ThreadPoolExecutor(4), interceptors=[AttributionInterceptor(audience=names)])
        server.add_generic_rpc_handlers([_handlers(asynchronous=False)])
        listening.append(server.add_insecure_port("127.0.0.1:0"))
        names[0] = f"127.0.0.1:{listening[0]}"
        server.start()
        return server

    names: Any = ["set when the port is known"]
    server = Context().run(serve)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{listening[0]}") as channel:
            with attribkit.attributed(tenant_id="acme"):
                told = _ask(channel, (("mine", "1"), ("baggage", "session=7")))
            untold = _ask(channel)
            forged = Context().run(_ask, channel, (("baggage", "attribkit.tenant_id=evil"),))
    finally:
        server.stop(None)
    assert told == [{"tenant_id": "acme"} if peers == ["http://127.0.0.1"] else {}] * 6
    assert untold == forged == [{}] * 6


def test_asyncio() -> None:
    from attribkit.grpc import AsyncAttributionInterceptor

    attribkit.instrument(ledger=None, peers=["http://127.0.0.1"], carrier_key=KEY)

    async def main() -> tuple[list[Any], list[Any]]:
        names: Any = ["set when the port is known"]
        server = grpc.aio.server(interceptors=[AsyncAttributionInterceptor(audience=names)])
        server.add_generic_rpc_handlers([_handlers(asynchronous=True)])
        port = server.add_insecure_port("127.0.0.1:0")
        names[0] = f"127.0.0.1:{port}"
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"dns:///127.0.0.1:{port}") as channel:

                async def ask() -> list[Any]:
                    found = []
                    for kind in KINDS:
                        call = getattr(channel, kind)(f"/who/{kind}")(
                            iter([b""]) if kind.startswith("stream") else b"", timeout=20
                        )
                        found += _fields([item async for item in call] if kind.endswith("_stream") else await call)
                    return found

                async def for_tenant(tenant: str) -> list[Any]:
                    with attribkit.attributed(tenant_id=tenant):
                        return await ask()

                return [*await for_tenant("acme"), *await for_tenant("globex")], await ask()
        finally:
            await server.stop(None)

    told, untold = asyncio.run(main())
    assert told == [{"tenant_id": "acme"}] * 6 + [{"tenant_id": "globex"}] * 6
    assert untold == [{}] * 6
