"""From the Assistants API, which OpenAI ended on 2026-08-26, to Responses: one question both ways, and what each cost.

Takes OPENAI_BASE_URL and OPENAI_API_KEY from the environment; the server has to have both APIs.
"""

import os
import warnings

import openai

import attribkit
from attribkit.ledger import Question, open_ledger
from attribkit.money import from_pico

LEDGER = "sqlite:///migration.db"
MODEL, INSTRUCTIONS, QUESTION = "gpt-5-mini", "Be brief.", "Where is my order?"

warnings.simplefilter("ignore", DeprecationWarning)  # that of the Assistants API
attribkit.instrument(gateways={os.environ["OPENAI_BASE_URL"]: "portkey"}, ledger=LEDGER)
client = openai.OpenAI()


@attribkit.entrypoint("support", tenant_id="tenant", feature="assistants")
def with_an_assistant(tenant: str) -> None:
    assistant = client.beta.assistants.create(model=MODEL, instructions=INSTRUCTIONS)
    thread = client.beta.threads.create(messages=[{"role": "user", "content": QUESTION}])
    client.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)


@attribkit.entrypoint("support", tenant_id="tenant", feature="responses")
def with_a_response(tenant: str) -> None:
    conversation = client.conversations.create()
    client.responses.create(model=MODEL, instructions=INSTRUCTIONS, input=QUESTION, conversation=conversation.id)


for tenant in ("acme", "globex"):
    with_an_assistant(tenant)
    with_a_response(tenant)
attribkit.uninstrument()

ledger = open_ledger(LEDGER)
for group in sorted(ledger.query(Question(by=("feature",)))):
    print(*group.key, f"{group.calls} calls", f"{from_pico(group.cost_pico):.6f} USD")
ledger.close()
