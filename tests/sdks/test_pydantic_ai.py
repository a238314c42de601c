"""Pydantic AI: one row and one span for each request, for the tenant who asked."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from sdks.checks import right

import attribkit

pydantic_ai = pytest.importorskip("pydantic_ai")
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402

pytestmark = [pytest.mark.usefixtures("settled"), pytest.mark.filterwarnings("ignore")]

MODEL = "gpt-5-mini"


def test_pydantic_ai_with_a_tool_and_two_tenants(observe: Any) -> None:
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


def test_what_was_made_elsewhere(observe: Any) -> None:
    seen = observe()

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            agent = pydantic_ai.Agent(OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)))
            for tenant in ("acme", "globex"):
                with attribkit.attributed(tenant_id=tenant):
                    said = f"Hi, for {tenant}"
                    run, stepwise = agent.run(said), agent.iter(said)
                    streamed, events = agent.run_stream(said), agent.run_stream_events(said)
                with attribkit.attributed(tenant_id="hooli"):
                    await run
                    async with stepwise as steps:
                        async for _ in steps:
                            pass
                    async with streamed as result:
                        async for _ in result.stream_text():
                            pass
                    async with events as each:
                        async for _ in each:
                            pass

    asyncio.run(main())
    right(seen, 8, "acme", "globex")


def test_an_agent_that_a_tool_asks(observe: Any) -> None:
    seen = observe()

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            model = OpenAIResponsesModel(MODEL, provider=OpenAIProvider(openai_client=client))
            inner, outer = pydantic_ai.Agent(model), pydantic_ai.Agent(model, deps_type=str)

            @outer.tool
            async def ask(context: pydantic_ai.RunContext[str], key: str) -> str:
                """Ask another."""
                return str((await inner.run(context.deps)).output)

            async def one(tenant: str) -> None:
                with attribkit.attributed(tenant_id=tenant):
                    await outer.run(f"Hi, for {tenant}", deps=f"Look, for {tenant}")

            await asyncio.gather(one("acme"), one("globex"))

    asyncio.run(main())
    right(seen, 6, "acme", "globex")
