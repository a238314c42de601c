"""Jobs as users write them for RQ. Only `instrument()` is of attribkit; the worker imports this module."""

from __future__ import annotations

import os

import openai
import rq
from redis import Redis

import attribkit

attribkit.instrument(
    gateways={os.environ["GATEWAY_URL"]: "portkey"}, ledger=os.environ["LEDGER"], carrier_key=os.environ["KEY"]
)
failed: list[str] = []


def ask(q: str) -> str:
    with openai.OpenAI(base_url=f"{os.environ['GATEWAY_URL']}/v1", api_key="k") as client:
        client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": q}])
    return q


def spread(q: str) -> None:
    queue = rq.Queue(connection=Redis.from_url(os.environ["REDIS_URL"]))
    queue.enqueue(ask, q)
    with attribkit.attributed(tenant_id="inner"):
        queue.enqueue(ask, f"{q}-inner")


def fail_once(q: str) -> None:
    ask(q)
    if rq.get_current_job().retries_left:
        raise ValueError("as it was told")
