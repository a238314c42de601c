"""The Anthropic SDK: every shape of a Messages call, its attempts and streams; one row and one span each."""

from __future__ import annotations

import asyncio
import gc
from decimal import Decimal
from typing import Any

import pytest

import attribkit
from attribkit.attribution import Attribution

anthropic = pytest.importorskip("anthropic")

MODEL = "claude-opus-4-5"
pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")


def asked(text: str = "Where is my order?") -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": text}]}


def plain(client: Any) -> None:
    assert client.messages.create(**asked()).content[0].text


def stream(client: Any) -> None:
    assert list(client.messages.create(stream=True, **asked()))[-1].type == "message_stop"


def stream_manager(client: Any) -> None:
    with client.messages.stream(**asked()) as events:
        assert events.get_final_message().usage.output_tokens > 1


def raw(client: Any) -> None:
    reply = client.messages.with_raw_response.create(**asked())
    assert reply.headers["content-type"] and reply.parse().content


def raw_unparsed(client: Any) -> None:
    assert client.messages.with_raw_response.create(**asked()).http_response.json()["content"]


def raw_stream(client: Any) -> None:
    assert list(client.messages.with_raw_response.create(stream=True, **asked()).parse())


def streaming_response_read(client: Any) -> None:
    with client.messages.with_streaming_response.create(**asked()) as reply:
        assert b"content" in reply.read()


def streaming_response_lines(client: Any) -> None:
    with client.messages.with_streaming_response.create(stream=True, **asked()) as reply:
        assert [line for line in reply.iter_lines() if line.startswith("data:")]


def with_options(client: Any) -> None:
    client.with_options(max_retries=1).copy(timeout=20).messages.create(**asked())


def beta(client: Any) -> None:
    client.beta.messages.create(**asked())


SHAPES = (
    plain,
    stream,
    stream_manager,
    raw,
    raw_unparsed,
    raw_stream,
    streaming_response_read,
    streaming_response_lines,
    with_options,
    beta,
)


async def async_plain(client: Any) -> None:
    assert (await client.messages.create(**asked())).content[0].text


async def async_stream(client: Any) -> None:
    async for _ in await client.messages.create(stream=True, **asked()):
        pass


async def async_stream_manager(client: Any) -> None:
    async with client.messages.stream(**asked()) as events:
        async for _ in events.text_stream:
            pass


async def async_raw(client: Any) -> None:
    assert (await client.messages.with_raw_response.create(**asked())).http_response.json()["content"]


async def async_streaming_response(client: Any) -> None:
    async with client.messages.with_streaming_response.create(stream=True, **asked()) as reply:
        async for _ in reply.iter_bytes():
            pass


ASYNC_SHAPES = (async_plain, async_stream, async_stream_manager, async_raw, async_streaming_response)


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def made(seen: Any, **more: Any) -> Any:
    client = anthropic.Anthropic(**{"api_key": "k", "base_url": seen.gateway.url, "max_retries": 0, **more})
    seen.opened.append(client)
    return client


def stated_input(request: Any) -> int:
    """Return the input of a request, which Anthropic states apart from what was read from the cache."""
    return request.usage["input_tokens"] + request.usage["cache_read_input_tokens"]


def right(seen: Any, *, tenant: str = "acme") -> Any:
    """Check that there is one request, one row and one span, which say the same, and return the row."""
    (record,), (request,), spans = seen.records, seen.requests(), seen.call_spans()
    assert request.attribution["tenant_id"] == record.attribution.tenant_id == tenant
    assert (record.client, record.provider, record.api, record.status) == ("anthropic", "anthropic", "messages", "ok")
    assert record.cost.status == "priced" and record.cost.usd > 0
    assert record.usage.input_tokens == stated_input(request)
    assert record.usage.output_tokens == request.usage["output_tokens"]
    assert (record.response_id, record.served_model) == (request.response_id, MODEL)
    assert [span.attributes["attribkit.tenant_id"] for span in spans] == [tenant]
    return record


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_shape_is_one_row_with_usage_and_cost(seen: Any, shape: Any) -> None:
    client = made(seen)
    with attribkit.attributed(tenant_id="acme"):
        shape(client)
    assert right(seen).hop == "inherited"


@pytest.mark.parametrize("shape", ASYNC_SHAPES, ids=lambda shape: shape.__name__)
def test_every_async_shape_is_one_row_with_usage_and_cost(seen: Any, shape: Any) -> None:
    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=seen.gateway.url, max_retries=0) as client:
            with attribkit.attributed(tenant_id="acme"):
                await shape(client)

    asyncio.run(main())
    right(seen)


def test_the_span_of_the_sdk_itself_gets_the_cost_and_ours_is_no_second_one(seen: Any) -> None:
    version = int(anthropic.__version__.split(".")[0])
    client = made(seen, **({"open_telemetry": {"tracer_provider": seen.provider}} if version >= 2 else {}))
    with attribkit.attributed(tenant_id="acme"):
        client.messages.create(**asked())
        list(client.messages.create(stream=True, **asked()))
    assert len(seen.records) == len(seen.call_spans()) == 2
    for span, record in zip(seen.call_spans(), seen.records, strict=True):
        assert Decimal(span.attributes["attribkit.cost.usd"]) == record.cost.usd
        assert span.attributes["attribkit.tenant_id"] == "acme"


