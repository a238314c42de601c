"""Pydantic AI: one row and one span for each request, for the tenant who asked."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from sdks.checks import right

import attribkit

pydantic_ai = pytest.importorskip("pydantic_ai")

pytestmark = [pytest.mark.usefixtures("settled"), pytest.mark.filterwarnings("ignore")]

MODEL = "gpt-5-mini"


def test_pydantic_ai_with_a_tool_and_two_tenants(observe: Any) -> None:
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
