"""The carrier goes to the peers named, signed for each of them, and to nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from services.serving import KEY, Listener

import attribkit
from attribkit.errors import ConfigurationError

FIELDS = {"tenant_id": "acme", "workflow_id": "w-1", "plan": "gold, really"}


def _httpx(url: str, headers: dict[str, str]) -> None:
    import httpx

    httpx.get(url, headers=headers, follow_redirects=True).raise_for_status()


def _httpx2(url: str, headers: dict[str, str]) -> None:
    import httpx2

    httpx2.post(url, headers=headers, follow_redirects=True, json={}).raise_for_status()


def _async_httpx(url: str, headers: dict[str, str]) -> None:
    import httpx

    async def call() -> None:
        async with httpx.AsyncClient(follow_redirects=True) as client:
            (await client.get(url, headers=headers)).raise_for_status()

    asyncio.run(call())


def _requests(url: str, headers: dict[str, str]) -> None:
    import requests

    requests.post(url, headers=headers, json={}, timeout=10).raise_for_status()


def _aiohttp(url: str, headers: dict[str, str]) -> None:
    import aiohttp

    async def call() -> None:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as reply:
            reply.raise_for_status()

    asyncio.run(call())


def _websockets(url: str, headers: dict[str, str]) -> None:
    """The listener speaks no websockets: it has seen the handshake when it refuses it."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async def call() -> None:
        with pytest.raises(InvalidStatus):
            await connect(url.replace("http://", "ws://"), additional_headers=headers)

    asyncio.run(call())


def _sync_websockets(url: str, headers: dict[str, str]) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus):
        connect(url.replace("http://", "ws://"), additional_headers=headers)


CLIENTS = [_httpx, _httpx2, _async_httpx, _requests, _aiohttp, _websockets]
Call = Callable[[str, dict[str, str]], None]


@pytest.fixture(params=CLIENTS, ids=lambda call: call.__name__.strip("_"))
def call(request: Any) -> Call:
    pytest.importorskip({"_async_httpx": "httpx"}.get(request.param.__name__, request.param.__name__[1:]))
    return request.param


@pytest.fixture
def elsewhere() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.close()


def believed(request: dict[str, str], audience: str | None = None) -> dict[str, str]:
    return attribkit.extract(request, key=KEY, audience=audience or request["host"]).as_dict()


def test_a_peer_is_told_and_can_check_it(call: Call, listener: Listener) -> None:
    attribkit.instrument(ledger=None, peers=["http://127.0.0.1"], carrier_key=KEY)
    with attribkit.attributed(**FIELDS):
        call(f"{listener.url}/rank", {"baggage": "session=7"})
    call(f"{listener.url}/rank", {})
    told, untold = listener.seen
    assert believed(told) == FIELDS
    assert believed(told, "127.0.0.1:1") == {}
    assert told["baggage"].endswith(",session=7")
    assert "baggage" not in untold


def test_a_websocket_of_a_sync_client(listener: Listener) -> None:
    pytest.importorskip("websockets.sync.client")
    attribkit.instrument(ledger=None, peers=["http://127.0.0.1"], carrier_key=KEY)
    with attribkit.attributed(**FIELDS):
        _sync_websockets(f"{listener.url}/rank", {"baggage": "session=7"})
    (told,) = listener.seen
    assert believed(told) == FIELDS and told["upgrade"] == "websocket"


def test_nobody_else_is_told(call: Call, listener: Listener) -> None:
    prefixes = ["http://localhost", f"http://127.0.0.1:{listener.port}/internal", "https://127.0.0.1"]
    attribkit.instrument(ledger=None, peers=prefixes, carrier_key=KEY)
    with attribkit.attributed(**FIELDS):
        call(f"{listener.url}/internal/x", {})
        call(f"{listener.url}/internals", {})
        call(f"{listener.url}/x/../internal.evil", {})
    assert ["baggage" in request for request in listener.seen] == [True, False, False]


