"""Streams of events in their third version: kept in their scope, and metered once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import attribkit

pytest.importorskip("langchain_openai")
pytest.importorskip("langchain_core.language_models.chat_model_stream")

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI

_timeouts = itertools.count(11060)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*v3"),
    pytest.mark.filterwarnings("ignore:The .* is in beta"),
    pytest.mark.filterwarnings("ignore:The v3 streaming protocol"),
]


class House(BaseChatModel):
    model: str = "gpt-4.1-mini"

    @property
    def _llm_type(self) -> str:
        return "house"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        yield ChatGenerationChunk(message=AIMessageChunk(content="a few"))
        usage = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
        yield ChatGenerationChunk(message=AIMessageChunk(content=" words", usage_metadata=usage))


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def gpt(seen: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-5-mini", api_key="k", base_url=seen.base_url, timeout=next(_timeouts), stream_usage=True
    )


def test_made_in_a_scope_and_pulled_outside(seen: Any) -> None:
    made = []
    for tenant in ("acme", "globex"):
        with attribkit.attributed(tenant_id=tenant):
            made += [gpt(seen).stream_events("hi", version="v3"), House().stream_events("hi", version="v3")]
    for stream in made:
        assert stream.output.content
        assert not attribkit.current()
    check(seen)


def test_async(seen: Any) -> None:
    async def main() -> None:
        made = []
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                made += [gpt(seen).astream_events("hi", version="v3"), House().astream_events("hi", version="v3")]
        for stream in [await each for each in made]:
            assert (await stream.output).content
            assert not attribkit.current()

    asyncio.run(main())
    check(seen)


def check(seen: Any) -> None:
    told = [(record.client, record.attribution.tenant_id, record.cost.status) for record in seen.records]
    assert sorted(told) == [
        ("langchain", "acme", "priced"),
        ("langchain", "globex", "priced"),
        ("openai", "acme", "priced"),
        ("openai", "globex", "priced"),
    ]
    assert [request.attribution["tenant_id"] for request in seen.requests()] == ["acme", "globex"]
    assert len(seen.call_spans()) == 4


def test_a_graphs_events(seen: Any) -> None:
    graphs = pytest.importorskip("langgraph.graph")
    from typing import TypedDict

    class State(TypedDict, total=False):
        q: str
        answer: str

    graph = graphs.StateGraph(State)
    graph.add_node("far", lambda state: {"answer": gpt(seen).invoke(state["q"]).content})
    graph.add_node("near", lambda state: {"answer": House().invoke(state["q"]).content})
    graph.add_edge(graphs.START, "far")
    graph.add_edge("far", "near")
    compiled = graph.compile()
    if not hasattr(compiled, "_pregel_stream_v3"):
        pytest.skip("this LangGraph has no third version")
    made = []
    for tenant in ("acme", "globex"):
        with attribkit.attributed(tenant_id=tenant):
            made.append(compiled.stream_events({"q": "hi"}, version="v3"))
    for run in made:
        assert run.output
        assert not attribkit.current()
    check(seen)
