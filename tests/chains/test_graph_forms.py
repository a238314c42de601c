"""LangGraph's forms of running nodes, and its streams of every mode, drained when the scope has closed."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import operator
import re
import time
from collections import Counter
from typing import Annotated, Any, TypedDict

import pytest

import attribkit

pytest.importorskip("langgraph")
pytest.importorskip("langchain_openai")

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

TENANT = re.compile(rb"\[tenant=(\w+)\]")
TENANTS = ("acme", "globex")
_timeouts = itertools.count(9060)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class State(TypedDict, total=False):
    q: str
    answer: str
    parts: Annotated[list[str], operator.add]


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def check(seen: Any, each: int) -> None:
    wire: Counter[str] = Counter()
    for request in seen.requests():
        tenant = TENANT.search(request.body)[1].decode()
        assert request.attribution.get("tenant_id") == tenant
        wire[tenant] += 1
    expected = dict.fromkeys(TENANTS, each)
    assert wire == expected
    assert Counter(record.attribution.tenant_id for record in seen.records) == expected
    assert Counter(span.attributes["attribkit.tenant_id"] for span in seen.call_spans()) == expected


def chat(seen: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=seen.base_url, timeout=next(_timeouts))


def asking(seen: Any) -> Any:
    return lambda state: {"parts": [str(chat(seen).invoke(state["q"]).content)]}


def aasking(seen: Any) -> Any:
    async def node(state: State) -> dict[str, Any]:
        return {"parts": [str((await chat(seen).ainvoke(state["q"])).content)]}

    return node


def line(*nodes: Any, **options: Any) -> Any:
    graph = StateGraph(State)
    names = [START, *(f"n{number}" for number in range(len(nodes))), END]
    for name, node in zip(names[1:], nodes, strict=False):
        graph.add_node(name, node, **options)
    for before, after in itertools.pairwise(names):
        graph.add_edge(before, after)
    return graph.compile()


def given(tenant: str) -> dict[str, Any]:
    return {"q": f"[tenant={tenant}] hi"}


MODES: list[Any] = ["values", "updates", "messages", "custom", "debug", ["values", "messages", "updates"]]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_streams_of_every_mode_drained_outside(seen: Any, mode: Any) -> None:
    inner = line(asking(seen))
    graph = line(asking(seen), inner)
    streams = []
    for tenant in TENANTS:
        with attribkit.attributed(tenant_id=tenant):
            streams.append(graph.stream(given(tenant), stream_mode=mode, subgraphs=True))
    for _ in itertools.zip_longest(*streams):
        assert not attribkit.current()

    async def main() -> None:
        graph = line(aasking(seen), line(aasking(seen)))
        streams = []
        for tenant in TENANTS:
            with attribkit.attributed(tenant_id=tenant):
                streams.append(graph.astream(given(tenant), stream_mode=mode))
                streams.append(graph.astream_events(given(tenant), version="v2"))

        async def drain(items: Any) -> None:
            async for _ in items:
                assert not attribkit.current()

        await asyncio.gather(*map(drain, streams))

    asyncio.run(main())
    check(seen, 6)


def test_coroutines_and_batches_made_in_scopes(seen: Any) -> None:
    graph = line(aasking(seen))

    async def main() -> None:
        work = []
        for tenant in TENANTS:
            with attribkit.attributed(tenant_id=tenant):
                work += [graph.ainvoke(given(tenant)), graph.abatch([given(tenant), given(tenant)])]
        with attribkit.attributed(tenant_id="initech"):
            await asyncio.gather(*work)

    asyncio.run(main())
    for tenant in TENANTS:
        with attribkit.attributed(tenant_id=tenant):
            line(asking(seen)).batch([given(tenant), given(tenant)])
    check(seen, 5)


def test_an_abandoned_stream_leaves_nothing(seen: Any) -> None:
    graph = line(asking(seen), asking(seen))
    with attribkit.attributed(tenant_id="acme"):
        items = graph.stream(given("acme"))
    next(items)
    items.close()
    assert not attribkit.current()

    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            items = line(aasking(seen), aasking(seen)).astream(given("acme"))
        await anext(items)
        await items.aclose()
        assert not attribkit.current()

    asyncio.run(main())
    assert {record.attribution.tenant_id for record in seen.records} == {"acme"}


def test_retries_commands_and_branches(seen: Any) -> None:
    from langgraph.types import RetryPolicy

    tries: Counter[str] = Counter()

    def flaky(state: State) -> dict[str, Any]:
        chat(seen).invoke(state["q"])
        tries[state["q"]] += 1
        if tries[state["q"]] == 1:
            raise ConnectionError("again")
        return {}

    def triage(state: State) -> Command[str]:
        chat(seen).invoke(state["q"])
        return Command(goto=[Send("a", state), Send("b", state)], update={"answer": "x"})

    graph = StateGraph(State)
    policy = RetryPolicy(initial_interval=0.01, max_attempts=3)
    try:
        graph.add_node("flaky", flaky, retry_policy=policy)
    except TypeError:  # LangGraph 0.3
        graph.add_node("flaky", flaky, retry=policy)
    graph.add_node("triage", triage, destinations=("a", "b"))
    graph.add_node("a", asking(seen))
    graph.add_node("b", asking(seen))
    graph.add_edge(START, "flaky")
    graph.add_edge("flaky", "triage")
    compiled = graph.compile()
    for tenant in TENANTS:
        with attribkit.attributed(tenant_id=tenant):
            compiled.invoke(given(tenant))
    check(seen, 5)


def test_a_cached_node_makes_no_call(seen: Any) -> None:
    cache = pytest.importorskip("langgraph.cache.memory")
    if "cache_policy" not in inspect.signature(StateGraph.add_node).parameters:
        pytest.skip("this LangGraph caches no nodes")
    from langgraph.types import CachePolicy

    graph = StateGraph(State)
    graph.add_node(
        "ask", lambda state: {"answer": str(chat(seen).invoke(state["q"]).content)}, cache_policy=CachePolicy()
    )
    graph.add_edge(START, "ask")
    compiled = graph.compile(cache=cache.InMemoryCache())
    for tenant in TENANTS:
        for _ in range(2):
            with attribkit.attributed(tenant_id=tenant):
                compiled.invoke(given(tenant))
    check(seen, 1)


def test_the_functional_api_and_its_tasks(seen: Any) -> None:
    @task
    def draft(text: str) -> str:
        time.sleep(0.01)
        return str(chat(seen).invoke(text).content)

    @entrypoint()
    def flow(text: str) -> list[str]:
        return [each.result() for each in [draft(text) for _ in range(3)]]

    @task
    async def adraft(text: str) -> str:
        return str((await chat(seen).ainvoke(text)).content)

    @entrypoint()
    async def aflow(text: str) -> list[str]:
        return list(await asyncio.gather(*[adraft(text) for _ in range(2)]))

    async def main() -> None:
        work = []
        for tenant in TENANTS:
            with attribkit.attributed(tenant_id=tenant):
                work.append(aflow.ainvoke(given(tenant)["q"]))
        await asyncio.gather(*work)

    for tenant in TENANTS:
        with attribkit.attributed(tenant_id=tenant):
            flow.invoke(given(tenant)["q"])
    asyncio.run(main())
    check(seen, 5)


def test_tool_nodes(seen: Any) -> None:
    prebuilt = pytest.importorskip("langgraph.prebuilt")
    from langgraph.graph import MessagesState

    @tool
    def analyse(text: str) -> str:
        """Analyse a text."""
        return str(chat(seen).invoke(text).content)

    graph = StateGraph(MessagesState)
    graph.add_node("tools", prebuilt.ToolNode([analyse]))
    graph.add_edge(START, "tools")
    compiled = graph.compile()

    def calls(tenant: str) -> Any:
        args = {"text": f"[tenant={tenant}] hi"}
        return {
            "messages": [AIMessage("", tool_calls=[{"name": "analyse", "args": args, "id": f"c{n}"} for n in "ab"])]
        }

    async def main() -> None:
        work = []
        for tenant in TENANTS:
            with attribkit.attributed(tenant_id=tenant):
                work.append(compiled.ainvoke(calls(tenant)))
        await asyncio.gather(*work)

    for tenant in TENANTS:
        with attribkit.attributed(tenant_id=tenant):
            compiled.invoke(calls(tenant))
    asyncio.run(main())
    check(seen, 4)


def test_an_inner_scope_wins_inside_a_node(seen: Any) -> None:
    def node(state: State) -> dict[str, Any]:
        with attribkit.attributed(tenant_id="globex"):
            chat(seen).invoke("[tenant=globex] hi")
        return {}

    with attribkit.attributed(tenant_id="acme"):
        line(asking(seen), node).invoke(given("acme"), config={"metadata": {"release": "r9"}})
    check(seen, 1)
