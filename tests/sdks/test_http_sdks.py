"""SDKs that stand on a plain HTTP client: Mistral's and Cohere's; one row and one span for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sdks.checks import one_row

import attribkit

pytestmark = pytest.mark.usefixtures("settled")

ASK = [{"role": "user", "content": "Where is my order?"}]


def mistral(seen: Any) -> Any:
    client = pytest.importorskip("mistralai.client")
    made = client.Mistral(api_key="k", server_url=seen.gateway.url)
    return made


def cohere(seen: Any) -> Any:
    module = pytest.importorskip("cohere")
    return module.ClientV2(api_key="k", base_url=seen.gateway.url)


def mistral_chat(seen: Any) -> None:
    assert mistral(seen).chat.complete(model="mistral-small-latest", messages=ASK).choices[0].message.content


def mistral_stream(seen: Any) -> None:
    with mistral(seen).chat.stream(model="mistral-small-latest", messages=ASK) as events:
        assert [event.data for event in events]


def mistral_async(seen: Any) -> None:
    async def main() -> None:
        async with mistral(seen) as client:
            await client.chat.complete_async(model="mistral-small-latest", messages=ASK)

    asyncio.run(main())


def cohere_chat(seen: Any) -> None:
    assert cohere(seen).chat(model="command-r-plus", messages=ASK).message.content


def cohere_stream(seen: Any) -> None:
    assert list(cohere(seen).chat_stream(model="command-r-plus", messages=ASK))


def cohere_embed(seen: Any) -> None:
    found = cohere(seen).embed(model="embed-v4.0", texts=["one"], input_type="search_query", embedding_types=["float"])
    assert found.embeddings


SHAPES: list[tuple[Callable[[Any], None], str, str]] = [
    (mistral_chat, "mistralai", "mistral"),
    (mistral_stream, "mistralai", "mistral"),
    (mistral_async, "mistralai", "mistral"),
    (cohere_chat, "cohere", "cohere"),
    (cohere_stream, "cohere", "cohere"),
    (cohere_embed, "cohere", "cohere"),
]


@pytest.mark.parametrize("at_a_gateway", [True, False], ids=["gateway", "elsewhere"])
@pytest.mark.parametrize(("shape", "client", "provider"), SHAPES, ids=[shape.__name__ for shape, _, _ in SHAPES])
@pytest.mark.filterwarnings("ignore")
def test_every_shape_is_one_row(
    observe: Any, gateway: Any, shape: Any, client: str, provider: str, at_a_gateway: bool
) -> None:
    seen = observe(gateways={gateway.url: "portkey"} if at_a_gateway else {})
    with attribkit.attributed(tenant_id="acme"):
        shape(seen)
    assert one_row(seen, client, provider, at_a_gateway).cost.status == "priced"


@pytest.mark.filterwarnings("ignore")
def test_two_tenants_of_one_client_in_turn(observe: Any) -> None:
    seen = observe()
    client = mistral(seen)

    async def one(tenant: str) -> None:
        with attribkit.attributed(tenant_id=tenant):
            events = await client.chat.stream_async(
                model="mistral-small-latest", messages=[{"role": "user", "content": f"for {tenant}"}]
            )
            async for _ in events:
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(one(tenant) for tenant in ("acme", "globex", "hooli")))

    asyncio.run(main())
    assert sorted(record.attribution.tenant_id for record in seen.records) == ["acme", "globex", "hooli"]
    assert {one.attribution["tenant_id"].encode() in one.body for one in seen.requests()} == {True}
