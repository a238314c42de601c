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


def test_handoffs_guardrails_and_agents_as_tools(observe: Any) -> None:
    seen = observe()
    agents.set_tracing_disabled(True)

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            model = agents.OpenAIResponsesModel(MODEL, client)

            @agents.input_guardrail
            async def polite(context: Any, agent: Any, said: Any) -> Any:
                await client.responses.create(model=MODEL, input=str(said))
                return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

            orders = agents.Agent("Orders", model=model)
            front = agents.Agent("Front", model=model, handoffs=[orders], input_guardrails=[polite])
            host = agents.Agent("Host", model=model, tools=[orders.as_tool("orders", "Where orders are")])
            results = []
            for tenant in ("acme", "globex"):
                with attribkit.attributed(tenant_id=tenant):
                    results.append(agents.Runner.run_streamed(front, f"Where is it, for {tenant}"))
            for result in results:
                async for _ in result.stream_events():
                    pass
            assert {result.last_agent.name for result in results} == {"Orders"}
            with attribkit.attributed(tenant_id="acme"):
                runs = [agents.Runner.run(host, "Where is it, for acme")]
            with attribkit.attributed(tenant_id="globex"):
                runs.append(agents.Runner.run(orders, "Where is it, for globex"))
            await asyncio.gather(*runs)

    asyncio.run(main())
    assert {record.attribution.tenant_id for record in seen.records} == {"acme", "globex"}
    assert len(seen.records) == len(seen.requests()) == len(seen.call_spans()) == 2 * 3 + 3 + 1
    by_host = [request for request in seen.requests() if b"for acme" in request.body or b"for globex" in request.body]
    for request in by_host:
        assert f"for {request.attribution['tenant_id']}".encode() in request.body
