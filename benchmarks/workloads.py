"""What is measured. A workload is prepared once and then run in blocks of so many units: model calls, or graph runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypedDict

from gateway import BASE_URL, MESSAGES, MODEL, Provider

Block = Callable[[int], None]
"""Runs that many units."""


class Workload(NamedTuple):
    title: str
    unit: str
    prepare: Callable[[Any], Block]
    timed: int
    """Units in a block when time is measured."""
    counted: int
    """Units in a block when instructions are counted, which is 50 times slower."""
    scoped: bool = True
    """Whether the blocks run in a scope."""


def _settings() -> dict[str, Any]:
    return {"api_key": "none", "base_url": BASE_URL, "max_retries": 0}


def _chat(subject: Any) -> Block:
    create = subject.openai().OpenAI(http_client=Provider().client(), **_settings()).chat.completions.create

    def block(units: int) -> None:
        for _ in range(units):
            create(model=MODEL, messages=MESSAGES)

    return block


def _gathered(subject: Any) -> Block:
    client = subject.openai().AsyncOpenAI(http_client=Provider().async_client(), **_settings())
    loop = asyncio.new_event_loop()

    async def at_once(units: int) -> None:
        await asyncio.gather(*[client.chat.completions.create(model=MODEL, messages=MESSAGES) for _ in range(units)])

    def block(units: int) -> None:
        loop.run_until_complete(at_once(units))

    return block


def _stream(subject: Any) -> Block:
    create = subject.openai().OpenAI(http_client=Provider().client(), **_settings()).chat.completions.create

    def block(units: int) -> None:
        for _ in range(units):
            for _chunk in create(model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}):
                pass

    return block


def _responses(subject: Any) -> Block:
    create = subject.openai().OpenAI(http_client=Provider().client(), **_settings()).responses.create

    def block(units: int) -> None:
        for _ in range(units):
            create(model=MODEL, input=MESSAGES[1]["content"])

    return block


def _model() -> Any:
    from langchain_openai import ChatOpenAI

    provider = Provider()
    return ChatOpenAI(
        model=MODEL, http_client=provider.client(), http_async_client=provider.async_client(), **_settings()
    )


def _chat_openai(subject: Any) -> Block:
    model, config = _model(), subject.langchain_config()
    messages = [("system", MESSAGES[0]["content"]), ("human", MESSAGES[1]["content"])]

    def block(units: int) -> None:
        for _ in range(units):
            model.invoke(messages, config=config)

    return block


def _langgraph(subject: Any) -> Block:
    from langgraph.graph import END, START, StateGraph
    from langgraph.graph.message import add_messages

    State = TypedDict("State", {"messages": Annotated[list[Any], add_messages]})  # noqa: UP013
    model, config = _model(), subject.langchain_config()

    def ask(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"][-1:])]}

    inner = StateGraph(State)
    inner.add_node("answer", ask)
    inner.add_edge(START, "answer")
    inner.add_edge("answer", END)
    outer = StateGraph(State)
    outer.add_node("plan", ask)
    outer.add_node("subgraph", inner.compile())
    outer.add_node("check", ask)
    outer.add_edge(START, "plan")
    outer.add_edge("plan", "subgraph")
    outer.add_edge("subgraph", "check")
    outer.add_edge("check", END)
    graph = outer.compile()

    def block(units: int) -> None:
        for _ in range(units):
            graph.invoke({"messages": [("human", MESSAGES[1]["content"])]}, config=config)

    return block


os.environ.setdefault("LANGSMITH_TRACING", "false")

WORKLOADS = {
    "chat": Workload("chat.completions.create", "call", _chat, 200, 100),
    "async": Workload("100 of them gathered", "call", _gathered, 100, 100),
    "stream": Workload("streamed, 100 chunks", "stream", _stream, 20, 10),
    "responses": Workload("responses.create", "call", _responses, 100, 100),
    "chatopenai": Workload("ChatOpenAI.invoke", "call", _chat_openai, 100, 100),
    "langgraph": Workload("LangGraph, 3 calls in 3 nodes", "run", _langgraph, 20, 20),
}
