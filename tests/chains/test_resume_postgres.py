"""A run that is resumed from a real PostgreSQL server, sync and async."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest

import attribkit

pytest.importorskip("langgraph.checkpoint.postgres")
pytest.importorskip("langchain_openai")

from budgets import servers
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

_timeouts = itertools.count(8060)

pytestmark = [
    pytest.mark.counterpart,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class State(TypedDict, total=False):
    q: str
    answer: str


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if servers.found("postgresql") is None:
        why = "no postgresql server here: run tests/counterparts/install.sh"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with servers.postgresql_server(Path(tmp_path_factory.mktemp("postgresql"))) as running:
        yield running


def approval(seen: Any, saver: Any) -> Any:
    def ask(state: State) -> dict[str, Any]:
        model = ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=seen.base_url, timeout=next(_timeouts))
        return {"answer": str(model.invoke(state["q"]).content)}

    graph = StateGraph(State)
    graph.add_node("draft", ask)
    graph.add_node("gate", lambda state: {"answer": str(interrupt("approve?"))})
    graph.add_node("send", ask)
    for before, after in itertools.pairwise((START, "draft", "gate", "send", END)):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


def thread(tenant: str) -> Any:
    return {"configurable": {"thread_id": tenant}}


def test_resumed_from_postgresql(observe: Any, url: str) -> None:
    seen = observe()
    for tenant in ("acme", "globex"):
        with PostgresSaver.from_conn_string(url) as saver, attribkit.attributed(tenant_id=tenant, region_code="eu"):
            saver.setup()
            approval(seen, saver).invoke({"q": "hi"}, config=thread(tenant))
    for tenant in ("globex", "acme"):
        with PostgresSaver.from_conn_string(url) as saver:
            graph = approval(seen, saver)
            graph.update_state(thread(tenant), {"q": "shorter"}, as_node="gate")
            graph.invoke(None, config=thread(tenant))
    assert [record.attribution.tenant_id for record in seen.records] == ["acme", "globex", "globex", "acme"]
    assert [record.hop for record in seen.records] == ["inherited"] * 2 + ["restored"] * 2
    assert seen.records[3].attribution.get("region_code") == "eu"


def test_resumed_from_postgresql_async(observe: Any, url: str) -> None:
    seen = observe()

    async def one(tenant: str | None, given: Any, name: str) -> None:
        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.setup()
            with attribkit.attributed(tenant_id=tenant):
                await approval(seen, saver).ainvoke(given, config=thread(name))

    asyncio.run(one("initech", {"q": "hi"}, "a"))
    asyncio.run(one(None, Command(resume="yes"), "a"))
    assert [record.attribution.tenant_id for record in seen.records] == ["initech", "initech"]
