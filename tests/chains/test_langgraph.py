"""LangGraph on the real framework: nodes, subgraphs that build their own client, tools, agents; tenants interleaved."""

from __future__ import annotations

import asyncio
import itertools
import operator
import re
from collections import Counter
from typing import Annotated, Any, TypedDict

import pytest

import attribkit

pytest.importorskip("langgraph")
pytest.importorskip("langchain_openai")

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

TENANT = re.compile(rb"\[tenant=(\w+)\]")


class State(TypedDict, total=False):
    q: str
    answer: str
    parts: Annotated[list[str], operator.add]


_timeouts = itertools.count(1060)

pytestmark = [  # the frameworks close their clients when they like
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def check(seen: Any, expected: dict[str, int]) -> None:
    wire: Counter[str] = Counter()
    for request in seen.requests():
        tenant = TENANT.search(request.body)[1].decode()
        assert request.attribution.get("tenant_id") == tenant
        wire[tenant] += 1
    assert wire == expected
    assert Counter(record.attribution.tenant_id for record in seen.records) == expected
    assert Counter(span.attributes["attribkit.tenant_id"] for span in seen.call_spans()) == expected


def chat(seen: Any, name: str = "gpt-5-mini") -> ChatOpenAI:
    """LangChain shares HTTP clients between equal models, also over event loops; a time-out of its own prevents it."""
    return ChatOpenAI(model=name, api_key="k", base_url=seen.base_url, timeout=next(_timeouts))


def ask(seen: Any) -> Any:
    """A node that builds its own client and knows no tenant."""

    def node(state: State) -> dict[str, Any]:
        model = chat(seen)
        return {"parts": [str(model.invoke(state["q"]).content)]}

    return node


def aask(seen: Any) -> Any:
    async def node(state: State) -> dict[str, Any]:
        model = chat(seen)
        chunks = [chunk.content async for chunk in model.astream(state["q"])]
        return {"answer": "".join(chunks)}

    return node


def line(*nodes: tuple[str, Any]) -> Any:
    graph = StateGraph(State)
    before = START
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph.compile()


def test_subgraphs_that_build_their_own_clients(seen: Any) -> None:
    inner = line(("a", ask(seen)), ("b", ask(seen)))

    def calls_a_graph(state: State) -> dict[str, Any]:
        return {"answer": str(inner.invoke({"q": state["q"]})["parts"])}

    graph = line(("plan", ask(seen)), ("child", inner), ("invoked", calls_a_graph))
    for tenant in ("acme", "globex"):
        with attribkit.attributed(tenant_id=tenant):
            graph.invoke({"q": f"[tenant={tenant}] hi"})
    check(seen, {"acme": 5, "globex": 5})


def test_tenants_interleaved_async(seen: Any) -> None:
    graph = line(("one", aask(seen)), ("sub", line(("two", aask(seen)))), ("three", aask(seen)))

    @attribkit.entrypoint("support", tenant_id="tenant")
    async def handle(tenant: str) -> None:
        await graph.ainvoke({"q": f"[tenant={tenant}] hi"})

    async def main() -> None:
        await asyncio.gather(*[handle(tenant) for tenant in ("acme", "globex", "initech") for _ in range(3)])

    asyncio.run(main())
    check(seen, {"acme": 9, "globex": 9, "initech": 9})
    assert len({record.attribution.workflow_id for record in seen.records}) == 9
    workflows = [span for span in seen.spans() if span.name == "invoke_workflow support"]
    assert len(workflows) == 9


def test_config_metadata_is_adopted_in_every_node(seen: Any) -> None:
    graph = line(("one", ask(seen)), ("sub", line(("two", ask(seen)))))
    graph.invoke({"q": "[tenant=acme] hi"}, config={"metadata": {"tenant_id": "acme", "workflow": "triage"}})
    check(seen, {"acme": 2})
    assert {record.hop for record in seen.records} == {"adopted"}


def test_agent_with_a_tool_that_calls_a_model(seen: Any) -> None:
    agents = pytest.importorskip("langchain.agents")
    if not hasattr(agents, "create_agent"):
        pytest.skip("LangChain 1.x has create_agent")

    @tool
    def summarize(text: str) -> str:
        """Summarise a text."""
        model = chat(seen, "gpt-4.1-mini")
        return str(model.invoke("Summarise: " + text).content)

    async def one(tenant: str) -> None:
        with attribkit.attributed(tenant_id=tenant):
            agent = agents.create_agent(chat(seen), [summarize])
            await agent.ainvoke({"messages": [("user", f"[tenant={tenant}] please")]})

    async def main() -> None:
        await asyncio.gather(one("acme"), one("globex"))

    asyncio.run(main())
    check(seen, {"acme": 3, "globex": 3})


def test_parallel_branches_and_send(seen: Any) -> None:
    from langgraph.types import Send

    graph = StateGraph(State)
    graph.add_node("work", ask(seen))
    graph.add_conditional_edges(START, lambda state: [Send("work", {"q": state["q"]}) for _ in range(4)], ["work"])
    graph.add_edge("work", END)
    with attribkit.attributed(tenant_id="acme"):
        graph.compile().invoke({"q": "[tenant=acme] hi"})
    check(seen, {"acme": 4})
