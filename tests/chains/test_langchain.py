"""LangChain on the real framework: attribution on every request, metadata adopted, no second row."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

import attribkit
from attribkit import context

pytest.importorskip("langchain_openai")

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

_timeouts = itertools.count(60)

pytestmark = [  # the frameworks close their clients when they like
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),  # of structured output in langchain-openai 1.0
]


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def model(seen: Any, **more: Any) -> ChatOpenAI:
    """LangChain shares HTTP clients between equal models, also over event loops; a time-out of its own prevents it."""
    return ChatOpenAI(
        model="gpt-5-mini", api_key="k", base_url=seen.base_url, max_retries=0, timeout=next(_timeouts), **more
    )


def tenants(seen: Any) -> list[str | None]:
    """Return the tenants on the wire; rows and spans must say the same, once each."""
    wire = [request.attribution.get("tenant_id") for request in seen.requests()]
    assert sorted(str(record.attribution.tenant_id) for record in seen.records) == sorted(map(str, wire))
    assert sorted(str(span.attributes.get("attribkit.tenant_id")) for span in seen.call_spans()) == sorted(
        map(str, wire)
    )
    return wire


def test_one_request_is_one_row_whatever_stands_above(seen: Any) -> None:
    chain = ChatPromptTemplate.from_template("{q}") | model(seen) | RunnableLambda(lambda message: message.content)
    with attribkit.attributed(tenant_id="acme"):
        assert chain.invoke({"q": "hi"})
        assert chain.batch([{"q": "a"}, {"q": "b"}])
        assert "".join(chain.stream({"q": "hi"}))
        RunnableParallel(a=chain, b=chain).invoke({"q": "hi"})
    assert tenants(seen) == ["acme"] * 6
    assert all(record.cost.status == "priced" for record in seen.records)


def test_async_and_events(seen: Any) -> None:
    async def one(tenant: str) -> None:
        with attribkit.attributed(tenant_id=tenant):
            await model(seen).ainvoke(f"for {tenant}")
            async for _ in model(seen).astream(f"for {tenant}"):
                pass
            async for _ in model(seen).astream_events(f"for {tenant}", version="v2"):
                pass

    async def main() -> None:
        await asyncio.gather(one("acme"), one("globex"))

    asyncio.run(main())
    wire = tenants(seen)
    assert sorted(wire) == ["acme"] * 3 + ["globex"] * 3
    for request in seen.requests():
        assert f"for {request.attribution['tenant_id']}" in request.body.decode()


def test_config_metadata_that_names_a_tenant_is_adopted(seen: Any) -> None:
    config = {"metadata": {"tenant_id": "acme", "workflow": "triage", "user_id": 7, "release": "r9"}}
    model(seen).invoke("hi", config=config)
    list(model(seen).stream("hi", config=config))
    asyncio.run(model(seen).ainvoke("hi", config=config))
    assert tenants(seen) == ["acme"] * 3
    assert {record.hop for record in seen.records} == {"adopted"}
    assert dict(seen.records[0].attribution.fields) == {"tenant_id": "acme", "workflow": "triage", "user_id": "7"}
    assert config == {"metadata": {"tenant_id": "acme", "workflow": "triage", "user_id": 7, "release": "r9"}}


def test_adopted_metadata_reaches_what_a_runnable_calls(seen: Any) -> None:
    import openai

    @tool
    def look(question: str) -> str:
        """Ask a model with a raw client."""
        client = openai.OpenAI(api_key="k", base_url=seen.base_url)
        reply = client.chat.completions.create(model="gpt-4.1-mini", messages=[{"role": "user", "content": question}])
        return reply.choices[0].message.content or ""

    chain = RunnableLambda(lambda question: model(seen).invoke(question).content) | look
    chain.invoke("hi", config={"metadata": {"tenant_id": "acme"}})
    assert tenants(seen) == ["acme", "acme"]


def test_scope_fields_win_and_metadata_completes(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme", workflow="scope"):
        model(seen).invoke("hi", config={"metadata": {"tenant_id": "acme", "workflow": "config", "team": "t1"}})
    (record,) = seen.records
    assert dict(record.attribution.fields) == {"tenant_id": "acme", "workflow": "scope", "team": "t1"}


def test_two_tenants_that_compete_are_none_and_reported(seen: Any) -> None:
    before = context.conflicts()
    with attribkit.attributed(tenant_id="acme"):
        model(seen).invoke("hi", config={"metadata": {"tenant_id": "globex"}})
    assert tenants(seen) == [None]
    assert seen.records[0].hop == "none"
    assert context.conflicts() > before


def test_metadata_without_a_name_changes_nothing(seen: Any) -> None:
    model(seen).invoke("hi", config={"metadata": {"release": "r9", "user_id": "u"}})
    assert tenants(seen) == [None]


def test_embeddings(seen: Any) -> None:
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small", api_key="k", base_url=seen.base_url, check_embedding_ctx_length=False
    )
    with attribkit.attributed(tenant_id="acme"):
        embeddings.embed_documents(["a paragraph"])
        (RunnableLambda(embeddings.embed_query) | len).invoke("question")
    assert tenants(seen) == ["acme", "acme"]


def test_structured_output_and_tools(seen: Any) -> None:
    from pydantic import BaseModel

    class Ticket(BaseModel):
        title: str

    with attribkit.attributed(tenant_id="acme"):
        assert model(seen).with_structured_output(Ticket).invoke("extract").title
    assert tenants(seen) == ["acme"]


def test_exceptions_in_callbacks_change_nothing(seen: Any) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    class Broken(BaseCallbackHandler):
        raise_error = False

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("broken")

        on_llm_end = on_llm_new_token = on_chat_model_start

    with attribkit.attributed(tenant_id="acme"):
        model(seen).invoke("hi", config={"callbacks": [Broken()]})
    assert tenants(seen) == ["acme"]
