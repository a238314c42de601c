"""Bedrock through aiobotocore: the shapes of boto3, awaited; one row and one span for each request."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

import attribkit

session = pytest.importorskip("aiobotocore.session")

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-lite-v1:0"
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("settled")]


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def made(seen: Any) -> AbstractAsyncContextManager[Any]:
    from aiobotocore.config import AioConfig

    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    config = AioConfig(retries={"max_attempts": 3, "mode": "standard"})
    client: AbstractAsyncContextManager[Any] = session.get_session().create_client(
        "bedrock-runtime", endpoint_url=seen.gateway.url, config=config, **keys
    )
    return client


def turns(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": text}]}]


def messages(text: str) -> str:
    asked = [{"role": "user", "content": text}]
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": asked})


async def converse(client: Any, text: str) -> None:
    reply = await client.converse(modelId=CLAUDE, messages=turns(text))
    assert reply["output"]["message"]["content"][0]["text"]


async def converse_stream(client: Any, text: str) -> None:
    reply = await client.converse_stream(modelId=CLAUDE, messages=turns(text))
    assert "metadata" in [event async for event in reply["stream"]][-1]


async def invoke(client: Any, text: str) -> None:
    reply = await client.invoke_model(modelId=CLAUDE, body=messages(text))
    async with reply["body"] as body:
        assert json.loads(await body.read())["content"]


async def invoke_stream(client: Any, text: str) -> None:
    reply = await client.invoke_model_with_response_stream(modelId=CLAUDE, body=messages(text))
    events = [event async for event in reply["body"]]
    assert json.loads(events[0]["chunk"]["bytes"])["type"] == "message_start"


SHAPES = [converse, converse_stream, invoke, invoke_stream]


def run(seen: Any, *shapes: Any, text: str = "Where is my order?", tenant: str = "acme") -> None:
    async def main() -> None:
        async with made(seen) as client:
            with attribkit.attributed(tenant_id=tenant):
                for shape in shapes:
                    await shape(client, text)

    asyncio.run(main())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_shape_is_one_row_with_usage_and_cost(seen: Any, shape: Any) -> None:
    run(seen, shape)
    (record,), (request,), (span,) = seen.records, seen.requests(), seen.call_spans()
    assert request.attribution["tenant_id"] == record.attribution.tenant_id == span.attributes["attribkit.tenant_id"]
    assert (record.client, record.provider, record.region) == ("aiobotocore", "bedrock", "us-east-1")
    assert (record.status, record.cost.status, record.requested_model) == ("ok", "priced", CLAUDE)
    stated = request.usage
    assert record.usage.output_tokens == stated.get("outputTokens", stated.get("output_tokens"))
    assert record.cost.usd > 0


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_what_it_says_is_signed(observe: Any, gateway: Any, shape: Any) -> None:
    seen = observe(gateways={gateway.url: "bedrock"})
    run(seen, shape)
    (request,) = seen.requests()
    said = json.loads(request.header("x-amzn-bedrock-request-metadata"))
    assert said["tenant_id"] == "acme"
    assert "x-amzn-bedrock-request-metadata" in request.header("authorization").split("SignedHeaders=")[1].split(",")[0]
    if shape in (converse, converse_stream):
        assert request.json["requestMetadata"] == said


def test_elsewhere_nothing_is_told(observe: Any) -> None:
    seen = observe(gateways={})
    run(seen, *SHAPES)
    assert [record.attribution.tenant_id for record in seen.records] == ["acme"] * 4
    assert "acme" not in str([(request.headers, request.body) for request in seen.requests()])


def test_retries_are_attempts_of_one_operation(seen: Any) -> None:
    seen.gateway.behave(contains="once more", status=503, count=1)
    run(seen, converse, text="once more")
    first, second = seen.records
    assert first.operation_id == second.operation_id and first.call_id != second.call_id
    assert (first.status, first.http_status, first.cost.status) == ("error", 503, "free")
    assert (second.status, second.attempt, second.cost.status) == ("ok", 1, "priced")
    assert [request.attribution["tenant_id"] for request in seen.requests()] == ["acme", "acme"]
    assert len(seen.call_spans()) == 1


def test_an_error_is_the_sdks_own_and_recorded(seen: Any) -> None:
    from botocore.exceptions import ClientError

    seen.gateway.behave(contains="not today", status=403)
    with pytest.raises(ClientError):
        run(seen, converse, text="not today")
    (record,) = seen.records
    assert (record.status, record.http_status, record.cost.status) == ("error", 403, "free")


@pytest.mark.parametrize("how", ["close", "break", "unread"])
@pytest.mark.parametrize("api", ["converse", "invoke"])
def test_a_stream_that_is_left_is_abandoned_and_estimated(seen: Any, api: str, how: str) -> None:
    async def asked(client: Any) -> Any:
        text = "a long story about a late parcel"
        if api == "converse":
            return (await client.converse_stream(modelId=CLAUDE, messages=turns(text))).pop("stream")
        return (await client.invoke_model_with_response_stream(modelId=CLAUDE, body=messages(text))).pop("body")

    async def main() -> None:
        async with made(seen) as client:
            with attribkit.attributed(tenant_id="acme"):
                stream = await asked(client)
            events, count = stream.__aiter__(), 0
            while how != "unread" and count < 3:
                await events.__anext__()
                count += 1
            if how == "break":
                await events.aclose()
            else:
                stream.close()
            del stream, events
            gc.collect()

    asyncio.run(main())
    (record,) = seen.records
    assert (record.status, record.attribution.tenant_id) == ("abandoned", "acme")
    if how != "unread":
        assert record.cost.status == "estimated" and record.usage.output_tokens >= 1


def test_tenants_that_share_a_client(seen: Any) -> None:
    async def main() -> None:
        async with made(seen) as client:

            async def one(tenant: str) -> None:
                with attribkit.attributed(tenant_id=tenant):
                    streamed = await client.converse_stream(modelId=NOVA, messages=turns(f"for {tenant}"))
                    await client.converse(modelId=NOVA, messages=turns(f"for {tenant}"))
                async for _ in streamed["stream"]:
                    await asyncio.sleep(0)

            await asyncio.gather(*(one(tenant) for tenant in ("acme", "globex", "hooli")))

    asyncio.run(main())
    assert sorted(record.attribution.tenant_id for record in seen.records) == sorted(["acme", "globex", "hooli"] * 2)
    assert {request.attribution["tenant_id"].encode() in request.body for request in seen.requests()} == {True}
    assert len(seen.call_spans()) == 6


def test_a_coroutine_that_was_made_elsewhere(seen: Any) -> None:
    async def main() -> None:
        async with made(seen) as client:
            with attribkit.attributed(tenant_id="acme"):
                asked = client.converse(modelId=NOVA, messages=turns("Hi"))
            with attribkit.attributed(tenant_id="globex"):
                await asked

    asyncio.run(main())
    assert [record.attribution.tenant_id for record in seen.records] == ["acme"]


def test_a_body_that_says_what_no_header_does_is_given_again(seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from attribkit.instrumentation.clients import bedrock

    monkeypatch.setattr(bedrock, "_COUNTS", ())
    run(seen, invoke)
    (record,) = seen.records
    assert (record.status, record.cost.status) == ("ok", "priced")
    assert record.usage.output_tokens == seen.requests()[0].usage["output_tokens"]


def test_it_comes_off(seen: Any) -> None:
    attribkit.uninstrument()
    run(seen, *SHAPES)
    assert seen.records == [] and "acme" not in str([request.headers for request in seen.requests()])
