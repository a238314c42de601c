"""LangGraph: nodes and subgraphs, parallel branches, tools, streams, and runs that pause and go on elsewhere."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Annotated, Any, TypedDict

from attribkit.context import attributed
from attribkit.verify.asking import message
from attribkit.verify.lab import Lab
from attribkit.verify.probe import Group
from attribkit.verify.probes.langchain import model, warm

__all__ = ["GROUP"]


def _prepare() -> None:

    warm()
    _graph(_ask)


GROUP = Group(
    "langgraph",
    "LangGraph",
    needs=("openai>=1.40", "langchain-core>=0.3", "langchain-openai>=0.2", "langgraph>=0.3"),
    extra="langgraph",
    relies=("openai",),
    remedy="open the scope around the run: with attribkit.attributed(tenant_id=...): graph.invoke(...)",
    prepare=_prepare,
)


class _State(TypedDict, total=False):
    question: str
    answer: str
    parts: Annotated[list[str], operator.add]


def _ask(state: Any) -> dict[str, Any]:
    return {"answer": model().invoke(state["question"]).content}


async def _aask(state: Any) -> dict[str, Any]:
    return {"answer": (await model().ainvoke(state["question"])).content}


def _graph(*steps: Any, checkpointer: Any = None) -> Any:
    """Return a graph of `steps` one after the other."""
    from langgraph.graph import END, START, StateGraph

    made: Any = StateGraph(_State)
    before = START
    for number, step in enumerate(steps):
        name = f"step{number}"
        made.add_node(name, step)
        made.add_edge(before, name)
        before = name
    made.add_edge(before, END)
    return made.compile(checkpointer=checkpointer)


def _later(work: Callable[[], Any]) -> None:
    """Do `work` as a later request would: in a new thread, with nothing of this one's context."""
    problem: list[BaseException] = []

    def run() -> None:
        try:
            Context().run(work)
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run)
    Context().run(thread.start)
    thread.join()
    if problem:
        raise problem[0]


@GROUP.probe("sync nodes")
def sync_nodes(lab: Lab) -> None:
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            _graph(_ask, _ask).invoke({"question": tenant.ask(requests=2)})


