"""OpenAI Agents SDK: one row and one span for each request, for the tenant who asked."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from sdks.checks import right

import attribkit

agents = pytest.importorskip("agents")

pytestmark = [pytest.mark.usefixtures("settled"), pytest.mark.filterwarnings("ignore")]

MODEL = "gpt-5-mini"


def test_openai_agents_with_a_tool_and_two_tenants(observe: Any) -> None:
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
