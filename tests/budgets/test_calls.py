"""Budgets on real calls of the OpenAI SDK: what leaves, what is on record, and what the store has counted."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen

import openai
import pytest
from budgets.conftest import SHARED
from budgets.made import ACME, call

import attribkit
from attribkit.budgets import bounds
from attribkit.budgets.open import place_of
from attribkit.errors import BudgetExceeded
from attribkit.runtime import active

ASK = [{"role": "user", "content": "hi"}]


def spent(url: str, budget: str) -> tuple[Decimal, int]:
    """Return what a store has counted in USD, and what it holds reserved."""
    runtime = active()
    assert runtime is not None and runtime.guard is not None and runtime.guard.flush()
    store = place_of(url).open()
    until = time.monotonic() + 5
    while True:
        states = [balance.state for balance in store.balances(budget)]
        if not any(one.reserved for one in states) or time.monotonic() > until:
            break
        time.sleep(0.01)  # a share may be on its way back
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


def test_a_rule_picks_the_tier_by_what_is_left(observe: Any, gateway: Any) -> None:
    rules = [{"budget": "all", "left_under": "50%", "tier": "flex"}]
    seen = observe(
        budgets=[attribkit.Budget("all", limit="0.01")],
        budget_store=None,
        tiers=rules,
        gateways={gateway.url: "openai"},
    )
    runtime = active()
    assert runtime is not None and runtime.guard is not None
    create = seen.client().chat.completions.create
    create(model="gpt-5-mini", messages=ASK, max_completion_tokens=50)
    runtime.guard.charge(call("1"), ACME, "", Decimal("0.006"))
    create(model="gpt-5-mini", messages=ASK, max_completion_tokens=50)
    assert [request.json.get("service_tier") for request in seen.requests()] == [None, "flex"]
    assert [record.attribution.tier for record in seen.records] == [None, "flex"]


def test_a_refusal_is_on_the_row_and_the_span(observe: Any) -> None:
    seen = observe(budgets=[attribkit.Budget("none", limit="0")], budget_store=None)
    with pytest.raises(BudgetExceeded):
        seen.client().chat.completions.create(model="gpt-5", messages=ASK)
    (record,), (span,) = seen.records, seen.call_spans()
    assert (record.status, record.usd, record.error) == ("rejected", 0, "BudgetExceeded")
    assert span.attributes["error.type"] == "BudgetExceeded"
    assert seen.requests() == []


def test_a_warning_is_posted_called_and_on_the_span_in_force_or_on_one_of_its_own(observe: Any) -> None:
    posted, called = [], []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = f"http://127.0.0.1:{server.server_port}/hook"
    warn = {"at": "0.001%", "action": "warn", "webhook": hook, "call": called.append}
    seen = observe(budgets=[attribkit.Budget("each", limit="9", per="tenant_id", thresholds=[warn])], budget_store=None)
    client = seen.client()

    @attribkit.entrypoint("onboarding", tenant_id="tenant")
    def onboard(tenant: str) -> None:
        client.chat.completions.create(model="gpt-5", messages=ASK)

    onboard("acme")
    onboard("acme")
    with attribkit.attributed(tenant_id="globex"):
        client.chat.completions.create(model="gpt-5", messages=ASK)
    until = time.monotonic() + 20
    while len(posted) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    server.shutdown()
    server.server_close()
    keys = [{"tenant_id": "acme"}, {"tenant_id": "globex"}]
    assert [one.key for one in called] == keys == sorted((one["key"] for one in posted), key=str)
    assert posted[0]["kind"] == "warn" and posted[0]["limit"] == "9" and Decimal(posted[0]["spent"]) > 0
    events = [(span.name, event) for span in seen.spans() for event in span.events]
    assert [(name, event.name) for name, event in events] == [("invoke_workflow onboarding", "attribkit.budget.warn")]
    assert events[0][1].attributes["attribkit.budget.key"] == '{"tenant_id": "acme"}'
    (own,) = [span for span in seen.spans() if span.name == "attribkit.budget.warn"]
    assert own.attributes["attribkit.budget.key"] == '{"tenant_id": "globex"}'


# -- streams that outgrow what they have reserved ----------------------------------------------------------------------

LONG = [{"role": "user", "content": "[[long]]"}]
"""What gets an answer of 300 tokens, one in each chunk."""


@pytest.fixture
def long_answers(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 300, "total_tokens": 310}
    rule = json.dumps({"contains": "[[long]]", "chunks": 300, "usage": usage}).encode()
    urlopen(f"{gateway.url}/_control/behaviour", rule).close()
    monkeypatch.setattr(bounds, "_FIRST_OUTPUT", 40)


def held_meanwhile(url: str, stream: Any) -> list[int]:
    """Read a stream; return what the store held reserved at its 3rd chunk and at its 200th."""
    held = []
    for number, _ in enumerate(stream):
        if number in (3, 200):
            runtime = active()
            assert runtime is not None and runtime.guard is not None
            until = time.monotonic() + 5
            while runtime.guard._growth._due and time.monotonic() < until:
                time.sleep(0.005)
            store = place_of(url).open()
            held.append(sum(one.state.reserved for one in store.balances()))
            store.close()
    return held


@pytest.mark.parametrize("store_url", SHARED, indirect=True)
def test_a_stream_that_outgrows_its_reservation_reserves_more(store_url: str, observe: Any, long_answers: None) -> None:
    seen = observe(budgets=[attribkit.Budget("all", limit="9")], budget_store=store_url)
    client = seen.client(max_retries=0)
    with client.chat.completions.create(model="gpt-5", messages=LONG, stream=True) as stream:
        first, later = held_meanwhile(store_url, stream)
    assert 0 < first < Decimal("0.000010") * 200 * 10**12 < later  # gpt-5: 10 USD for a million tokens of output
    (record,) = seen.records
    assert (record.status, record.usage.output_tokens) == ("ok", 300)
    assert spent(store_url, "all") == (record.usd, 0)


@pytest.mark.parametrize("store_url", SHARED, indirect=True)
def test_a_stream_without_room_goes_on_and_what_it_makes_is_held_and_told(
    store_url: str, observe: Any, long_answers: None, caplog: pytest.LogCaptureFixture
) -> None:
    budget = attribkit.Budget("tight", limit="0.0011", window="total")
    seen = observe(budgets=[budget], budget_store=store_url)
    client = seen.client(max_retries=0)
    with client.chat.completions.create(model="gpt-5", messages=LONG, stream=True) as stream:
        _, later = held_meanwhile(store_url, stream)
    assert later > 0.0011 * 10**12  # money that is gone already is nobody else's
    (record,) = seen.records
    assert record.status == "ok" and record.usd > Decimal("0.0011")
    assert spent(store_url, "tight") == (record.usd, 0)
    assert sum("outgrow" in line for line in caplog.messages) == 1
    with pytest.raises(BudgetExceeded):
        client.chat.completions.create(model="gpt-5", messages=ASK)


def test_an_async_stream_outgrows_its_reservation_too(tmp_path: Any, observe: Any, long_answers: None) -> None:
    url = f"sqlite:///{tmp_path}/b.db"
    seen = observe(budgets=[attribkit.Budget("all", limit="9")], budget_store=url)
    held = []

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            stream = await client.chat.completions.create(
                model="gpt-5", messages=LONG, stream=True, stream_options={"include_usage": True}
            )
            number = 0
            async for _ in stream:
                number += 1
                if number in (3, 200):
                    held.extend(held_meanwhile(url, [None] * 4))

    asyncio.run(main())
    assert held[0] * 5 < held[1]
    assert spent(url, "all") == (seen.records[0].usd, 0)


def test_a_stream_that_bounds_its_output_is_not_looked_at(observe: Any, long_answers: None) -> None:
    seen = observe(budgets=[attribkit.Budget("all", limit="9")], budget_store=None)
    create = seen.client().chat.completions.create
    stream = create(model="gpt-5", messages=LONG, stream=True, max_completion_tokens=50)
    runtime = active()
    assert runtime is not None and runtime.guard is not None
    runtime.guard.grow = None  # type: ignore[assignment, method-assign]
    assert len(list(stream)) > 300


# -- what is over before a budget is asked -----------------------------------------------------------------------------


def test_the_work_of_a_background_job_is_counted_though_its_budget_is_spent(
    tmp_path: Any, observe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/b.db"
    seen = observe(budgets=[attribkit.Budget("all", limit="0.5", window="total")], budget_store=url)
    client = seen.client(max_retries=0)
    job = client.responses.create(model="gpt-5", input="hi", background=True, max_output_tokens=5)
    runtime = active()
    assert runtime is not None and runtime.guard is not None
    runtime.guard.charge(call("1"), ACME, "", Decimal(1))
    with pytest.raises(BudgetExceeded):
        client.responses.create(model="gpt-5", input="hi")
    until = time.monotonic() + 10
    while job.status not in ("completed", "incomplete") and time.monotonic() < until:
        job = client.responses.retrieve(job.id)
    cost = sum((record.usd or Decimal(0) for record in seen.records), Decimal(0))
    assert cost > 0
    assert spent(url, "all") == (cost + 1, 0)


def test_a_call_is_held_at_the_contract_prices_of_its_tenant_and_date(observe: Any) -> None:
    row = {"seller": "openai", "model": "gpt-5", "when": {"tenant_id": "acme"}}
    dear = {**row, "output": "1000000", "until": "2020-01-01"}
    prices = {"price": [dear, {**row, "output": "0.000001", "input": "0.000001"}]}
    seen = observe(budgets=[attribkit.Budget("all", limit="0.01", per="tenant_id")], budget_store=None, prices=prices)
    create = seen.client(max_retries=0).chat.completions.create
    with attribkit.attributed(tenant_id="acme"):
        create(model="gpt-5", messages=ASK, max_completion_tokens=100_000)
    with attribkit.attributed(tenant_id="globex"), pytest.raises(BudgetExceeded):
        create(model="gpt-5", messages=ASK, max_completion_tokens=100_000)


def test_without_budgets_nothing_is_opened(observe: Any) -> None:
    observe(ledger="sqlite:///attribkit.db")
    runtime = active()
    assert runtime is not None and runtime.guard is None
