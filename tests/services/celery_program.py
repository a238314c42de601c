"""A Celery application as a user writes it: `celery -A celery_program worker`. Only `instrument()` is of attribkit."""

from __future__ import annotations

import os
from typing import Any

import openai
from services.file_broker import configured

import attribkit

app = configured("program", os.environ["BROKER_ROOT"])
attribkit.instrument(
    gateways={os.environ["GATEWAY_URL"]: "portkey"}, ledger=os.environ["LEDGER"], carrier_key=os.environ.get("KEY")
)
client = openai.OpenAI(base_url=f"{os.environ['GATEWAY_URL']}/v1", api_key="k")


def call(q: str) -> str:
    client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": q}])
    return q


@app.task(name="ask")
def ask(q: str) -> str:
    return call(q)


@app.task(name="ask_after")
def ask_after(results: Any, q: str) -> str:
    return call(q)


@app.task(name="retried", bind=True, max_retries=3)
def retried(self: Any, q: str) -> str:
    call(q)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return q


@app.task(name="failing")
def failing(q: str) -> None:
    call(q)
    raise ValueError("as it was told")


@app.task(name="spreading")
def spreading(q: str) -> None:
    ask.delay(q)
    with attribkit.attributed(tenant_id="inner"):
        ask.apply_async(args=[f"{q}-inner"])


@app.task(name="who")
def who() -> dict[str, str]:
    return attribkit.current().as_dict()
