"""Through the real LiteLLM Proxy: what it logs of each call is what stands in the ledger, row by row."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import openai
import pytest
from counterparts.started import MASTER_KEY, LiteLLM, litellm_proxy

import attribkit
from attribkit.ledger.base import LedgerRow, Question
from attribkit.ledger.open import open_store
from attribkit.testing import Gateway

pytestmark = [pytest.mark.counterpart, pytest.mark.large]

TENANTS = [f"tenant-{number:02}" for number in range(17)] + ["a,b", "100 %2C", "Zürich 東京"]
CALLS = 50
"""Of each tenant."""
SHAPES = ("chat", "stream", "chat", "priority", "responses")
"""A whole reply, a stream, a tier that is priced apart, the Responses API: each tenant makes all of them."""


@pytest.fixture
def proxy(gateway: Gateway, tmp_path: Path) -> Any:
    with litellm_proxy(gateway.base_url, tmp_path) as running:
        yield running


def logged(proxy: LiteLLM, count: int) -> list[dict[str, Any]]:
    """Return the callback's lines, waiting until there are `count`: LiteLLM calls it after it has answered."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if proxy.rows.exists():
            lines = proxy.rows.read_text(encoding="utf-8").splitlines()
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
        time.sleep(0.1)
    pytest.fail(f"LiteLLM logged {len(lines) if proxy.rows.exists() else 0} of {count} calls")


async def ask(client: Any, shape: str, question: str) -> None:
    asked: Any = [{"role": "user", "content": question}]
    if shape == "stream":
        async for _ in await client.chat.completions.create(model="gpt-4o-mini", messages=asked, stream=True):
            pass
    elif shape == "responses":
        await client.responses.create(model="gpt-5-mini", input=question)
    elif shape == "priority":
        await client.chat.completions.create(model="gpt-5-mini", messages=asked, service_tier="priority")
    else:
        await client.chat.completions.create(model="gpt-4o-mini", messages=asked)


def test_a_thousand_calls_of_twenty_tenants_row_by_row(proxy: LiteLLM, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    attribkit.instrument(gateways={proxy.url: "litellm"}, ledger=ledger)
    calls = [(tenant, number) for tenant in TENANTS for number in range(CALLS)]
    random.Random(7).shuffle(calls)  # the tenants' calls are in flight beside each other

    async def main() -> None:
        room = asyncio.Semaphore(24)

        async def one(client: Any, tenant: str, number: int) -> None:
            shape = SHAPES[number % len(SHAPES)]
            user, session = f"user {number % 7} of {tenant}", f"s {tenant} {shape}"
            who = {"tenant_id": tenant, "user_id": user, "session_id": session, "workflow": "onboarding"}
            plan = "gold" if number % 2 else "p=1,2"
            async with room:
                with attribkit.attributed(**who, feature=shape, plan=plan):
                    await ask(client, shape, f"{tenant}: question {number}")

        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=MASTER_KEY, max_retries=0) as client:
            await asyncio.gather(*(one(client, tenant, number) for tenant, number in calls))

    asyncio.run(main())
    attribkit.uninstrument()
    lines = {line["call_id"]: line for line in logged(proxy, len(calls))}
    store = open_store(ledger)
    rows = list(store.records(Question()))
    store.close()

    assert len(rows) == len(lines) == len(calls)
    assert Counter(row.tenant_id for row in rows) == dict.fromkeys(TENANTS, CALLS)
    for row in rows:
        agree(row, lines[row.call_id])
    spent, theirs = dict.fromkeys(TENANTS, Decimal(0)), dict.fromkeys(TENANTS, Decimal(0))
    for row in rows:
        tenant = str(row.tenant_id)
        spent[tenant] += row.usd or 0
        theirs[tenant] += Decimal(repr(lines[row.call_id]["cost_usd"]))
    assert all(abs(spent[tenant] - theirs[tenant]) < Decimal("1e-12") for tenant in TENANTS)


def agree(row: LedgerRow, line: dict[str, Any]) -> None:
    """Hold a row of the ledger against what LiteLLM says of the same call."""
    who = row.attribution.as_dict()
    assert line["attribution"] == who
    assert sorted(unquote(tag) for tag in line["tags"]) == sorted(f"{key}:{value}" for key, value in who.items())
    assert unquote(line["end_user"]) == row.user_id and unquote(line["trace_id"]) == row.session_id
    assert line["status"] == "success" and row.status == "ok"
    assert (line["input_tokens"], line["output_tokens"]) == (row.input_tokens, row.output_tokens)
    assert row.gateway_request_id == row.call_id
    assert row.usd is not None and row.cost_status == "priced"
    assert abs(Decimal(repr(line["cost_usd"])) - row.usd) < Decimal("1e-15"), (line, row)
    if row.stated_pico is not None:  # LiteLLM says the cost of a whole reply in a header of it
        assert row.stated_pico == row.cost_pico


def test_a_refused_call_is_logged_with_who_it_was_for(proxy: LiteLLM, gateway: Gateway, observe: Any) -> None:
    observed = observe(gateways={proxy.url: "litellm"})
    client = observed.client(base_url=f"{proxy.url}/v1", api_key=MASTER_KEY, max_retries=0)
    with attribkit.attributed(tenant_id="acme", user_id="ann"), pytest.raises(openai.RateLimitError):
        client.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "[[loopback status=429]]"}]
        )
    (record,) = observed.records
    (line,) = logged(proxy, 1)
    assert (line["call_id"], line["status"], line["end_user"]) == (record.call_id, "failure", "ann")
    assert line["attribution"] == {"tenant_id": "acme", "user_id": "ann"}
    assert not line["cost_usd"] and (record.http_status, record.cost.status) == (429, "free")
