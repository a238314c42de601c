"""The LangGraph agent of `attribkit demo` for one customer, and what its calls cost by workflow and model.

Takes OPENAI_BASE_URL and OPENAI_API_KEY from the environment. The agent itself is in attribkit/demo/agent.py.
"""

import asyncio
import os

import attribkit
from attribkit.demo.agent import Customer, support
from attribkit.ledger import Question, open_ledger
from attribkit.money import from_pico

LEDGER = "sqlite:///support-agent.db"

attribkit.instrument(gateways={os.environ["OPENAI_BASE_URL"]: "portkey"}, ledger=LEDGER)
print(asyncio.run(support(Customer("acme", "Acme Ltd"), "The parcel is two days late, where is it?")))
attribkit.uninstrument()

ledger = open_ledger(LEDGER)
for group in ledger.query(Question(by=("tenant_id", "workflow", "model"))):
    print(*group.key, f"{group.calls} calls", f"{from_pico(group.cost_pico):.6f} USD")
ledger.close()
