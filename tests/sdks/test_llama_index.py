"""LlamaIndex's OpenAI models: one row and one span for each request, for the tenant who asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sdks.checks import right

import attribkit

llms = pytest.importorskip("llama_index.llms.openai")

pytestmark = [pytest.mark.usefixtures("settled"), pytest.mark.filterwarnings("ignore")]


def test_llama_index_by_every_door(observe: Any) -> None:
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
