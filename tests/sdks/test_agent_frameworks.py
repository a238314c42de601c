"""Agent frameworks that stand on the OpenAI SDK: one row and one span for each request, for the tenant who asked."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

import attribkit

pytestmark = pytest.mark.usefixtures("settled")

MODEL = "gpt-5-mini"


def right(seen: Any, requests: int, *tenants: str) -> None:
    """Check that each request has one row and one span, all for the tenant in its text."""
    rows = seen.records
    assert len(seen.requests()) == len(rows) == len(seen.call_spans()) == requests
    assert {record.cost.status for record in rows} == {"priced"}
    assert {record.attribution.tenant_id for record in rows} == set(tenants)
    for request in seen.requests():
        assert f"for {request.attribution['tenant_id']}".encode() in request.body


@pytest.mark.filterwarnings("ignore")
def test_openai_agents_with_a_tool_and_two_tenants(observe: Any) -> None:
    agents = pytest.importorskip("agents")
    seen = observe()
    agents.set_tracing_disabled(True)

    @agents.function_tool
    def order_status(order: str) -> str:
        """Return where an order is."""
        return "shipped"

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            for kind in (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel):
                bot = agents.Agent("Support", model=kind(MODEL, client), tools=[order_status])

                async def one(tenant: str, bot: Any = bot) -> None:
                    with attribkit.attributed(tenant_id=tenant):
                        await agents.Runner.run(bot, f"Where is it, for {tenant}")

                async def streamed(tenant: str, bot: Any = bot) -> None:
                    with attribkit.attributed(tenant_id=tenant):
                        result = agents.Runner.run_streamed(bot, f"Where is it, for {tenant}")
                    async for _ in result.stream_events():
                        pass

                await asyncio.gather(one("acme"), streamed("globex"), one("hooli"))

    asyncio.run(main())
    right(seen, 12, "acme", "globex", "hooli")


@pytest.mark.filterwarnings("ignore")
def test_pydantic_ai_with_a_tool_and_two_tenants(observe: Any) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    seen = observe()

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            agent = pydantic_ai.Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)))

            @agent.tool_plain
            def lookup(key: str) -> str:
                """Look up."""
                return "42"

            async def one(tenant: str) -> None:
                with attribkit.attributed(tenant_id=tenant):
                    await agent.run(f"Hi, for {tenant}")

            async def streamed(tenant: str) -> None:
                with attribkit.attributed(tenant_id=tenant):
                    async with agent.run_stream(f"Hi, for {tenant}") as result:
                        async for _ in result.stream_text():
                            pass

            await asyncio.gather(one("acme"), streamed("globex"))

    asyncio.run(main())
    right(seen, 4, "acme", "globex")


@pytest.mark.filterwarnings("ignore")
def test_llama_index_by_every_door(observe: Any) -> None:
    llms = pytest.importorskip("llama_index.llms.openai")
    seen = observe()

    def llm() -> Any:
        return llms.OpenAI(model="gpt-4.1-mini", api_base=seen.base_url, api_key="k")

    with attribkit.attributed(tenant_id="acme"):
        llm().complete("Hi, for acme")
        stream = llm().stream_complete("Hi, for acme")
    list(stream)

    async def main() -> None:
        async def one(tenant: str) -> None:
            with attribkit.attributed(tenant_id=tenant):
                model = llm()
                await model.acomplete(f"Hi, for {tenant}")
                async for _ in await model.astream_complete(f"Hi, for {tenant}"):
                    pass

        await asyncio.gather(one("globex"), one("hooli"))

    asyncio.run(main())
    right(seen, 6, "acme", "globex", "hooli")
