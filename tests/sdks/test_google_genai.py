"""Google's Gen AI SDK: whole replies, streams, chats, tools, retries; one row and one span for each request."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import attribkit

genai = pytest.importorskip("google.genai")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning"),
    pytest.mark.usefixtures("settled"),
]
MODEL = "gemini-2.5-flash"


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def made(seen: Any, **options: Any) -> Any:
    client = genai.Client(api_key="k", http_options={"base_url": seen.gateway.url, **options})
    if hasattr(client, "close"):
        seen.opened.append(client)
    return client


async def closed(client: Any) -> None:
    """Close what an async client holds, in versions that can."""
    close = getattr(client.aio, "aclose", None)
    if close is not None:
        await close()


def plain(client: Any, text: str) -> None:
    assert client.models.generate_content(model=MODEL, contents=text).text


def stream(client: Any, text: str) -> None:
    assert len(list(client.models.generate_content_stream(model=MODEL, contents=text))) > 1


def chat(client: Any, text: str) -> None:
    assert client.chats.create(model=MODEL).send_message(text).text


def chat_stream(client: Any, text: str) -> None:
    assert list(client.chats.create(model=MODEL).send_message_stream(text))


async def async_plain(client: Any, text: str) -> None:
    assert (await client.aio.models.generate_content(model=MODEL, contents=text)).text


async def async_stream(client: Any, text: str) -> None:
    chunks = [chunk async for chunk in await client.aio.models.generate_content_stream(model=MODEL, contents=text)]
    assert chunks[-1].usage_metadata.candidates_token_count


async def async_chat_stream(client: Any, text: str) -> None:
    async for chunk in await client.aio.chats.create(model=MODEL).send_message_stream(text):
        assert chunk.candidates


def right(seen: Any) -> None:
    (record,), (request,), (span,) = seen.records, seen.requests(), seen.call_spans()
    assert request.attribution["tenant_id"] == record.attribution.tenant_id == span.attributes["attribkit.tenant_id"]
    assert (record.client, record.provider, record.api) == ("google-genai", "gemini", "generateContent")
    assert (record.status, record.cost.status, record.requested_model) == ("ok", "priced", MODEL)
    assert record.usage.input_tokens == request.usage["promptTokenCount"]
    assert record.usage.output_tokens == request.usage["candidatesTokenCount"]
    assert (record.response_id, record.served_model) == (request.response_id, MODEL)
    assert span.attributes["gen_ai.operation.name"] == "generate_content"


@pytest.mark.parametrize("shape", [plain, stream, chat, chat_stream], ids=lambda shape: shape.__name__)
def test_every_shape_is_one_row_with_usage_and_cost(seen: Any, shape: Any) -> None:
    client = made(seen)
    with attribkit.attributed(tenant_id="acme"):
        shape(client, "Where is my order?")
    right(seen)


@pytest.mark.parametrize("shape", [async_plain, async_stream, async_chat_stream], ids=lambda shape: shape.__name__)
def test_every_async_shape_is_one_row_with_usage_and_cost(seen: Any, shape: Any) -> None:
    async def main() -> None:
        client = made(seen)
        with attribkit.attributed(tenant_id="acme"):
            await shape(client, "Where is my order?")
        await closed(client)

    asyncio.run(main())
    right(seen)


def test_a_stream_belongs_to_the_scope_that_made_it(seen: Any) -> None:
    client = made(seen)
    with attribkit.attributed(tenant_id="acme"):
        one = client.models.generate_content_stream(model=MODEL, contents="for acme")
    with attribkit.attributed(tenant_id="globex"):
        two = client.models.generate_content_stream(model=MODEL, contents="for globex")
        next(two)
        list(one)
    list(two)
    assert {request.attribution["tenant_id"].encode() in request.body for request in seen.requests()} == {True}
    assert sorted(record.attribution.tenant_id for record in seen.records) == ["acme", "globex"]


def test_two_tenants_gathered_with_streams_in_turn(seen: Any) -> None:
    async def main() -> None:
        client = made(seen)

        async def one(tenant: str) -> None:
            with attribkit.attributed(tenant_id=tenant):
                chunks = await client.aio.models.generate_content_stream(model=MODEL, contents=f"for {tenant}")
                async for _ in chunks:
                    await asyncio.sleep(0)

        await asyncio.gather(*(one(tenant) for tenant in ("acme", "globex", "hooli")))
        await closed(client)

    asyncio.run(main())
    assert len(seen.records) == len(seen.call_spans()) == 3
    for request in seen.requests():
        (record,) = [record for record in seen.records if record.response_id == request.response_id]
        assert record.attribution.tenant_id == request.attribution["tenant_id"]
        assert request.attribution["tenant_id"].encode() in request.body


def test_tools_that_the_sdk_calls_by_itself_are_requests_of_the_same_tenant(seen: Any) -> None:
    def order_status(order: str) -> str:
        """Return where an order is."""
        return "shipped"

    with attribkit.attributed(tenant_id="acme"):
        reply = made(seen).models.generate_content(
            model=MODEL, contents="Where is it?", config={"tools": [order_status]}
        )
    assert reply.text
    assert [request.attribution["tenant_id"] for request in seen.requests()] == ["acme", "acme"]
    assert len(seen.records) == len(seen.call_spans()) == 2


def lacks(option: str) -> Any:
    """Return the mark of a test that needs an HTTP option which the oldest versions have not."""
    from google.genai.types import HttpOptions

    return pytest.mark.skipif(option not in HttpOptions.model_fields, reason=f"this version has no {option}")


@lacks("retry_options")
def test_retries_are_attempts_of_one_operation(seen: Any) -> None:
    seen.gateway.behave(contains="once more", status=503, count=1)
    options = {"attempts": 3, "initial_delay": 0.01, "max_delay": 0.02}
    with attribkit.attributed(tenant_id="acme"):
        made(seen, retry_options=options).models.generate_content(model=MODEL, contents="once more")
    first, second = seen.records
    assert first.operation_id == second.operation_id and first.call_id != second.call_id
    assert (first.status, first.http_status, first.cost.status) == ("error", 503, "free")
    assert (second.status, second.attempt, second.cost.status) == ("ok", 1, "priced")
    assert len(seen.call_spans()) == 1


def test_an_error_is_the_sdks_own_and_recorded(seen: Any) -> None:
    seen.gateway.behave(contains="no such thing", status=404)
    with pytest.raises(genai.errors.ClientError):
        made(seen).models.generate_content(model=MODEL, contents="no such thing")
    (record,) = seen.records
    assert (record.status, record.http_status, record.error) == ("error", 404, "ClientError")


@pytest.mark.parametrize("how", ["break", "close", "unread"])
def test_a_stream_that_is_left_is_abandoned(seen: Any, how: str) -> None:
    chunks = made(seen).models.generate_content_stream(model=MODEL, contents="a long story")
    if how != "unread":
        next(chunks)
    if how == "close":
        chunks.close()
    del chunks
    gc.collect()
    if how == "unread":
        assert seen.requests() == [] and seen.records == []  # nothing was asked yet
    else:
        (record,) = seen.records
        assert record.status == "abandoned" and record.usage.input_tokens > 0


@lacks("extra_body")
def test_vertex_labels_are_put_beside_the_users(observe: Any, gateway: Any) -> None:
    seen = observe(gateways={gateway.url: "vertex"})
    body = {"labels": {"mine": "kept"}}
    with attribkit.attributed(tenant_id="acme", workflow_id="w-1"):
        made(seen).models.generate_content(model=MODEL, contents="Hi", config={"http_options": {"extra_body": body}})
    (request,) = seen.requests()
    assert request.json["labels"] == {"mine": "kept", "tenant_id": "acme"}
    assert body == {"labels": {"mine": "kept"}}


def test_what_is_no_model_call_has_headers_and_no_row(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        made(seen).models.count_tokens(model=MODEL, contents="Hi")
    assert seen.records == [] and seen.requests()[0].attribution["tenant_id"] == "acme"


def test_embeddings_are_rows(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        made(seen).models.embed_content(model="gemini-embedding-001", contents=["one", "two"])
    (record,) = seen.records
    assert (record.api, record.requested_model, record.cost.status) == (
        "embeddings",
        "gemini-embedding-001",
        "unpriced",
    )
