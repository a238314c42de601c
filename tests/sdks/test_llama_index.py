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


def test_the_streamed_answer_of_a_query_engine(observe: Any) -> None:
    from llama_index.core import Document, SummaryIndex
    from llama_index.core.embeddings import MockEmbedding

    seen = observe()
    model = llms.OpenAI(model="gpt-4.1-mini", api_base=seen.base_url, api_key="k")
    index = SummaryIndex.from_documents([Document(text="Orders ship.")], embed_model=MockEmbedding(8))
    answers = []
    for tenant in ("acme", "globex"):
        with attribkit.attributed(tenant_id=tenant):
            answers.append(index.as_query_engine(llm=model, streaming=True).query(f"Where, for {tenant}"))
    with attribkit.attributed(tenant_id="hooli"):
        assert all(str(answer) for answer in answers)

    async def main() -> None:
        later = []
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                engine = index.as_query_engine(llm=model, streaming=True, use_async=True)
                later.append(await engine.aquery(f"Where, for {tenant}"))
        with attribkit.attributed(tenant_id="hooli"):
            for answer in later:
                assert await answer.get_response()

    asyncio.run(main())
    right(seen, 4, "acme", "globex")


def test_an_agents_workflow(observe: Any) -> None:
    from llama_index.core.agent.workflow import FunctionAgent

    seen = observe()

    def order_status(order: str) -> str:
        """Return where an order is."""
        return "shipped"

    async def main() -> None:
        model = llms.OpenAI(model="gpt-4.1-mini", api_base=seen.base_url, api_key="k")
        agent = FunctionAgent(llm=model, tools=[order_status])
        running = []
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                running.append(agent.run(f"Where is it, for {tenant}"))
        for handler in running:
            async for _ in handler.stream_events():
                pass
            await handler

    asyncio.run(main())
    right(seen, 4, "acme", "globex")
