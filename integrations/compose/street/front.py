"""The service that customers call: it knows who is asking, and nothing behind it is told by hand.

No line here is about telemetry, headers or prices: `opentelemetry-instrument` turns OpenTelemetry and attribkit on.
"""

from __future__ import annotations

import os
from typing import Any

import httpx
import openai
from fastapi import FastAPI
from jobs import follow_up

import attribkit

TENANTS = {"token-of-acme": "acme", "token-of-globex": "globex"}
ORDERS = os.environ["ORDERS_URL"]
service = FastAPI()


@service.post("/questions")
async def question(body: dict[str, str]) -> dict[str, str]:
    with attribkit.attributed(workflow="support", feature="questions"):
        async with httpx.AsyncClient(timeout=60) as client:
            order = (await client.get(f"{ORDERS}/orders/{body['order']}")).raise_for_status().json()
        messages: Any = [{"role": "user", "content": f"{body['question']} What we know: {order['summary']}"}]
        async with openai.AsyncOpenAI() as model:
            reply = await model.chat.completions.create(model="gpt-5-mini", messages=messages)
        follow_up.delay(body["question"])
    return {"answer": reply.choices[0].message.content or ""}


class Customers:
    """Opens the customer's scope around everything else, the web framework's own spans included."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        token = dict(scope.get("headers") or ()).get(b"x-token", b"").decode("latin-1")
        with attribkit.attributed(tenant_id=TENANTS.get(token)):
            await self.app(scope, receive, send)


app = Customers(service)
