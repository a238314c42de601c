"""A graph that was interrupted under one scope and goes on elsewhere: its checkpoints say who it is for."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from pathlib import Path
from typing import Any, TypedDict

import pytest

import attribkit
from attribkit import context

pytest.importorskip("langgraph")
pytest.importorskip("langchain_openai")

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

_timeouts = itertools.count(2060)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class State(TypedDict, total=False):
    q: str
    answer: str


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def chat(seen: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=seen.base_url, timeout=next(_timeouts))


def approval(seen: Any, saver: Any, *, asynchronous: bool = False) -> Any:
    """A mail is drafted, a person approves it, it is sent."""

    def ask(state: State) -> dict[str, Any]:
        return {"answer": str(chat(seen).invoke(state["q"]).content)}

    async def aask(state: State) -> dict[str, Any]:
        return {"answer": str((await chat(seen).ainvoke(state["q"])).content)}

    def gate(state: State) -> dict[str, Any]:
        return {"answer": str(interrupt("approve?"))}

    graph = StateGraph(State)
    graph.add_node("draft", aask if asynchronous else ask)
    graph.add_node("gate", gate)
    graph.add_node("send", aask if asynchronous else ask)
    for before, after in itertools.pairwise((START, "draft", "gate", "send", END)):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


def thread(name: str, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": name}, **more}


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run `work` as a later request on another thread does: nothing is inherited."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(Context().run(work))
        except BaseException as error:
            result.append(error)

    worker = threading.Thread(target=run)
    Context().run(worker.start)
    worker.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


@contextmanager
def memory(_: Path) -> Iterator[Any]:
    yield MemorySaver()


@contextmanager
def sqlite(folder: Path) -> Iterator[Any]:
    module = pytest.importorskip("langgraph.checkpoint.sqlite")
    with module.SqliteSaver.from_conn_string(str(folder / "threads.db")) as saver:
        yield saver


@asynccontextmanager
async def async_sqlite(folder: Path) -> Any:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(folder / "threads.db")) as saver:
        yield saver


@asynccontextmanager
async def async_memory(_: Path) -> Any:
    yield MemorySaver()


def fields(seen: Any) -> list[dict[str, str]]:
    return [dict(record.attribution.fields) for record in seen.records]


def tenants(seen: Any) -> list[str | None]:
    """Return the tenants on the wire; rows must say the same."""
    wire = [request.attribution.get("tenant_id") for request in seen.requests()]
    assert [record.attribution.tenant_id for record in seen.records] == wire
    return wire


@pytest.mark.parametrize("opened", [memory, sqlite])
def test_resumed_on_another_thread(seen: Any, tmp_path: Path, opened: Any) -> None:
    with opened(tmp_path) as saver:
        graph = approval(seen, saver)
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant, workflow="mail", workflow_id=f"w-{tenant}", region_code="eu"):
                graph.invoke({"q": "hi"}, config=thread(tenant))
        for tenant in ("globex", "acme"):
            done = elsewhere(lambda tenant=tenant: graph.invoke(Command(resume="yes"), config=thread(tenant)))
            assert done["answer"]
    assert tenants(seen) == ["acme", "globex", "globex", "acme"]
    assert [record.hop for record in seen.records] == ["inherited"] * 2 + ["restored"] * 2
    assert fields(seen)[2] == fields(seen)[1]
    assert fields(seen)[3]["region_code"] == "eu"


@pytest.mark.parametrize("opened", [async_memory, async_sqlite])
def test_resumed_in_another_event_loop(seen: Any, tmp_path: Path, opened: Any) -> None:
    if opened is async_sqlite:
        pytest.importorskip("langgraph.checkpoint.sqlite.aio")
    kept: list[Any] = []

    async def first() -> None:
        async with opened(tmp_path) as saver:
            kept.append(saver)
            graph = approval(seen, saver, asynchronous=True)

            async def one(tenant: str) -> None:
                with attribkit.attributed(tenant_id=tenant, workflow="mail"):
                    await graph.ainvoke({"q": "hi"}, config=thread(tenant))

            await asyncio.gather(one("acme"), one("globex"))

    async def second() -> None:
        async with opened(tmp_path) as saver:
            graph = approval(seen, kept[0] if opened is async_memory else saver, asynchronous=True)

            async def one(tenant: str) -> None:
                async for _ in graph.astream(Command(resume="yes"), config=thread(tenant)):
                    assert not attribkit.current()
                    await asyncio.sleep(0)

            await asyncio.gather(one("acme"), one("globex"))
            assert not attribkit.current()

    asyncio.run(first())
    asyncio.run(second())
    assert sorted(map(str, tenants(seen))) == ["acme", "acme", "globex", "globex"]
    assert [record.hop for record in seen.records] == ["inherited"] * 2 + ["restored"] * 2


def test_resumed_in_another_process(seen: Any, tmp_path: Path) -> None:
    with sqlite(tmp_path) as saver, attribkit.attributed(tenant_id="acme", workflow="mail"):
        approval(seen, saver).invoke({"q": "hi"}, config=thread("t"))
    script = Path(__file__).with_name("resuming.py")
    done = subprocess.run(
        [sys.executable, str(script), seen.gateway.url, str(tmp_path / "threads.db"), "t"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [request.attribution.get("tenant_id") for request in seen.requests()] == ["acme", "acme"]
    assert seen.requests()[1].attribution["workflow"] == "mail"


def test_a_stream_that_resumes_does_not_leak_what_it_restores(seen: Any) -> None:
    graph = approval(seen, MemorySaver())
    with attribkit.attributed(tenant_id="acme"):
        graph.invoke({"q": "hi"}, config=thread("t"))
    for _ in graph.stream(Command(resume="yes"), config=thread("t")):
        assert not attribkit.current()
    assert not attribkit.current()
    assert tenants(seen) == ["acme", "acme"]


def test_a_scope_of_the_same_tenant_wins_for_the_fields_it_has(seen: Any) -> None:
    graph = approval(seen, MemorySaver())
    with attribkit.attributed(tenant_id="acme", workflow="mail", feature="draft", user_id="u1"):
        graph.invoke({"q": "hi"}, config=thread("t"))
    with attribkit.attributed(tenant_id="acme", workflow="approve", user_id="operator"):
        graph.invoke(Command(resume="yes"), config=thread("t"))
    assert fields(seen)[1] == {"tenant_id": "acme", "workflow": "approve", "feature": "draft", "user_id": "operator"}


def test_a_scope_of_another_tenant_competes_and_the_thread_stays_whose_it_was(seen: Any) -> None:
    graph = approval(seen, MemorySaver())
    with attribkit.attributed(tenant_id="acme"):
        graph.invoke({"q": "hi"}, config=thread("t"))
    before = context.conflicts()
    with attribkit.attributed(tenant_id="globex", workflow="approve"):
        graph.invoke(Command(resume="yes"), config=thread("t"))
    assert tenants(seen) == ["acme", None]
    assert seen.records[1].hop == "none"
    assert context.conflicts() == before + 1
    assert "acme" in graph.get_state(thread("t")).metadata["attribkit"]


@pytest.mark.parametrize("scope", ["globex", None])
def test_the_resumes_own_metadata_is_surest(seen: Any, scope: str | None) -> None:
    graph = approval(seen, MemorySaver())
    with attribkit.attributed(tenant_id="acme", feature="draft"):
        graph.invoke({"q": "hi"}, config=thread("t"))
    before = context.conflicts()
    with attribkit.attributed(tenant_id=scope):
        graph.invoke(Command(resume="yes"), config=thread("t", metadata={"tenant_id": "globex"}))
    assert tenants(seen) == ["acme", "globex"]
    assert context.conflicts() == before
    assert fields(seen)[1] == {"tenant_id": "globex"}


def test_config_metadata_of_the_first_run_rides_too(seen: Any) -> None:
    graph = approval(seen, MemorySaver())
    given = thread("t", metadata={"tenant_id": "acme", "workflow": "mail", "release": "r9"})
    graph.invoke({"q": "hi"}, config=given)
    given["metadata"].pop("thread_id", None)  # LangGraph 0.3 puts it there
    assert given == thread("t", metadata={"tenant_id": "acme", "workflow": "mail", "release": "r9"})
    elsewhere(lambda: graph.invoke(Command(resume="yes"), config=thread("t")))
    assert tenants(seen) == ["acme", "acme"]
    assert [record.hop for record in seen.records] == ["adopted", "restored"]
    metadata = graph.get_state(thread("t")).metadata
    assert "acme" in metadata["attribkit"]


def test_new_input_on_a_thread_is_a_request_of_its_own(seen: Any) -> None:
    graph = approval(seen, MemorySaver())
    with attribkit.attributed(tenant_id="acme"):
        graph.invoke({"q": "hi"}, config=thread("t"))
    graph.invoke({"q": "again"}, config=thread("t"))
    graph.invoke(Command(resume="yes"), config=thread("t"))
    assert tenants(seen) == ["acme", None, None]


def test_an_edited_state_still_knows_its_run(seen: Any) -> None:
    graph = approval(seen, MemorySaver())
    with attribkit.attributed(tenant_id="acme"):
        graph.invoke({"q": "hi"}, config=thread("t"))
    for text in ("shorter", "shorter still"):
        graph.update_state(thread("t"), {"q": text}, as_node="gate")
    elsewhere(lambda: graph.invoke(None, config=thread("t")))
    assert tenants(seen) == ["acme", "acme"]
    assert b"shorter still" in seen.requests()[1].body

    async def asynchronous() -> None:
        graph = approval(seen, MemorySaver(), asynchronous=True)
        with attribkit.attributed(tenant_id="globex"):
            await graph.ainvoke({"q": "hi"}, config=thread("a"))
        await graph.aupdate_state(thread("a"), {"q": "shorter"}, as_node="gate")
        await graph.ainvoke(None, config=thread("a"))
        assert not attribkit.current()

    asyncio.run(asynchronous())
    assert tenants(seen)[2:] == ["globex", "globex"]


def test_time_travel_takes_the_attribution_of_where_it_goes(seen: Any) -> None:
    graph = approval(seen, MemorySaver())
    with attribkit.attributed(tenant_id="acme", workflow="one"):
        graph.invoke({"q": "one"}, config=thread("t"))
    with attribkit.attributed(tenant_id="acme", workflow="two"):
        graph.invoke({"q": "two"}, config=thread("t"))
    history = [state for state in graph.get_state_history(thread("t")) if state.next == ("draft",)]
    elsewhere(lambda: graph.invoke(None, config=history[-1].config))
    assert [each["workflow"] for each in fields(seen)] == ["one", "two", "one"]


def test_checkpoints_of_a_time_without_attribkit_load(seen: Any, gateway: Any) -> None:
    saver = MemorySaver()
    graph = approval(seen, saver)
    attribkit.uninstrument()
    graph.invoke({"q": "hi"}, config=thread("t"))
    assert "attribkit" not in graph.get_state(thread("t")).metadata
    attribkit.instrument(ledger=seen, gateways={gateway.url: "portkey"})
    graph.invoke(Command(resume="yes"), config=thread("t"))
    assert [record.attribution.tenant_id for record in seen.records] == [None]


@pytest.mark.parametrize("text", ["", "{", "[]", '"acme"', 7, None, '{"tenant_id": null}'])
def test_a_spoilt_key_is_no_attribution(seen: Any, text: Any) -> None:
    graph = approval(seen, MemorySaver())
    graph.invoke({"q": "hi"}, config=thread("t", metadata={"attribkit": text}))
    graph.invoke(Command(resume="yes"), config=thread("t"))
    assert tenants(seen) == [None, None]


def test_without_a_checkpointer_nothing_is_written(seen: Any) -> None:
    graph = StateGraph(State)
    graph.add_node("ask", lambda state: {"answer": str(chat(seen).invoke(state["q"]).content)})
    graph.add_edge(START, "ask")
    with attribkit.attributed(tenant_id="acme"):
        parts = list(graph.compile().stream({"q": "hi"}, stream_mode="debug"))
    assert "attribkit" not in str(parts)
    assert tenants(seen) == ["acme"]


def test_functional_api(seen: Any) -> None:
    from langgraph.func import entrypoint, task

    @task
    def draft(text: str) -> str:
        return str(chat(seen).invoke(text).content)

    @entrypoint(checkpointer=MemorySaver())
    def flow(text: str) -> str:
        draft(text).result()
        approved = interrupt("approve?")
        return draft(f"{text} {approved}").result()

    with attribkit.attributed(tenant_id="acme"):
        flow.invoke("hi", config=thread("t"))
    elsewhere(lambda: flow.invoke(Command(resume="yes"), config=thread("t")))
    assert tenants(seen) == ["acme", "acme"]


def test_an_interrupt_inside_a_subgraph(seen: Any) -> None:
    inner = approval(seen, None)
    graph = StateGraph(State)
    graph.add_node("inner", inner)
    graph.add_edge(START, "inner")
    outer = graph.compile(checkpointer=MemorySaver())
    with attribkit.attributed(tenant_id="acme"):
        outer.invoke({"q": "hi"}, config=thread("t"))
    elsewhere(lambda: outer.invoke(Command(resume="yes"), config=thread("t")))
    assert tenants(seen) == ["acme", "acme"]


def test_a_resume_that_fails_leaves_nothing_behind(seen: Any) -> None:
    def broken(state: State) -> dict[str, Any]:
        interrupt("approve?")
        raise ValueError(attribkit.current().tenant_id)

    graph = StateGraph(State)
    graph.add_node("broken", broken)
    graph.add_edge(START, "broken")
    compiled = graph.compile(checkpointer=MemorySaver())
    with attribkit.attributed(tenant_id="acme"):
        compiled.invoke({"q": "hi"}, config=thread("t"))
    with pytest.raises(ValueError, match="acme"):
        compiled.invoke(Command(resume="yes"), config=thread("t"))
    assert not attribkit.current()
