"""Raw HTTP calls to a gateway: told, priced and recorded once, by every client; never beside an SDK's own record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from services.serving import Listener

import attribkit

CHAT = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Where is my order?"}]}
FIELDS = {"tenant_id": "acme", "workflow_id": "w-1"}


# -- the same exchange by each client: whole, and as a stream of which so many lines are read -------------------------


def _httpx_with(library: str) -> Callable[..., Any]:
    def call(url: str, body: Any, lines: int | None = None, **headers: str) -> Any:
        http = pytest.importorskip(library)
        if lines is None:
            return http.post(url, json=body, headers=headers, follow_redirects=True).content
        read = []
        with http.Client() as client, client.stream("POST", url, json=body, headers=headers) as reply:
            for line in reply.iter_lines():
                read.append(line)
                if len(read) == lines:
                    break
        return read

    return call


def _httpx_async_with(library: str) -> Callable[..., Any]:
    def call(url: str, body: Any, lines: int | None = None, **headers: str) -> Any:
        http = pytest.importorskip(library)

        async def main() -> Any:
            async with http.AsyncClient(follow_redirects=True) as client:
                if lines is None:
                    return (await client.post(url, json=body, headers=headers)).content
                read = []
                async with client.stream("POST", url, json=body, headers=headers) as reply:
                    async for line in reply.aiter_lines():
                        read.append(line)
                        if len(read) == lines:
                            break
                return read

        return asyncio.run(main())

    return call


def _requests(url: str, body: Any, lines: int | None = None, **headers: str) -> Any:
    requests = pytest.importorskip("requests")
    if lines is None:
        return requests.post(url, json=body, headers=headers, timeout=20).content
    read = []
    with requests.post(url, data=json.dumps(body), headers=headers, stream=True, timeout=20) as reply:
        for line in reply.iter_lines(chunk_size=16):
            read.append(line.decode())
            if len(read) == lines:
                break
    return read


def _aiohttp(url: str, body: Any, lines: int | None = None, **headers: str) -> Any:
    aiohttp = pytest.importorskip("aiohttp")

    async def main() -> Any:
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as reply:
            if lines is None:
                return await reply.read()
            read = []
            async for line in reply.content:
                read.append(line.decode().strip())
                if len(read) == lines:
                    break
            return read

    return asyncio.run(main())


CLIENTS: dict[str, Callable[..., Any]] = {
    "httpx": _httpx_with("httpx"),
    "httpx2": _httpx_with("httpx2"),
    "httpx-async": _httpx_async_with("httpx"),
    "httpx2-async": _httpx_async_with("httpx2"),
    "requests": _requests,
    "aiohttp": _aiohttp,
}


@pytest.fixture(params=CLIENTS)
def post(request: Any) -> Any:
    return CLIENTS[request.param]


def only(records: list[Any]) -> Any:
    (record,) = records
    return record


def test_a_whole_reply(observe: Any, post: Any) -> None:
    observed = observe()
    with attribkit.attributed(**FIELDS):
        reply = json.loads(post(f"{observed.base_url}/chat/completions", CHAT, authorization="Bearer k"))
    (request,), record, (span,) = observed.requests(), only(observed.records), observed.call_spans()
    assert request.attribution == FIELDS and request.json == CHAT
    assert record.attribution.as_dict() == FIELDS and record.hop == "inherited"
    assert (record.status, record.http_status, record.api, record.stream) == ("ok", 200, "chat", False)
    assert (record.requested_model, record.served_model) == ("gpt-5-mini", reply["model"])
    assert record.response_id == reply["id"]
    assert record.cost.status == "priced" and record.usd == Decimal(request.cost_usd)
    assert span.attributes["attribkit.tenant_id"] == "acme"
    assert f"{span.context.span_id:016x}" == record.span_id


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_read_to_its_end(observe: Any, post: Any, usage: bool) -> None:
    observed = observe()
    body = {**CHAT, "stream": True, **({"stream_options": {"include_usage": True}} if usage else {})}
    with attribkit.attributed(**FIELDS):
        lines = post(f"{observed.base_url}/chat/completions", body, lines=10**6)
    assert lines[-2:] == ["data: [DONE]", ""] or lines[-1] == "data: [DONE]" or lines[-2] == "data: [DONE]"
    (request,), record = observed.requests(), only(observed.records)
    assert request.attribution == FIELDS and request.json == body
    assert record.stream and record.status == "ok" and record.first_chunk_ns
    assert record.response_id == request.response_id and record.served_model
    assert record.cost.status == ("priced" if usage else "unpriced")
    if usage:
        assert record.usd == Decimal(request.cost_usd)


def test_a_stream_that_is_left(observe: Any, post: Any) -> None:
    observed = observe()
    with attribkit.attributed(**FIELDS):
        lines = post(f"{observed.base_url}/chat/completions", {**CHAT, "stream": True}, lines=3)
    assert len(lines) == 3
    import gc

    gc.collect()
    record = only(observed.records)
    assert record.status in ("abandoned", "ok") and record.attribution.tenant_id == "acme"
    assert record.cost.status in ("estimated", "unpriced")


@pytest.mark.parametrize(
    ("path", "body", "api"),
    [
        ("responses", {"model": "gpt-5-mini", "input": "Hi"}, "responses"),
        ("embeddings", {"model": "text-embedding-3-small", "input": "Hi"}, "embeddings"),
        ("messages", {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": CHAT["messages"]}, "messages"),
        ("audio/speech", {"model": "tts-1", "input": "Hello", "voice": "alloy"}, "speech"),
    ],
)
def test_each_api(observe: Any, post: Any, path: str, body: Any, api: str) -> None:
    observed = observe()
    with attribkit.attributed(**FIELDS):
        post(f"{observed.base_url}/{path}?trace=1", body)
    record = only(observed.records)
    assert (record.api, record.cost.status) == (api, "priced"), record
    assert only(observed.requests()).attribution == FIELDS


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("responses", {"model": "gpt-5-mini", "input": "Hi", "stream": True}),
        ("messages", {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": CHAT["messages"], "stream": True}),
    ],
)
def test_events_of_each_api(observe: Any, post: Any, path: str, body: Any) -> None:
    observed = observe()
    with attribkit.attributed(**FIELDS):
        post(f"{observed.base_url}/{path}", body, lines=10**6)
    record, request = only(observed.records), only(observed.requests())
    assert (record.status, record.cost.status) == ("ok", "priced")
    assert record.response_id == request.response_id
    assert request.cost_usd is None or record.usd == Decimal(request.cost_usd)


def test_what_fails(observe: Any, post: Any) -> None:
    observed = observe()
    with attribkit.attributed(**FIELDS):
        post(f"{observed.base_url}/chat/completions", CHAT, **{"x-loopback": "status=429"})
        post(f"{observed.base_url}/chat/completions", CHAT, **{"x-loopback": "body=garbage"})
        with pytest.raises(Exception):  # noqa: B017, PT011 - each client has its own
            post("http://127.0.0.1:1/v1/chat/completions", CHAT)
    statuses = [(record.status, record.http_status, record.cost.status) for record in observed.records]
    assert statuses[0] == ("error", 429, "free")
    assert statuses[1][0] == "ok" and statuses[1][2] == "unpriced"
    assert len(statuses) == 2  # the third goes to no gateway


def test_other_requests_to_a_gateway_are_told_and_not_recorded(observe: Any, post: Any) -> None:
    observed = observe()
    with attribkit.attributed(**FIELDS):
        post(f"{observed.base_url}/files", {"a": 1})
    assert only(observed.requests()).attribution == FIELDS
    assert observed.records == [] and observed.call_spans() == []


def test_a_look_alike_gets_nothing(observe: Any, post: Any, listener: Listener) -> None:
    observed = observe(gateways={f"http://127.0.0.1:{listener.port}/gw": "portkey"})
    with attribkit.attributed(**FIELDS):
        post(f"{listener.url}/gw-evil/v1/chat/completions", CHAT)
    assert not [name for name in only(listener.seen) if name.startswith(("x-portkey", "traceparent"))]
    assert observed.records == []


def test_nothing_follows_a_redirect(observe: Any, post: Any, listener: Listener) -> None:
    elsewhere = Listener()
    observed = observe(gateways={listener.url: "portkey"})
    try:
        with attribkit.attributed(**FIELDS):
            post(f"{listener.url}/to?{elsewhere.url}/v1/chat/completions", CHAT)
            post(f"{listener.url}/to/v1/chat/completions?{elsewhere.url}/x", CHAT, **{"x-mine": "1"})
    finally:
        elsewhere.close()
    assert len(listener.seen) == len(elsewhere.seen) == 2
    for request in listener.seen:
        assert json.loads(request["x-portkey-metadata"])["tenant_id"] == "acme"
    for request in elsewhere.seen:
        assert not [name for name in request if name.startswith(("x-portkey", "traceparent"))]
    assert elsewhere.seen[1]["x-mine"] == "1"
    assert len(observed.records) == 1


def test_bodies_are_told_and_do_not_follow_a_redirect(observe: Any, post: Any, listener: Listener) -> None:
    observe(gateways={listener.url: "openai"})
    elsewhere, kept = Listener(), {**CHAT, "store": True}
    try:
        with attribkit.attributed(**FIELDS):
            post(f"{listener.url}/v1/chat/completions", {**kept, "metadata": {"mine": "1"}})
            post(f"{listener.url}/to/v1/chat/completions?{elsewhere.url}/x", kept)
    finally:
        elsewhere.close()
    told, first = (json.loads(request["body"]) for request in listener.seen)
    assert told == {**kept, "metadata": {"mine": "1", **FIELDS}}
    assert first == {**kept, "metadata": FIELDS}
    assert json.loads(only(elsewhere.seen)["body"]) == kept


def test_a_request_object_that_is_sent_again_is_told_anew(observe: Any) -> None:
    import httpx
    import requests

    observed = observe()
    url = f"{observed.base_url}/chat/completions"
    with httpx.Client() as client, requests.Session() as session:
        built, prepared = client.build_request("POST", url, json=CHAT), requests.Request("POST", url, json=CHAT)
        again = prepared.prepare()
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                client.send(built)
                session.send(again)
        client.send(built)
    told = [request.attribution.get("tenant_id") for request in observed.requests()]
    assert told == ["acme", "acme", "globex", "globex", None]
    assert [record.attribution.tenant_id for record in observed.records] == told


def test_requests_that_share_their_extensions(observe: Any, listener: Listener) -> None:
    import httpx

    observed = observe(peers=[listener.url], carrier_key="0123456789abcdef0123456789abcdef")
    url, shared = f"{observed.base_url}/chat/completions", {"mine": 1}
    with httpx.Client() as client:
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                for there, headers in ((url, {}), (listener.url, {"baggage": "session=7"})):
                    request = client.build_request("POST", there, json={**CHAT, "user": tenant}, headers=headers)
                    request.extensions = shared
                    shared.setdefault("timeout", request.extensions.get("timeout", {}))
                    client.send(request)
    assert [request.attribution["tenant_id"] for request in observed.requests()] == ["acme", "globex"]
    assert [request.json["user"] for request in observed.requests()] == ["acme", "globex"]
    assert all(request["baggage"].endswith(",session=7") for request in listener.seen)
    assert set(shared) == {"mine", "timeout"}


def test_sdks_on_these_clients_are_recorded_once(observe: Any) -> None:
    observed = observe()
    with attribkit.attributed(**FIELDS):
        client = observed.client()
        client.chat.completions.create(**CHAT)
        for _ in client.chat.completions.create(**CHAT, stream=True):
            pass
        with client.chat.completions.with_streaming_response.create(**CHAT) as reply:
            reply.parse()
    assert len(observed.requests()) == len(observed.records) == len(observed.call_spans()) == 3
    assert {record.client for record in observed.records} == {"openai"}


def test_an_sdk_whose_patches_are_off_is_not_seen_through_its_client(observe: Any) -> None:
    observed = observe(hops={"openai": False})
    observed.client().chat.completions.create(**CHAT)
    assert observed.records == []


def test_a_budget_stops_a_raw_call(observe: Any, post: Any) -> None:
    budget = attribkit.Budget("tiny", limit="0.000001", window="month", match={"tenant_id": "acme"})
    observed = observe(budgets=[budget], budget_store=None)
    with attribkit.attributed(**FIELDS), pytest.raises(attribkit.BudgetExceeded):
        post(f"{observed.base_url}/chat/completions", {**CHAT, "max_completion_tokens": 10**6})
    assert observed.requests() == [] and only(observed.records).status == "rejected"


def test_many_at_once_each_for_its_own(observe: Any) -> None:
    import httpx2

    observed = observe()

    async def ask(client: Any, tenant: str) -> None:
        with attribkit.attributed(tenant_id=tenant):
            body = {**CHAT, "messages": [{"role": "user", "content": tenant}]}
            await client.post(f"{observed.base_url}/chat/completions", json=body)

    async def main() -> None:
        async with httpx2.AsyncClient() as client:
            await asyncio.gather(*(ask(client, f"t{n}") for n in range(30)))

    asyncio.run(main())
    assert len(observed.records) == 30
    for request in observed.requests():
        assert request.attribution["tenant_id"] == request.json["messages"][0]["content"]


def test_compressed_events(observe: Any) -> None:
    import gzip

    import httpx

    observed = observe(gateways={"http://packed.internal": "portkey"})
    first = b'data: {"id":"r-1","model":"gpt-5-mini","choices":[]}'
    events = b"\n\n".join((first, b'data: {"usage":{"prompt_tokens":7,"completion_tokens":3}}', b"data: [DONE]", b""))

    def answer(request: Any) -> Any:
        headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(gzip.compress(events)))

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        with client.stream(
            "POST", "http://packed.internal/v1/chat/completions", json={**CHAT, "stream": True}
        ) as reply:
            assert reply.read() == events
    record = only(observed.records)
    assert record.cost.status == "priced" and record.response_id == "r-1"
    assert dict(record.usage.meters) == {"input": 7, "output": 3}
