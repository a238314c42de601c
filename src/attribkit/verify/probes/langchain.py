"""LangChain: runnables, batches, tools that ask a model, retrievers, metadata that the app sets, caches."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from attribkit.context import attributed
from attribkit.verify.asking import MODEL
from attribkit.verify.lab import Lab, Tenant
from attribkit.verify.probe import Group

__all__ = ["GROUP", "model", "warm"]


def model(**options: Any) -> Any:
    """Return a chat model, as an app makes one wherever it needs it."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, **options)


def warm() -> None:
    """Import what the programs use, and make one call for what is built at the first."""
    model().invoke("Hello.")


GROUP = Group(
    "langchain",
    "LangChain",
    needs=("openai>=1.40", "langchain-core>=0.3", "langchain-openai>=0.2"),
    extra="langchain",
    relies=("openai",),
    remedy="open the scope around the call itself: with attribkit.attributed(tenant_id=...): model.invoke(...)",
    prepare=warm,
)
_AGENTS = ("langchain>=1.0",)


@GROUP.probe("invoke")
def invoke(lab: Lab) -> None:
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            model().invoke(tenant.ask())


@GROUP.probe("ainvoke, tenants at once on one model")
async def ainvoke(lab: Lab) -> None:
    shared = model()

    async def serve(tenant: Tenant) -> None:
        with attributed(**tenant.fields):
            await shared.ainvoke(tenant.ask())

    await asyncio.gather(*(serve(tenant) for tenant in lab.tenants(3)))


@GROUP.probe("stream")
def stream(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        for _ in model(stream_usage=True).stream(tenant.ask()):
            pass


@GROUP.probe("stream and astream made in scopes, read outside", relies=("langchain",))
async def stream_outside(lab: Lab) -> None:
    shared = model()
    one, two = lab.tenants(2)
    with attributed(**one.fields):
        first = shared.stream(one.ask())
    with attributed(**two.fields):
        second = shared.astream(two.ask())
    for _ in first:
        pass
    async for _ in second:
        pass


@GROUP.probe("batch")
def batch(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        model().batch([tenant.ask() for _ in range(3)], config={"max_concurrency": 2})


@GROUP.probe("abatch")
async def abatch(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        await model().abatch([tenant.ask(), tenant.ask()])


@GROUP.probe("batch_as_completed")
def batch_as_completed(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        for _ in model().batch_as_completed([tenant.ask() for _ in range(3)]):
            pass


@GROUP.probe("a chain whose step makes a model of its own")
def chain(lab: Lab) -> None:
    from langchain_core.runnables import RunnableLambda

    def rewrite(question: str) -> str:
        model().invoke(question)
        return question

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        (RunnableLambda(rewrite) | model()).invoke(tenant.ask(requests=2))


@GROUP.probe("RunnableParallel")
def parallel(lab: Lab) -> None:
    from langchain_core.runnables import RunnableParallel

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        RunnableParallel(pro=model(), con=model(), neither=model()).invoke(tenant.ask(requests=3))


@GROUP.probe("astream_events")
async def events(lab: Lab) -> None:
    from langchain_core.runnables import RunnableLambda

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        async for _ in (RunnableLambda(str) | model()).astream_events(tenant.ask(), version="v2"):
            pass


@GROUP.probe("with_fallbacks and with_retry")
def fallbacks(lab: Lab) -> None:
    from langchain_core.runnables import RunnableLambda

    failed = []

    def fails_once(prompt: str) -> str:
        failed.append(prompt)
        if len(failed) < 2:
            raise ValueError("once")
        return prompt

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        first = model(max_retries=0).with_fallbacks([model()])
        first.invoke(tenant.ask(f"[[loopback status=500;count=1;id={tenant.workflow_id}]] Hello.", requests=2))
        retried = RunnableLambda(fails_once).with_retry(wait_exponential_jitter=False)
        (retried | model()).invoke(tenant.ask())


@GROUP.probe("with_structured_output")
def structured(lab: Lab) -> None:
    import pydantic

    class Ticket(pydantic.BaseModel):
        title: str
        urgent: bool

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        model().with_structured_output(Ticket, method="json_schema").invoke(tenant.ask())


@GROUP.probe("an agent with a tool", needs=_AGENTS)
def agent(lab: Lab) -> None:
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    @tool
    def get_weather(city: str) -> str:
        """Weather of a city."""
        return f"sunny in {city}"

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        asked: Any = {"messages": [("user", tenant.ask("Weather in Oslo?", requests=2))]}
        create_agent(model(), [get_weather]).invoke(asked)


@GROUP.probe("a sync tool that asks a model, in async agents of two tenants", needs=_AGENTS)
async def tool_in_agent(lab: Lab) -> None:
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    @tool
    def summarize(text: str) -> str:
        """Summarise a text."""
        return str(model().invoke(f"Summarise: {text}").content)

    async def serve(tenant: Tenant) -> None:
        with attributed(**tenant.fields):
            asked: Any = {"messages": [("user", tenant.ask("Please.", requests=3))]}
            await create_agent(model(), [summarize]).ainvoke(asked)

    await asyncio.gather(*(serve(tenant) for tenant in lab.tenants(2)))


@GROUP.probe("retriever with embeddings")
def retriever(lab: Lab) -> None:
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_openai import OpenAIEmbeddings

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        embeddings = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
        store = InMemoryVectorStore(embeddings)
        store.add_texts([tenant.ask("A paragraph."), "another"])
        store.as_retriever(search_kwargs={"k": 1}).invoke(tenant.ask("A question."))


@GROUP.probe("tenant in config metadata alone, no scope open", relies=("langchain",))
def config_metadata(lab: Lab) -> None:
    from langchain_core.runnables import RunnableLambda

    for tenant in lab.tenants(2):
        chain = RunnableLambda(str) | model()
        chain.invoke(tenant.ask(), config={"metadata": tenant.fields, "tags": ["support"]})


@GROUP.probe("one model, a thread for each tenant that opens its scope")
def shared_model(lab: Lab) -> None:
    shared = model()
    ready = threading.Barrier(2)

    def serve(tenant: Tenant) -> None:
        with attributed(**tenant.fields):
            ready.wait(8)
            shared.invoke(tenant.ask())

    started = [threading.Thread(target=serve, args=(tenant,)) for tenant in lab.tenants(2)]
    for one in started:
        one.start()
    for one in started:
        one.join()


@GROUP.probe("a cache hit: nothing leaves, and its row is right")
def cache(lab: Lab) -> None:
    from langchain_core.caches import InMemoryCache

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        cached, prompt = model(cache=InMemoryCache()), tenant.ask()
        cached.invoke(prompt)
        cached.invoke(prompt)