@GROUP.probe("async nodes")
async def async_nodes(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        await _graph(_aask, _aask).ainvoke({"question": tenant.ask(requests=2)})


@GROUP.probe("a subgraph as a node")
def subgraph(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        _graph(_ask, _graph(_ask, _ask)).invoke({"question": tenant.ask(requests=3)})


@GROUP.probe("a subgraph invoked inside a node")
def subgraph_in_node(lab: Lab) -> None:
    def node(state: Any) -> dict[str, Any]:
        return {"answer": _graph(_ask).invoke({"question": state["question"]})["answer"]}

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        _graph(node).invoke({"question": tenant.ask()})


@GROUP.probe("a node that makes its client with headers of its own")
def own_headers(lab: Lab) -> None:
    def node(state: Any) -> dict[str, Any]:
        made = model(default_headers={"x-component": "writer-17"}, callbacks=[])
        return {"answer": made.invoke(state["question"]).content}

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        _graph(node).invoke({"question": tenant.ask(keep=("writer-17",))})


@GROUP.probe("parallel branches")
def branches(lab: Lab) -> None:
    from langgraph.graph import START, StateGraph

    def part(state: Any) -> dict[str, Any]:
        return {"parts": [model().invoke(state["question"]).content]}

    made: Any = StateGraph(_State)
    for name in ("one", "two", "three"):
        made.add_node(name, part)
        made.add_edge(START, name)
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        made.compile().invoke({"question": tenant.ask(requests=3)})


@GROUP.probe("Send, map and reduce")
def send(lab: Lab) -> None:
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send

    def work(state: Any) -> dict[str, Any]:
        return {"parts": [model().invoke(state["question"]).content]}

    made: Any = StateGraph(_State)
    made.add_node("work", work)
    made.add_node("reduce", _ask)
    made.add_conditional_edges(
        START, lambda state: [Send("work", {"question": state["question"]}) for _ in range(3)], ["work"]
    )
    made.add_edge("work", "reduce")
    made.add_edge("reduce", END)
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        made.compile().invoke({"question": tenant.ask(requests=4)})


@GROUP.probe("Command, a hand-off between agents")
def command(lab: Lab) -> None:
    from langgraph.graph import START, StateGraph
    from langgraph.types import Command

    def triage(state: Any) -> Any:
        model().invoke(state["question"])
        return Command(goto="billing")

    made: Any = StateGraph(_State)
    made.add_node("triage", triage, destinations=("billing",))
    made.add_node("billing", _ask)
    made.add_edge(START, "triage")
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        made.compile().invoke({"question": tenant.ask(requests=2)})


@GROUP.probe("functional API: tasks of an entrypoint")
def functional(lab: Lab) -> None:
    from langgraph.func import entrypoint, task

    @task
    def draft(question: str) -> Any:
        return model().invoke(question).content

    @entrypoint()
    def flow(question: str) -> Any:
        return [future.result() for future in [draft(question) for _ in range(3)]]

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        flow.invoke(tenant.ask(requests=3))


@GROUP.probe("ToolNode, parallel tool calls")
def tool_node(lab: Lab) -> None:
    from langchain_core.messages import AIMessage
    from langchain_core.tools import tool
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    @tool
    def analyse(text: str) -> str:
        """Analyse a text."""
        return str(model().invoke(text).content)

    made: Any = StateGraph(MessagesState)
    made.add_node("tools", ToolNode([analyse]))
    made.add_edge(START, "tools")
    tenant = lab.tenant()
    text = tenant.ask(requests=3)
    calls = [{"name": "analyse", "args": {"text": text}, "id": f"call{number}"} for number in range(3)]
    with attributed(**tenant.fields):
        made.compile().invoke({"messages": [AIMessage("", tool_calls=calls)]})


@GROUP.probe("stream, read in the scope")
def stream(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        for mode in ("updates", "values", "messages"):
            for _ in _graph(_ask).stream({"question": tenant.ask()}, stream_mode=mode):
                pass


@GROUP.probe("streams of two tenants, drained after their scopes", relies=("langgraph",))
def stream_outside(lab: Lab) -> None:
    made, graph = [], _graph(_ask, _ask)
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            made.append(graph.stream({"question": tenant.ask(requests=2)}, stream_mode="updates"))
    for chunks in made:
        for _ in chunks:
            pass


@GROUP.probe("astream of two tenants, pulled in turn after their scopes")  # either group carries it, asyncio's or ours
async def astream_outside(lab: Lab) -> None:
    made, graph = [], _graph(_aask, _aask)
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            made.append(graph.astream({"question": tenant.ask(requests=2)}, stream_mode="updates"))
    for _ in range(2):
        for chunks in made:
            await anext(chunks)
    for chunks in made:
        async for _ in chunks:
            pass


@GROUP.probe("interrupt, resumed in another thread with no scope open", relies=("langgraph",))
def interrupt(lab: Lab) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command, interrupt

    def gate(state: Any) -> dict[str, Any]:
        return {"answer": interrupt("approve?")}

    graph = _graph(_ask, gate, _ask, checkpointer=InMemorySaver())
    for tenant in lab.tenants(2):
        config = {"configurable": {"thread_id": tenant.workflow_id}}
        with attributed(**tenant.fields):
            graph.invoke({"question": tenant.ask(requests=2)}, config=config)
        _later(lambda config=config: graph.invoke(Command(resume="yes"), config=config))  # type: ignore[misc]


@GROUP.probe("a node with a retry policy")
def retry_policy(lab: Lab) -> None:
    from langgraph.graph import START, StateGraph
    from langgraph.types import RetryPolicy

    tried = []

    def node(state: Any) -> dict[str, Any]:
        model().invoke(state["question"])
        tried.append(state)
        if len(tried) < 2:
            raise ConnectionError("once")
        return {"answer": "done"}

    made: Any = StateGraph(_State)
    policy = RetryPolicy(initial_interval=0.01, jitter=False)
    try:
        made.add_node("node", node, retry_policy=policy)
    except TypeError:  # LangGraph before 0.5
        made.add_node("node", node, retry=policy)
    made.add_edge(START, "node")
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        made.compile().invoke({"question": tenant.ask(requests=2)})


@GROUP.probe("a checkpointed run, gone on in a later request's scope")
def second_turn(lab: Lab) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    graph = _graph(_ask, checkpointer=InMemorySaver())
    for tenant in lab.tenants(2):
        config = {"configurable": {"thread_id": tenant.workflow_id}}
        with attributed(**tenant.fields):
            graph.invoke({"question": tenant.ask()}, config=config)
        with attributed(**tenant.fields):
            graph.invoke({"question": tenant.ask()}, config=config)


@GROUP.probe("batch of a graph")
def batch(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        _graph(_ask).batch([{"question": tenant.ask()} for _ in range(3)])


@GROUP.probe("MessagesState with a model node, tenants at once")
def messages(lab: Lab) -> None:
    from langgraph.graph import START, MessagesState, StateGraph

    made: Any = StateGraph(MessagesState)
    made.add_node("model", lambda state: {"messages": [model().invoke(state["messages"])]})
    made.add_edge(START, "model")
    graph = made.compile()

    def serve(tenant: Any) -> None:
        with attributed(**tenant.fields):
            graph.invoke({"messages": message(tenant.ask())})

    started = [threading.Thread(target=serve, args=(tenant,)) for tenant in lab.tenants(2)]
    for one in started:
        one.start()
    for one in started:
        one.join()
