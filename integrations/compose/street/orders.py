"""A second service, with a model call of its own. Whose order it is arrives with the request, signed."""

from __future__ import annotations

from typing import Any

import openai
from fastapi import FastAPI

from attribkit.asgi import AttributionMiddleware

service = FastAPI()


@service.get("/orders/{number}")
def order(number: str) -> dict[str, str]:
    messages: Any = [{"role": "user", "content": f"Sum up what happened to order {number}."}]
    reply = openai.OpenAI().chat.completions.create(model="gpt-4o-mini", messages=messages)
    return {"number": number, "summary": reply.choices[0].message.content or ""}


app = AttributionMiddleware(service)  # around the web framework's own spans