def test_retries_are_attempts_of_one_operation(seen: Any) -> None:
    client = made(seen, max_retries=2)
    with attribkit.attributed(tenant_id="acme"):
        client.messages.create(**asked(), extra_headers={"x-loopback": "status=529 count=1 retry-after-ms=1"})
    first, second = seen.records
    assert first.operation_id == second.operation_id
    assert (first.status, first.http_status, first.cost.status) == ("error", 529, "free")
    assert (second.status, second.attempt, second.cost.status) == ("ok", 1, "priced")
    assert len(seen.call_spans()) == 1


def test_an_error_is_the_sdks_own_and_recorded(seen: Any) -> None:
    client = made(seen)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**asked(), extra_headers={"x-loopback": "status=400"})
    (record,) = seen.records
    assert (record.status, record.http_status, record.error, record.cost.status) == (
        "error",
        400,
        "BadRequestError",
        "free",
    )


@pytest.mark.parametrize("how", ["close", "break", "unread"])
def test_a_stream_that_is_left_has_its_stated_input_and_an_estimated_output(seen: Any, how: str) -> None:
    client = made(seen)
    with attribkit.attributed(tenant_id="acme"):
        events = client.messages.create(stream=True, **asked())
        if how != "unread":
            for event in events:
                if event.type == "content_block_delta":
                    break
        if how == "close":
            events.close()
    del events
    gc.collect()
    (record,), (request,) = seen.records, seen.requests()
    assert (record.status, record.cost.status) == ("abandoned", "estimated")
    if how != "unread":
        assert record.usage.input_tokens == stated_input(request)
        assert 1 <= record.usage.output_tokens < request.usage["output_tokens"]
        assert record.usage.estimated.startswith("cut after")


def test_streams_of_two_tenants_read_in_turn(seen: Any) -> None:
    client = made(seen)
    streams = []
    for tenant in ("acme", "globex"):
        with attribkit.attributed(tenant_id=tenant):
            streams.append(client.messages.create(stream=True, **asked(tenant)))
    for _ in range(3):
        for one in streams:
            next(one)
    for one in streams:
        list(one)
    assert [request.attribution["tenant_id"] for request in seen.requests()] == ["acme", "globex"]
    assert sorted(record.attribution.tenant_id for record in seen.records) == ["acme", "globex"]
    assert {record.cost.status for record in seen.records} == {"priced"}


def test_two_tenants_gathered_in_one_loop(seen: Any) -> None:
    async def one(client: Any, tenant: str) -> None:
        with attribkit.attributed(tenant_id=tenant):
            async with client.messages.stream(**asked(tenant)) as events:
                async for _ in events:
                    await asyncio.sleep(0)

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=seen.gateway.url) as client:
            await asyncio.gather(*(one(client, tenant) for tenant in ("acme", "globex", "hooli")))

    asyncio.run(main())
    for request in seen.requests():
        tenant = request.attribution["tenant_id"]
        (record,) = [record for record in seen.records if record.response_id == request.response_id]
        assert record.attribution.tenant_id == tenant and tenant.encode() in request.body


def test_counting_tokens_is_no_model_call(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        client = made(seen)
        messages = client.messages if hasattr(client.messages, "count_tokens") else client.beta.messages
        messages.count_tokens(model=MODEL, messages=asked()["messages"])
    (request,) = seen.requests()
    assert seen.records == [] and request.attribution["tenant_id"] == "acme"


def test_the_dialect_of_anthropic_itself_is_told_an_opaque_user(observe: Any, gateway: Any) -> None:
    seen = observe(gateways={f"{gateway.url}/v1": "anthropic"})
    with attribkit.attributed(tenant_id="acme", user_id="u-1"):
        made(seen).messages.create(**asked())
    (request,) = seen.requests()
    assert len(request.json["metadata"]["user_id"]) == 64
    assert b"acme" not in request.body and "acme" not in str(request.headers)


def test_where_no_gateway_is_nothing_is_said(observe: Any) -> None:
    seen = observe(gateways={})
    with attribkit.attributed(tenant_id="acme"):
        made(seen).messages.create(**asked())
    (request,), (record,) = seen.requests(), seen.records
    assert "acme" not in str(request.headers) and "metadata" not in request.json
    assert record.attribution == Attribution.of({"tenant_id": "acme"}) and record.cost.status == "priced"


def test_the_callers_arguments_stay_as_they_were(observe: Any, gateway: Any) -> None:
    seen = observe(gateways={gateway.url: "anthropic"})
    metadata: dict[str, Any] = {}
    body = {**asked(), "metadata": metadata}
    with attribkit.attributed(tenant_id="acme"):
        made(seen).messages.create(**body)
    assert metadata == {} and seen.requests()[0].json["metadata"]


def test_turned_off_and_on(observe: Any) -> None:
    seen = observe(hops={"anthropic": False})
    made(seen).messages.create(**asked())
    assert seen.records == []
