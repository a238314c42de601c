"""Two tenants, each call attributed and priced. Takes OPENAI_BASE_URL and OPENAI_API_KEY from the environment."""

import os

import openai

import attribkit

attribkit.instrument(gateways={os.environ["OPENAI_BASE_URL"]: "portkey"}, ledger="sqlite:///attribkit.db")


@attribkit.entrypoint("support", tenant_id="tenant")
def answer(tenant: str, question: str) -> str | None:
    ask = [{"role": "user", "content": question}]
    return openai.OpenAI().chat.completions.create(model="gpt-5-mini", messages=ask).choices[0].message.content


for tenant in ("acme", "globex"):
    print(tenant, answer(tenant, "Where is my order?"))
