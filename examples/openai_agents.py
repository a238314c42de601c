"""An agent of the OpenAI Agents SDK with a tool, for two customers at once: nothing to add but the entrypoint.

Takes OPENAI_BASE_URL and OPENAI_API_KEY from the environment.
"""

import asyncio
import os

from agents import Agent, Runner, function_tool, set_tracing_disabled

import attribkit

set_tracing_disabled(True)  # the SDK's own upload of traces to OpenAI
attribkit.instrument(gateways={os.environ["OPENAI_BASE_URL"]: "portkey"}, ledger="sqlite:///agents.db")


@function_tool
def order_status(order: str) -> str:
    """Return where an order is."""
    return f"order {order} has shipped"


support = Agent("Support", instructions="Be brief.", model="gpt-5-mini", tools=[order_status])


@attribkit.entrypoint("support", tenant_id="customer")
async def answer(customer: str, question: str) -> str:
    return str((await Runner.run(support, question)).final_output)


async def main() -> None:
    customers = ("acme", "globex")
    for customer, said in zip(
        customers, await asyncio.gather(*(answer(one, "Where is order 7?") for one in customers)), strict=True
    ):
        print(customer, said)


asyncio.run(main())
