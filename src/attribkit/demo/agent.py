"""A support agent as teams write them: a LangGraph graph, two subgraphs of other teams, a tool, a fan-out, a stream.

This is the agent that `attribkit demo` runs twice. What it does about attribution by itself is what many applications
do: it tags the client that it builds for a request (`tagged`), and puts tenant and workflow into the run's config. The
two subgraphs and the tool belong to other teams, who build their own clients: nothing reaches those.

The two lines that attribkit asks for are the `@attribkit.entrypoint` ones; `attribkit.instrument()` is called, or not,
by whoever runs this.
"""

from __future__ import annotations

import asyncio
import json
import operator
from typing import Annotated, Any, NamedTuple, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition

import attribkit

__all__ = ["Customer", "Models", "models", "refund", "support"]


class Customer(NamedTuple):
    """Whom the agent works for."""

    tenant_id: str
    name: str


class Models:
    """Which models the agent uses."""

    main = "gpt-5-mini"
    second = "gpt-4.1-mini"


models = Models()


def tagged(customer: Customer, workflow: str) -> ChatOpenAI:
    """The application's own way: a client for this request, with headers for the gateway."""
    metadata = json.dumps({"tenant_id": customer.tenant_id, "workflow": workflow})
    return ChatOpenAI(model=models.main, default_headers={"x-portkey-metadata": metadata})


# -- the knowledge team's subgraph: it builds its own client inside the node, and has a tool that calls a second model


@tool
async def search_handbook(question: str) -> str:
    """Search the support handbook and return what it says."""
    found = f"Section 4.2 (delivery), section 7 (refunds), section 9 (escalation) on: {question}"
    summary = await ChatOpenAI(model=models.second).ainvoke(f"Summarise for an agent in a hurry:\n{found}")
    return str(summary.content)


class Research(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


async def look_it_up(state: Research) -> dict[str, Any]:
    model = ChatOpenAI(model=models.main).bind_tools([search_handbook])
    return {"messages": [await model.ainvoke(state["messages"])]}


def knowledge_graph() -> Any:
    graph = StateGraph(Research)
    graph.add_node("look_it_up", look_it_up)
    graph.add_node("tools", ToolNode([search_handbook]))
    graph.add_edge(START, "look_it_up")
    graph.add_conditional_edges("look_it_up", tools_condition, {"tools": "tools", END: END})
    graph.add_edge("tools", "look_it_up")
    return graph.compile()


# -- the writing team's subgraph: it shares the parent's state, builds its own client, and streams


class Case(TypedDict):
    customer: Customer
    workflow: str
    question: str
    notes: Annotated[list[str], operator.add]
    answer: str


async def write(state: Case) -> dict[str, Any]:
    prompt = f"Write the reply to: {state['question']}\nNotes:\n" + "\n".join(state["notes"])
    return {"answer": "".join([str(part.content) async for part in ChatOpenAI(model=models.main).astream(prompt)])}


def writing_graph() -> Any:
    graph = StateGraph(Case)
    graph.add_node("write", write)
    graph.add_edge(START, "write")
    graph.add_edge("write", END)
    return graph.compile()


# -- the parent graph


async def triage(state: Case) -> dict[str, Any]:
    model = tagged(state["customer"], state["workflow"])
    reply = await model.ainvoke(f"Classify by urgency and product:\n{state['question']}")
    return {"notes": [f"Triage: {reply.content}"]}


async def research(state: Case) -> dict[str, Any]:
    found = await knowledge_graph().ainvoke({"messages": [HumanMessage(state["question"])]})
    return {"notes": [f"Handbook: {found['messages'][-1].content}"]}


async def check(state: Case) -> dict[str, Any]:
    model = tagged(state["customer"], state["workflow"])
    asked = ("Is it covered by the contract?", "Does it need a person?", "Which tone fits?")
    replies = await asyncio.gather(*(model.ainvoke(f"{ask}\n{state['question']}") for ask in asked))
    return {"notes": [f"{ask} {reply.content}" for ask, reply in zip(asked, replies, strict=True)]}


def support_graph() -> Any:
    graph = StateGraph(Case)
    graph.add_node("triage", triage)
    graph.add_node("research", research)
    graph.add_node("check", check)
    graph.add_node("write", writing_graph())
    graph.add_edge(START, "triage")
    graph.add_edge("triage", "research")
    graph.add_edge("triage", "check")
    graph.add_edge(["research", "check"], "write")
    graph.add_edge("write", END)
    return graph.compile()


async def _run(customer: Customer, workflow: str, question: str) -> str:
    case = {"customer": customer, "workflow": workflow, "question": question, "notes": [], "answer": ""}
    config = {"metadata": {"tenant_id": customer.tenant_id, "workflow": workflow}}
    done = await support_graph().ainvoke(case, config)
    return str(done["answer"])


@attribkit.entrypoint("support", tenant_id="customer.tenant_id")
async def support(customer: Customer, question: str) -> str:
    """Answer a question of a customer."""
    return await _run(customer, "support", question)


@attribkit.entrypoint("refund", tenant_id="customer.tenant_id")
async def refund(customer: Customer, question: str) -> str:
    """Decide on a refund."""
    return await _run(customer, "refund", question)
