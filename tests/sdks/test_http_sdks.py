"""SDKs that stand on a plain HTTP client: Mistral's, Cohere's and LiteLLM's; one row and one span for each request."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pytest

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


def litellm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("litellm")


def litellm_chat(seen: Any) -> None:
    litellm().completion(model="openai/gpt-5-mini", api_base=seen.base_url, api_key="k", messages=ASK)


def litellm_stream(seen: Any) -> None:
    list(
        litellm().completion(model="openai/gpt-5-mini", api_base=seen.base_url, api_key="k", messages=ASK, stream=True)
    )


def litellm_anthropic(seen: Any) -> None:
    url = seen.gateway.url
    litellm().completion(model="anthropic/claude-opus-4-5", api_base=url, api_key="k", messages=ASK)


def litellm_anthropic_stream(seen: Any) -> None:
    url = seen.gateway.url
    list(litellm().completion(model="anthropic/claude-opus-4-5", api_base=url, api_key="k", messages=ASK, stream=True))


def litellm_async(seen: Any) -> None:
    async def main() -> None:
        url = seen.gateway.url
        ask = litellm().acompletion
        async for _ in await ask(
            model="anthropic/claude-opus-4-5", api_base=url, api_key="k", messages=ASK, stream=True
        ):
            pass

    asyncio.run(main())


def litellm_embedding(seen: Any) -> None:
    litellm().embedding(model="openai/text-embedding-3-small", api_base=seen.base_url, api_key="k", input=["a"])


SHAPES: list[tuple[Callable[[Any], None], str, str]] = [
    (mistral_chat, "mistralai", "mistral"),
    (mistral_stream, "mistralai", "mistral"),
    (mistral_async, "mistralai", "mistral"),
    (cohere_chat, "cohere", "cohere"),
    (cohere_stream, "cohere", "cohere"),
    (cohere_embed, "cohere", "cohere"),
    (litellm_chat, "openai", "openai"),
    (litellm_stream, "openai", "openai"),
    (litellm_anthropic, "litellm", "anthropic"),
    (litellm_anthropic_stream, "litellm", "anthropic"),
    (litellm_async, "litellm", "anthropic"),
    (litellm_embedding, "openai", "openai"),
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
    (record,), (request,), spans = seen.records, seen.requests(), seen.call_spans()
    assert (record.client, record.provider, record.attribution.tenant_id) == (client, provider, "acme")
    assert record.status == "ok"
    if shape is litellm_stream and not at_a_gateway:
        assert record.cost.reason  # usage is asked for at gateways only
    else:
        assert record.cost.status == "priced"
    assert len(spans) == 1
    assert request.attribution.get("tenant_id") == ("acme" if at_a_gateway else None)


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
