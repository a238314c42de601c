"""Runnables of every kind: work made in a scope keeps it wherever it runs, and a run says who it is for."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import attribkit

pytest.importorskip("langchain_openai")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import StructuredTool, tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

_timeouts = itertools.count(6060)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore:astream_(log|events)"),
]

TENANTS = ("acme", "globex")


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def model(seen: Any, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-5-mini", api_key="k", base_url=seen.base_url, max_retries=0, timeout=next(_timeouts), **more
    )


def check(seen: Any, each: int) -> None:
    """Each request carries the tenant that its prompt names; rows and spans agree."""
    wire = []
    for request in seen.requests():
        tenant = request.attribution.get("tenant_id")
        assert f"for {tenant}" in request.body.decode()
        wire.append(tenant)
    assert sorted(map(str, wire)) == sorted(TENANTS * each)
    assert sorted(str(record.attribution.tenant_id) for record in seen.records) == sorted(TENANTS * each)
    assert sorted(str(span.attributes["attribkit.tenant_id"]) for span in seen.call_spans()) == sorted(TENANTS * each)


def generating(seen: Any) -> Any:
    def answers(items: Iterator[Any]) -> Iterator[str]:
        for item in items:
            yield str(model(seen).invoke(item).content)

    async def aanswers(items: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for item in items:
            yield str((await model(seen).ainvoke(item)).content)

    return RunnableGenerator(answers, aanswers)


def fails(text: Any) -> Any:
    raise ValueError("no")


KINDS: dict[str, Callable[[Any], Any]] = {
    "model": model,
    "sequence": lambda seen: RunnableLambda(lambda text: text) | model(seen),
    "lambda": lambda seen: RunnableLambda(lambda text: model(seen).invoke(text).content),
    "lambda that returns a model": lambda seen: RunnableLambda(lambda text: model(seen)),
    "parallel": lambda seen: RunnableParallel(answer=model(seen), question=RunnablePassthrough()),
    "assign": lambda seen: (
        RunnableLambda(lambda text: {"q": text})
        | RunnablePassthrough.assign(answer=RunnableLambda(lambda given: given["q"]) | model(seen))
    ),
    "branch": lambda seen: RunnableBranch((lambda text: "for" in text, model(seen)), RunnablePassthrough()),
    "retry": lambda seen: model(seen).with_retry(),
    "fallbacks": lambda seen: RunnableLambda(fails).with_fallbacks([model(seen)]),
    "with_config": lambda seen: model(seen).with_config(tags=["t"], metadata={"release": "r9"}),
    "bind": lambda seen: model(seen).bind(stop=["."]),
    "generator": generating,
    "prompt": lambda seen: ChatPromptTemplate.from_template("say {q}") | model(seen),
    "configurable": lambda seen: model(seen).configurable_fields(),
    "any model": lambda seen: init(seen),
    "each": lambda seen: RunnableLambda(lambda text: [text]) | model(seen).map(),
    "listeners": lambda seen: model(seen).with_listeners(on_end=lambda run: None),
}


def init(seen: Any) -> Any:
    models = pytest.importorskip("langchain.chat_models")
    name = {"configurable": {"model": "gpt-5-mini", "model_provider": "openai"}}
    more = {"api_key": "k", "base_url": seen.base_url, "timeout": next(_timeouts)}
    return models.init_chat_model(configurable_fields=("model", "model_provider"), **more).with_config(name)


def made(kind: str, seen: Any) -> Any:
    if kind == "configurable":
        from langchain_core.runnables import ConfigurableField

        return model(seen, temperature=0).configurable_fields(temperature=ConfigurableField(id="t"))
    return KINDS[kind](seen)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_made_in_a_scope_and_run_outside(seen: Any, kind: str) -> None:
    """Streams and coroutines of two tenants are made in their scopes, and run interleaved when both have closed."""
    chain = made(kind, seen)
    streams = []
    for tenant in TENANTS:
        with attribkit.attributed(tenant_id=tenant):
            chain.invoke(f"for {tenant}")
            streams.append(chain.stream(f"for {tenant}"))
    for _ in itertools.zip_longest(*streams):
        assert not attribkit.current()

    async def main() -> None:
        chain = made(kind, seen)
        coroutines, streams = [], []
        for tenant in TENANTS:
            with attribkit.attributed(tenant_id=tenant):
                coroutines.append(chain.ainvoke(f"for {tenant}"))
                coroutines.append(chain.abatch([f"for {tenant}", f"for {tenant} too"]))
                streams.append(chain.astream(f"for {tenant}"))
                streams.append(chain.astream_events(f"for {tenant}", version="v2"))

        async def drain(items: Any) -> None:
            async for _ in items:
                assert not attribkit.current()
                await asyncio.sleep(0)

        with attribkit.attributed(tenant_id="initech"):
            await asyncio.gather(*coroutines)
        await asyncio.gather(*map(drain, streams))

    asyncio.run(main())
    check(seen, 7)


def test_batches_as_completed_and_logs(seen: Any) -> None:
    made, amade = [], []

    async def main() -> None:
        for tenant in TENANTS:
            with attribkit.attributed(tenant_id=tenant):
                made.append(model(seen).batch_as_completed([f"for {tenant}", f"for {tenant} too"]))
                amade.append(model(seen).abatch_as_completed([f"for {tenant}", f"for {tenant} too"]))
                amade.append(model(seen).astream_log(f"for {tenant}"))
                amade.append(model(seen).astream_events(f"for {tenant}", version="v1"))
                amade.append((model(seen).bind() | RunnablePassthrough()).atransform(given(f"for {tenant}")))
                made.append((model(seen).bind() | RunnablePassthrough()).transform(iter([f"for {tenant}"])))
        for items in made:
            list(items)
        for items in amade:
            async for _ in items:
                pass

    async def given(text: str) -> AsyncIterator[str]:
        yield text

    asyncio.run(main())
    check(seen, 8)


def test_a_stream_made_where_nobody_is_in_force_is_its_consumers(seen: Any) -> None:
    items = model(seen).stream("hi")
    with attribkit.attributed(tenant_id="acme"):
        list(items)
    assert [record.attribution.tenant_id for record in seen.records] == ["acme"]


def test_abandoned_streams_leave_nothing(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        items = (RunnableLambda(lambda text: text) | model(seen)).stream("hi")
        never = model(seen).stream("never")
    next(items)
    items.close()
    del never

    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            items = (RunnableLambda(lambda text: text) | model(seen)).astream("hi")
        await anext(items)
        await items.aclose()
        assert not attribkit.current()

    asyncio.run(main())
    assert [record.attribution.tenant_id for record in seen.records] == ["acme", "acme"]
    assert not attribkit.current()


def test_tools(seen: Any) -> None:
    def ask(text: str) -> str:
        """Ask a model."""
        return str(model(seen).invoke(text).content)

    async def aask(text: str) -> str:
        """Ask a model."""
        return str((await model(seen).ainvoke(text)).content)

    async def main() -> None:
        work = []
        for tenant in TENANTS:
            text = f"for {tenant}"
            with attribkit.attributed(tenant_id=tenant):
                work += [tool(ask).ainvoke({"text": text}), tool(aask).ainvoke({"text": text})]
                work.append(StructuredTool.from_function(coroutine=aask, name="a").arun({"text": text}))
                tool(ask).invoke({"text": text})
            tool(ask).invoke({"text": text}, config={"metadata": {"tenant_id": tenant}})
        await asyncio.gather(*work)

    asyncio.run(main())
    check(seen, 5)


class Searching(BaseRetriever):
    embeddings: Any

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        self.embeddings.embed_query(query)
        return [Document(query)]


def test_retrievers(seen: Any) -> None:
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small", api_key="k", base_url=seen.base_url, check_embedding_ctx_length=False
    )
    retriever = Searching(embeddings=embeddings)
    work = []

    async def main() -> None:
        for tenant in TENANTS:
            text, config = f"for {tenant}", {"metadata": {"tenant_id": tenant}}
            with attribkit.attributed(tenant_id=tenant):
                retriever.invoke(text)
                work.append(retriever.ainvoke(text))
            retriever.invoke(text, config=config)
            work.append(retriever.ainvoke(text, config))
            (RunnablePassthrough() | retriever).invoke(text, config)
        await asyncio.gather(*work)

    asyncio.run(main())
    check(seen, 5)


def test_vector_stores(seen: Any) -> None:
    pytest.importorskip("numpy")
    from langchain_core.vectorstores import InMemoryVectorStore

    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small", api_key="k", base_url=seen.base_url, check_embedding_ctx_length=False
    )
    for tenant in TENANTS:
        with attribkit.attributed(tenant_id=tenant):
            store = InMemoryVectorStore(embeddings)
            store.add_texts([f"a paragraph for {tenant}", "another"])
            store.as_retriever(search_kwargs={"k": 1}).invoke(f"for {tenant}")
    check(seen, 2)
    assert {record.api for record in seen.records} == {"embeddings"}


# -- run metadata -----------------------------------------------------------------------------------------------------


class Handler(BaseCallbackHandler):
    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []

    def _note(self, *args: Any, metadata: Any = None, **kwargs: Any) -> None:
        self.runs.append(dict(metadata or {}))

    on_chain_start = on_chat_model_start = on_tool_start = on_retriever_start = on_llm_start = _note


def test_handlers_see_who_a_run_is_for(seen: Any) -> None:
    handler = Handler()
    chain = RunnableLambda(lambda text: text) | model(seen)
    with attribkit.attributed(tenant_id="acme", workflow="triage", plan="gold"):
        chain.invoke("hi", config={"callbacks": [handler]})
    assert len(handler.runs) == 3
    for run in handler.runs:
        assert {key: run[key] for key in ("tenant_id", "workflow", "plan")} == {
            "tenant_id": "acme",
            "workflow": "triage",
            "plan": "gold",
        }


def test_the_apps_own_keys_are_never_overwritten(seen: Any) -> None:
    handler = Handler()
    config = {"callbacks": [handler], "metadata": {"workflow": "mine", "release": "r9"}, "tags": ["t"]}
    before = copy.copy(config["metadata"])
    with attribkit.attributed(tenant_id="acme", workflow="triage"):
        model(seen, metadata={"feature": "own"}).invoke("hi", config=config)
    (run,) = handler.runs
    assert run["workflow"] == "mine" and run["release"] == "r9" and run["feature"] == "own"
    assert run["tenant_id"] == "acme"
    assert config["metadata"] == before and config["callbacks"] == [handler]


def test_an_inner_scope_is_what_inner_runs_say(seen: Any) -> None:
    handler = Handler()

    def inner(text: str) -> str:
        with attribkit.attributed(tenant_id="globex", feature="inner"):
            model(seen).invoke("for globex")
        model(seen).invoke("for acme")
        return text

    with attribkit.attributed(tenant_id="acme", feature="outer"):
        RunnableLambda(inner).invoke("hi", config={"callbacks": [handler]})
    assert [(run["tenant_id"], run["feature"]) for run in handler.runs] == [
        ("acme", "outer"),
        ("globex", "inner"),
        ("acme", "outer"),
    ]
    check(seen, 1)


def test_what_we_say_is_plain_text_to_others(seen: Any) -> None:
    handler = Handler()
    with attribkit.attributed(tenant_id="acme"):
        model(seen).invoke("hi", config={"callbacks": [handler]})
    value = handler.runs[0]["tenant_id"]
    assert isinstance(value, str) and value == "acme" and json.dumps(value) == '"acme"'
    assert type(pickle.loads(pickle.dumps(value))) is str
    assert copy.deepcopy({"a": value}) == {"a": "acme"}


def test_events_and_results_without_a_scope_hold_nothing_of_ours(seen: Any) -> None:
    handler = Handler()
    model(seen).invoke("hi", config={"callbacks": [handler]})
    assert "tenant_id" not in handler.runs[0]