def test_it_does_not_follow_a_redirect(call: Call, listener: Listener, elsewhere: Listener) -> None:
    attribkit.instrument(ledger=None, peers=[listener.url], carrier_key=KEY)
    with attribkit.attributed(**FIELDS):
        call(f"{listener.url}/to?{elsewhere.url}/x", {"baggage": "session=7"})
        call(f"{listener.url}/to?{elsewhere.url}/to?{listener.url}/back", {})
    first, again, back = listener.seen
    assert believed(first) and believed(again) and believed(back)
    assert elsewhere.seen[0].get("baggage") == "session=7"
    assert "baggage" not in elsewhere.seen[1]


def test_from_peer_to_peer_it_is_signed_anew(call: Call, listener: Listener, elsewhere: Listener) -> None:
    attribkit.instrument(ledger=None, peers=["http://127.0.0.1"], carrier_key=KEY)
    with attribkit.attributed(**FIELDS):
        call(f"{listener.url}/to?{elsewhere.url}/x", {})
    (request,) = elsewhere.seen
    assert believed(request) == FIELDS and not believed(request, listener.url.removeprefix("http://"))


def test_a_carrier_of_the_apps_own_is_left(call: Call, listener: Listener) -> None:
    attribkit.instrument(ledger=None, peers=["http://127.0.0.1"], carrier_key=KEY)
    own: dict[str, str] = {}
    with attribkit.attributed(tenant_id="other"):
        attribkit.inject(own, audience="there")
    with attribkit.attributed(**FIELDS):
        call(f"{listener.url}/x", own)
    assert listener.seen[0]["baggage"] == own["baggage"]


def test_off_with_the_group_and_after_uninstrument(call: Call, listener: Listener) -> None:
    settings = {"ledger": None, "peers": ["http://127.0.0.1"], "carrier_key": KEY}
    with attribkit.attributed(**FIELDS):
        attribkit.instrument(**settings, hops={"peers": False})
        call(listener.url, {})
        attribkit.uninstrument()
        attribkit.instrument(**settings)
        attribkit.uninstrument()
        call(listener.url, {})
    assert all("baggage" not in request for request in listener.seen) and len(listener.seen) == 2


def test_each_tenant_its_own(listener: Listener) -> None:
    import httpx2

    attribkit.instrument(ledger=None, peers=["http://127.0.0.1"], carrier_key=KEY)

    async def ask(client: Any, tenant: str) -> None:
        with attribkit.attributed(tenant_id=tenant):
            for _ in range(3):
                await client.get(f"{listener.url}/{tenant}")

    async def main() -> None:
        async with httpx2.AsyncClient() as client:
            await asyncio.gather(*(ask(client, f"t{n}") for n in range(20)))

    asyncio.run(main())
    assert len(listener.seen) == 60
    assert all(believed(request) == {"tenant_id": request["path"][1:]} for request in listener.seen)


def test_one_request_object_sent_for_two_tenants(listener: Listener) -> None:
    import httpx2

    attribkit.instrument(ledger=None, peers=["http://127.0.0.1"], carrier_key=KEY)
    with httpx2.Client() as client:
        request = client.build_request("GET", listener.url)
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                client.send(request)
        client.send(request)
    assert [believed(each).get("tenant_id") for each in listener.seen] == ["acme", "globex", None]
    assert "baggage" not in listener.seen[2]


def test_a_gateway_is_told_in_its_dialect_alone(observe: Any) -> None:
    observed = observe(peers=["http://127.0.0.1"], carrier_key=KEY)
    with attribkit.attributed(**FIELDS):
        observed.client().chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "Hi"}])
    (request,) = observed.requests()
    assert request.attribution["tenant_id"] == "acme"
    assert "baggage" not in request.headers


def test_without_a_key_nothing_is_said(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "attribkit"):
        attribkit.instrument(ledger=None, peers=["http://127.0.0.1"])
    assert "no carrier_key" in caplog.text
    with attribkit.attributed(**FIELDS):
        _httpx(listener.url, {})
    assert "baggage" not in listener.seen[0]


@pytest.mark.parametrize("prefix", ["orders.internal", "ftp://x", "http://user@x", "http://", "http://x/?a"])
def test_what_is_no_prefix_is_told(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="peers"):
        attribkit.instrument(ledger=None, peers=[prefix], carrier_key=KEY)
