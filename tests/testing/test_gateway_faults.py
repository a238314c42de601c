"""Faults that a header, a marker in the prompt, or a posted rule asks for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import openai
import pytest

from attribkit.testing import Gateway

ASK = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="none") as client:
        yield client


def asked(behaviour: str) -> dict[str, str]:
    return {"x-loopback": behaviour}


def test_two_429_then_an_answer(gateway: Gateway, client: openai.OpenAI) -> None:
    headers = asked("status=429 count=2 retry-after-ms=3")
    reply = client.chat.completions.create(model="gpt-5-mini", messages=ASK, extra_headers=headers)
    assert reply.usage
    assert [request.status for request in gateway.requests()] == [429, 429, 200]
    assert [request.header("x-stainless-retry-count") for request in gateway.requests()] == ["0", "1", "2"]
    assert sum(row.calls for row in gateway.spend()) == 1


def test_a_marker_in_the_prompt(gateway: Gateway, client: openai.OpenAI) -> None:
    ask = [{"role": "user", "content": "Hello [[loopback status=503 count=1]]"}]
    assert client.chat.completions.create(model="gpt-5-mini", messages=ask).usage
    assert [request.status for request in gateway.requests()] == [503, 200]


def test_a_posted_rule_matches_text_path_and_count(gateway: Gateway, client: openai.OpenAI) -> None:
    gateway.behave(status=429, contains="Hello", path="/chat/completions", count=1, retry_after_ms=1)
    client.embeddings.create(model="text-embedding-3-small", input="Hello")
    client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "Other"}])
    client.chat.completions.create(model="gpt-5-mini", messages=ASK)
    assert [request.status for request in gateway.requests()] == [200, 200, 429, 200]


def test_an_unknown_behaviour_is_refused(gateway: Gateway, client: openai.OpenAI) -> None:
    with pytest.raises(ValueError, match="explode"):
        gateway.behave(explode=True)
    with pytest.raises(openai.BadRequestError, match="explode"):
        client.chat.completions.create(model="gpt-5-mini", messages=ASK, extra_headers=asked("explode=1"))


def test_a_time_out(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0, timeout=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="gpt-5-mini", messages=ASK, extra_headers=asked("hang=-1"))
    assert gateway.requests()[0].outcome == "hung"
    assert gateway.spend() == []


def test_a_connection_dropped_in_the_middle_of_a_stream(gateway: Gateway, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-5-mini", messages=ASK, stream=True, extra_headers=asked("drop=3 chunks=20")
    )
    got = []
    with pytest.raises(Exception, match=r"peer closed|reset|incomplete|ReadError|Connection"):
        got.extend(stream)
    assert len(got) == 3
    assert gateway.requests()[0].outcome == "dropped"


def test_a_connection_dropped_before_the_head(gateway: Gateway, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        client.with_options(max_retries=0).chat.completions.create(
            model="gpt-5-mini", messages=ASK, extra_headers=asked("drop=0")
        )
    assert gateway.requests()[0].status is None


def test_html_with_a_good_and_a_bad_status(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-5-mini", messages=ASK, extra_headers=asked("html=200")
    )
    assert raw.text.startswith("<!DOCTYPE html>") and raw.headers["content-type"].startswith("text/html")
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=0).chat.completions.create(
            model="gpt-5-mini", messages=ASK, extra_headers=asked("html=502")
        )


@pytest.mark.parametrize("usage", [None, [], "none", -1, {"prompt_tokens": -5}, {"prompt_tokens": 2**70}, {}])
def test_any_usage_can_be_answered(gateway: Gateway, client: openai.OpenAI, usage: object) -> None:
    gateway.behave(usage=usage)
    raw = client.chat.completions.with_raw_response.create(model="gpt-5-mini", messages=ASK)
    assert raw.http_response.json()["usage"] == usage
    assert gateway.requests()[0].usage == usage


def test_a_redirect_to_another_host(gateway: Gateway) -> None:
    with Gateway() as other, openai.OpenAI(base_url=gateway.base_url, api_key="none") as client:
        gateway.behave(redirect=f"{other.url}{{path}}")
        client.chat.completions.create(model="gpt-5-mini", messages=ASK)
        assert gateway.requests()[0].status == 307
        assert other.requests()[0].path == "/v1/chat/completions"


def test_slow_chunks_and_a_client_that_leaves(gateway: Gateway) -> None:
    async def leave() -> None:
        async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client:
            stream = await client.chat.completions.create(
                model="gpt-5-mini", messages=ASK, stream=True, extra_headers=asked("slow-ms=20 chunks=500")
            )
            async for _ in stream:
                break
            await stream.close()
        while gateway.requests()[0].outcome == "open":
            await asyncio.sleep(0.02)

    asyncio.run(leave())
    request = gateway.requests()[0]
    assert request.outcome == "left" and request.chunks < 500


def test_what_a_strict_proxy_refuses(gateway: Gateway) -> None:
    def status(head: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(head)
            return connection.makefile("rb").readline()

    assert b" 400 " in status(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-a: \x07\r\n\r\n")
    assert b" 431 " in status(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 17_000 + b"\r\n\r\n")
    assert b" 400 " in status(b"nonsense\r\n\r\n")
    assert b" 200 " in status(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert [request.status for request in gateway.requests()] == [400, 431, 200]


def test_a_chunked_request_body_and_two_requests_on_one_connection(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        body = b'{"model":"gpt-4.1-mini","messages":[]}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        head += b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
        half = (
            b"%x\r\n%b\r\n" % (10, body[:10]) + b"%x;x=y\r\n%b\r\n" % (len(body) - 10, body[10:]) + b"0\r\nt: u\r\n\r\n"
        )
        connection.sendall(head + half + b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    first, second = gateway.requests()
    assert first.body == body and first.connection == second.connection


def test_a_body_that_is_not_text_is_kept_as_it_is(gateway: Gateway, client: openai.OpenAI) -> None:
    client.audio.transcriptions.create(model="whisper-1", file=("a.wav", bytes(range(256))))
    assert bytes(range(256)) in gateway.requests()[0].body


def test_a_request_that_makes_no_sense_is_a_400(gateway: Gateway, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", body={"model": "gpt-5-mini", "messages": 5}, cast_to=object)
    assert client.chat.completions.create(model="gpt-5-mini", messages=ASK).usage
