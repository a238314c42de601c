"""Budgets on real calls of the OpenAI SDK: what leaves, what is on record, and what the store has counted."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import openai
import pytest
from budgets.conftest import SHARED

import attribkit
from attribkit.budgets.open import place_of
from attribkit.errors import BudgetExceeded
from attribkit.runtime import active

ASK = [{"role": "user", "content": "hi"}]


def spent(url: str, budget: str) -> tuple[Decimal, int]:
    """Return what a store has counted in USD, and what it holds reserved."""
    runtime = active()
    assert runtime is not None and runtime.guard is not None and runtime.guard.flush()
    store = place_of(url).open()
    states = [balance.state for balance in store.balances(budget)]
    store.close()
    return Decimal(sum(one.spent for one in states)).scaleb(-12), sum(one.reserved for one in states)


@pytest.mark.parametrize("store_url", SHARED, indirect=True)
def test_what_the_store_counts_is_what_the_records_cost(store_url: str, observe: Any) -> None:
    seen = observe(budgets=[attribkit.Budget("each", limit="9", per="tenant_id")], budget_store=store_url)
    client = seen.client(max_retries=0)
    with attribkit.attributed(tenant_id="acme"):
        client.chat.completions.create(model="gpt-5-mini", messages=ASK)
        list(client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True))
        with client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True) as stream:
            next(stream)
        client.embeddings.create(model="text-embedding-3-small", input="hi")
        refused = [{"role": "user", "content": "[[loopback status=404]] hi"}]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-5-mini", messages=refused)
        with pytest.raises(BudgetExceeded):
            client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=10**8)
    cost = sum((record.usd or Decimal(0) for record in seen.records), Decimal(0))
    assert cost > 0
    assert spent(store_url, "each") == (cost, 0)


@pytest.mark.parametrize("store_url", SHARED, indirect=True)
def test_async_calls_wait_in_a_thread_and_the_loop_goes_on(store_url: str, observe: Any) -> None:
    queue = [{"action": "queue", "seconds": 5, "waiting": 50}]
    seen = observe(
        budgets=[attribkit.Budget("all", limit="0.02", window="total", thresholds=queue)], budget_store=store_url
    )

    async def main() -> float:
        longest, stop = 0.0, asyncio.Event()

        async def tick() -> None:
            nonlocal longest
            while not stop.is_set():
                begun = time.perf_counter()
                await asyncio.sleep(0.005)
                longest = max(longest, time.perf_counter() - begun)

        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            ticking = asyncio.create_task(tick())
            calls = [
                client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=5000)
                for _ in range(8)
            ]
            await asyncio.gather(*calls)
            stop.set()
            await ticking
        return longest

    asyncio.run(main())
    assert [record.status for record in seen.records] == ["ok"] * 8
    cost = sum((record.usd or Decimal(0) for record in seen.records), Decimal(0))
    assert spent(store_url, "all") == (cost, 0)


def test_a_task_cancelled_while_it_waits_holds_nothing(tmp_path: Any, observe: Any) -> None:
    url = f"sqlite:///{tmp_path}/b.db"
    queue = [{"action": "queue", "seconds": 0.5}]
    budget = attribkit.Budget("all", limit="0.001", window="total", thresholds=queue)
    seen = observe(budgets=[budget], budget_store=url)

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            await client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=10)
            create = client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=10**6)
            waiting = asyncio.create_task(create)
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())
    assert [record.status for record in seen.records] == ["ok", "cancelled"]
    assert len(seen.requests()) == 1
    assert spent(url, "all")[1] == 0


def test_a_downgrade_reaches_the_gateway_as_tier_and_model(observe: Any, gateway: Any) -> None:
    ladder = [{"at": "0%", "action": "downgrade", "tier": "flex", "models": {"gpt-5": "gpt-5-mini"}}]
    budget = attribkit.Budget("all", limit="9", thresholds=ladder)
    seen = observe(budgets=[budget], budget_store=None, gateways={gateway.url: "openai"})
    client = seen.client()
    with attribkit.attributed(tenant_id="acme"):
        client.chat.completions.create(model="gpt-5", messages=ASK)
    (request,), (record,) = seen.requests(), seen.records
    assert (request.json["model"], request.json["service_tier"]) == ("gpt-5-mini", "flex")
    assert (record.requested_model, record.attribution.tier) == ("gpt-5", "flex")
    assert record.served_model.startswith("gpt-5-mini")


def test_a_refusal_is_on_the_row_and_the_span(observe: Any) -> None:
    seen = observe(budgets=[attribkit.Budget("none", limit="0")], budget_store=None)
    with pytest.raises(BudgetExceeded):
        seen.client().chat.completions.create(model="gpt-5", messages=ASK)
    (record,), (span,) = seen.records, seen.call_spans()
    assert (record.status, record.usd, record.error) == ("rejected", 0, "BudgetExceeded")
    assert span.attributes["error.type"] == "BudgetExceeded"
    assert seen.requests() == []


def test_without_budgets_nothing_is_opened(observe: Any) -> None:
    observe(ledger="sqlite:///attribkit.db")
    runtime = active()
    assert runtime is not None and runtime.guard is None
