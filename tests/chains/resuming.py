"""A program that resumes an interrupted graph and opens no scope: GATEWAY_URL SQLITE_FILE THREAD."""

from __future__ import annotations

import itertools
import sys
from typing import Any, TypedDict

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

import attribkit


class State(TypedDict, total=False):
    q: str
    answer: str


def main(url: str, file: str, thread: str) -> None:
    attribkit.instrument(gateways={url: "portkey"}, ledger=None)

    def ask(state: State) -> dict[str, Any]:
        model = ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=f"{url}/v1")
        return {"answer": str(model.invoke(state["q"]).content)}

    graph = StateGraph(State)
    graph.add_node("draft", ask)
    graph.add_node("gate", lambda state: {"answer": str(interrupt("approve?"))})
    graph.add_node("send", ask)
    for before, after in itertools.pairwise((START, "draft", "gate", "send", END)):
        graph.add_edge(before, after)
    with SqliteSaver.from_conn_string(file) as saver:
        graph.compile(checkpointer=saver).invoke(Command(resume="yes"), config={"configurable": {"thread_id": thread}})


main(*sys.argv[1:])
