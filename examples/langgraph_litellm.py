"""A LangGraph agent behind a LiteLLM proxy: tags, spend metadata, end user and call id arrive there by themselves.

Takes OPENAI_BASE_URL (the proxy) and OPENAI_API_KEY from the environment.
"""

import asyncio
import os
from typing import TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

import attribkit

attribkit.instrument(gateways={os.environ["OPENAI_BASE_URL"]: "litellm"}, ledger="sqlite:///langgraph.db")
model = ChatOpenAI(model="gpt-5-mini")


class State(TypedDict):
    question: str
    draft: str
    answer: str


async def draft(state: State) -> dict[str, str]:
    return {"draft": str((await model.ainvoke(f"Draft an answer: {state['question']}")).content)}


async def polish(state: State) -> dict[str, str]:
    return {"answer": str((await model.ainvoke(f"Polish this: {state['draft']}")).content)}


graph = StateGraph(State)
graph.add_node("draft", draft)
graph.add_node("polish", polish)
graph.add_edge(START, "draft")
graph.add_edge("draft", "polish")
graph.add_edge("polish", END)
agent = graph.compile()


@attribkit.entrypoint("support", tenant_id="customer", user_id="user")
async def answer(customer: str, user: str, question: str) -> str:
    return str((await agent.ainvoke({"question": question}))["answer"])


async def main() -> None:
    asked = [answer("acme", "ann", "Where is my order?"), answer("globex", "bob", "Why was I billed twice?")]
    for said in await asyncio.gather(*asked):
        print(said)


asyncio.run(main())
