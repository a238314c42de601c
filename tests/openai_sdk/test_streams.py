"""Streams settle when drained, closed, abandoned or broken; what was cut is estimated and says so."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import openai
import pytest
from openai_sdk.shapes import MODEL, user

import attribkit


def opened(client: Any, text: str = "tell me a long story about a late parcel", **more: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=user(text), stream=True, **more)


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


@pytest.fixture
def client(seen: Any) -> Any:
    return seen.client(max_retries=0)


def test_a_drained_stream_is_one_ok_row_with_the_time_to_its_first_chunk(seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        list(opened(client))
    (record,), (request,), (span,) = seen.records, seen.requests(), seen.call_spans()
    assert (record.status, record.stream, record.cost.status) == ("ok", True, "priced")
    assert record.cost.usd == request.cost_usd
    assert 0 < record.first_chunk_ns <= record.duration_ns
    assert request.json["stream_options"] == {"include_usage": True}
    assert span.attributes["gen_ai.usage.input_tokens"] == request.usage["prompt_tokens"]


def test_a_stream_belongs_to_the_scope_that_made_it(seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        one = opened(client)
    with attribkit.attributed(tenant_id="globex"):
        two = opened(client)
        list(one)
    list(two)
    assert [record.attribution.tenant_id for record in seen.records] == ["acme", "globex"]


@pytest.mark.parametrize("how", ["stream", "with_streaming_response"])
def test_what_asks_where_it_is_entered_is_for_whom_it_was_made_for(how: str, seen: Any, client: Any) -> None:
    chats = client.chat.completions
    if how == "stream" and not hasattr(chats, "stream"):
        chats = client.beta.chat.completions
    make = chats.stream if how == "stream" else chats.with_streaming_response.create
    with attribkit.attributed(tenant_id="acme"):
        manager = make(model=MODEL, messages=user("Hi"))
    with attribkit.attributed(tenant_id="globex"), manager as entered:
        opened(client).close()
        _ = list(entered) if how == "stream" else entered.read()
    rows = sorted((record.attribution.tenant_id, record.status) for record in seen.records)
    assert rows == [("acme", "ok"), ("globex", "abandoned")]


@pytest.mark.parametrize("how", ["close", "context", "break", "del"])
def test_a_stream_that_is_left_is_abandoned_and_estimated(how: str, seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        stream = opened(client)
        if how == "context":
            with stream:
                next(stream)
        elif how == "break":
            for _ in stream:
                break
        else:
            next(stream)
            next(stream)
        if how == "close":
            stream.close()
    del stream
    gc.collect()
    (record,) = seen.records
    assert (record.status, record.cost.status) == ("abandoned", "estimated")
    assert record.usage.estimated and record.usage.input_tokens == 10
    assert record.usage.output_tokens >= 1
    assert record.cost.usd > 0
    assert len(seen.call_spans()) == 1


def test_a_stream_that_nobody_reads_is_abandoned_when_it_is_let_go(seen: Any, client: Any) -> None:
    opened(client)
    gc.collect()
    (record,) = seen.records
    assert (record.status, record.cost.status) == ("abandoned", "estimated")


def test_a_stream_left_open_is_settled_at_the_end(seen: Any, client: Any) -> None:
    stream = opened(client)
    next(stream)
    assert seen.records == []
    attribkit.uninstrument()
    (record,) = seen.records
    assert record.status == "abandoned"
    list(stream)
    assert len(seen.records) == 1


def test_a_stream_cut_by_the_gateway_raises_as_it_did_and_is_recorded(seen: Any, client: Any) -> None:
    with pytest.raises((openai.APIError, Exception)) as caught:
        list(opened(client, "[[loopback drop=3]] go on"))
    (record,) = seen.records
    assert record.status == "error" and record.cost.status == "estimated"
    assert record.error == type(caught.value).__name__


def test_the_callers_own_exception_ends_the_stream(seen: Any, client: Any) -> None:
    def read() -> None:
        with opened(client) as stream:
            for _ in stream:
                raise KeyError

    with pytest.raises(KeyError):
        read()
    assert [record.status for record in seen.records] == ["abandoned"]


def test_async_streams_drained_broken_off_and_cancelled(seen: Any) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url, max_retries=0) as client:
            with attribkit.attributed(tenant_id="drained"):
                async for _ in await opened(client):
                    pass
            with attribkit.attributed(tenant_id="closed"):
                async with await opened(client) as stream:
                    async for _ in stream:
                        break

            async def slow() -> None:
                with attribkit.attributed(tenant_id="cancelled"):
                    async for _ in await opened(client, "[[loopback slow-ms=200; chunks=50]] slowly"):
                        started.set()

            started = asyncio.Event()
            task = asyncio.create_task(slow())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    gc.collect()
    assert {record.attribution.tenant_id: record.status for record in seen.records} == {
        "drained": "ok",
        "closed": "abandoned",
        "cancelled": "cancelled",
    }


def test_a_user_who_refuses_usage_is_left_alone(seen: Any, client: Any) -> None:
    list(opened(client, stream_options={"include_usage": False}))
    (record,), (request,) = seen.records, seen.requests()
    assert request.json["stream_options"] == {"include_usage": False}
    assert record.status == "ok" and record.cost.status in ("estimated", "unpriced") and record.cost.reason


def test_usage_is_not_asked_for_at_a_host_that_is_no_gateway(observe: Any) -> None:
    seen = observe(gateways={})
    list(opened(seen.client()))
    (request,) = seen.requests()
    assert "stream_options" not in request.json
    assert request.attribution == {} and request.header("traceparent") is None


def test_the_callers_arguments_stay_as_they_were(seen: Any, client: Any) -> None:
    body, options = {"top_k": 1}, {"x-mine": "1"}
    list(opened(client, extra_body=body, extra_headers=options))
    assert (body, options) == ({"top_k": 1}, {"x-mine": "1"})
