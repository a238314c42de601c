"""LiteLLM's SDK, which calls by the OpenAI SDK, or by httpx: one row and one span for each request."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from sdks.checks import one_row, right

import attribkit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    litellm = pytest.importorskip("litellm")

pytestmark = [pytest.mark.usefixtures("settled"), pytest.mark.filterwarnings("ignore")]

ASK = [{"role": "user", "content": "Where is my order?"}]


def litellm_chat(seen: Any) -> None:
    litellm.completion(model="openai/gpt-5-mini", api_base=seen.base_url, api_key="k", messages=ASK)


def litellm_stream(seen: Any) -> None:
    list(litellm.completion(model="openai/gpt-5-mini", api_base=seen.base_url, api_key="k", messages=ASK, stream=True))


def litellm_anthropic(seen: Any) -> None:
    url = seen.gateway.url
    litellm.completion(model="anthropic/claude-opus-4-5", api_base=url, api_key="k", messages=ASK)


def litellm_anthropic_stream(seen: Any) -> None:
    url = seen.gateway.url
    list(litellm.completion(model="anthropic/claude-opus-4-5", api_base=url, api_key="k", messages=ASK, stream=True))


def litellm_async(seen: Any) -> None:
    async def main() -> None:
        url = seen.gateway.url
        ask = litellm.acompletion
        async for _ in await ask(
            model="anthropic/claude-opus-4-5", api_base=url, api_key="k", messages=ASK, stream=True
        ):
            pass

    asyncio.run(main())


def litellm_embedding(seen: Any) -> None:
    litellm.embedding(model="openai/text-embedding-3-small", api_base=seen.base_url, api_key="k", input=["a"])


SHAPES: list[tuple[Callable[[Any], None], str, str]] = [
    (litellm_chat, "openai", "openai"),
    (litellm_stream, "openai", "openai"),
    (litellm_anthropic, "litellm", "anthropic"),
    (litellm_anthropic_stream, "litellm", "anthropic"),
    (litellm_async, "litellm", "anthropic"),
    (litellm_embedding, "openai", "openai"),
]


@pytest.mark.parametrize("at_a_gateway", [True, False], ids=["gateway", "elsewhere"])
@pytest.mark.parametrize(("shape", "client", "provider"), SHAPES, ids=[shape.__name__ for shape, _, _ in SHAPES])
def test_every_shape_is_one_row(
    observe: Any, gateway: Any, shape: Any, client: str, provider: str, at_a_gateway: bool
) -> None:
    seen = observe(gateways={gateway.url: "portkey"} if at_a_gateway else {})
    with attribkit.attributed(tenant_id="acme"):
        shape(seen)
    cost = one_row(seen, client, provider, at_a_gateway).cost
    if shape is litellm_stream and not at_a_gateway:
        assert cost.reason  # usage is asked for at gateways only
    else:
        assert cost.status == "priced"


def test_a_router_that_falls_back(observe: Any, gateway: Any) -> None:
    seen = observe()
    at = {"api_base": seen.base_url, "api_key": "k", "max_retries": 0}
    models = [
        {"model_name": "main", "litellm_params": {"model": "openai/gpt-5-mini", **at}},
        {"model_name": "spare", "litellm_params": {"model": "openai/gpt-4.1-mini", **at}},
    ]
    router = litellm.Router(model_list=models, fallbacks=[{"main": ["spare"]}], num_retries=0)
    gateway.behave(contains="gpt-5-mini", status=500, count=4)

    async def one(tenant: str) -> None:
        ask = [{"role": "user", "content": f"Where, for {tenant}"}]
        with attribkit.attributed(tenant_id=tenant):
            await router.acompletion(model="main", messages=ask)
            streamed = await router.acompletion(model="main", messages=ask, stream=True)
        async for _ in streamed:
            pass

    async def main() -> None:
        await asyncio.gather(one("acme"), one("globex"))

    asyncio.run(main())
    assert [record.status for record in seen.records].count("ok") == 4
    assert len(seen.records) == len(seen.requests()) == len(seen.call_spans())
    for request in seen.requests():
        assert f"for {request.attribution['tenant_id']}".encode() in request.body


def test_calls_that_are_gathered_and_batches_of_threads(observe: Any) -> None:
    seen = observe()
    at = {"model": "openai/gpt-5-mini", "api_base": seen.base_url, "api_key": "k"}

    def ask(tenant: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"Where, for {tenant}"}]

    async def main() -> None:
        calls = []
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                calls.append(litellm.acompletion(messages=ask(tenant), **at))
        await asyncio.gather(*calls)

    asyncio.run(main())
    with attribkit.attributed(tenant_id="hooli"):
        litellm.batch_completion(messages=[ask("hooli"), ask("hooli")], **at)
    right(seen, 4, "acme", "globex", "hooli")
