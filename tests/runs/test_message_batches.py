"""Anthropic's message batches: each line a row at the batch price, once, for whoever created the batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import attribkit
from attribkit.ledger.base import Question
from attribkit.ledger.open import open_ledger

anthropic = pytest.importorskip("anthropic")
MODEL = "claude-sonnet-4-5"
pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")


def asked(questions: int = 3) -> list[Any]:
    return [
        {
            "custom_id": f"q{number}",
            "params": {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": f"Q {number}"}]},
        }
        for number in range(questions)
    ]


def ended(client: Any, batch: str) -> None:
    while client.messages.batches.retrieve(batch).processing_status != "ended":
        pass


@pytest.fixture
def client(gateway: Any) -> Any:
    with anthropic.Anthropic(api_key="k", base_url=gateway.url, max_retries=0) as made:
        yield made


def test_each_line_is_a_row_at_the_batch_price_for_the_creator(observe: Any, client: Any) -> None:
    seen = observe()
    with attribkit.attributed(tenant_id="acme", feature="digest"):
        made = client.messages.batches.create(requests=asked())
    (created,) = seen.records
    assert (created.cost.status, created.api, created.attribution.tenant_id) == ("free", "batches", "acme")
    with attribkit.attributed(tenant_id="the poller"):
        ended(client, made.id)
        lines = list(client.messages.batches.results(made.id))
        list(client.messages.batches.results(made.id))
    rows = seen.records[1:]
    assert len(rows) == len(lines) == 3
    for row, line in zip(rows, lines, strict=True):
        message = line.result.message
        assert (row.batch, row.api, row.hop, row.status) == (True, "messages", "restored", "ok")
        assert row.attribution.as_dict() == {"tenant_id": "acme", "feature": "digest"}
        assert row.response_id == message.id and row.usage.output_tokens == message.usage.output_tokens
        usage = {**message.usage.model_dump(), "service_tier": "standard"}
        whole = attribkit.price(usage, model=MODEL, provider="anthropic", api="messages")
        assert row.cost.status == "priced" and row.cost.usd == whole.usd / 2
    polls = [request for request in seen.requests() if request.method == "GET"]
    assert {request.attribution["tenant_id"] for request in polls} == {"acme"}


def test_lines_that_failed_say_so_and_cost_nothing(observe: Any, client: Any) -> None:
    seen = observe()
    requests = asked(2)
    del requests[0]["params"]["max_tokens"]
    with attribkit.attributed(tenant_id="acme"):
        made = client.messages.batches.create(requests=requests)
        cancelled = client.messages.batches.create(requests=asked(1))
    ended(client, made.id)
    client.messages.batches.cancel(cancelled.id)
    ended(client, cancelled.id)
    list(client.messages.batches.results(made.id))
    list(client.messages.batches.results(cancelled.id))
    rows = [(row.status, row.error, row.cost.status) for row in seen.records if row.api == "messages"]
    assert rows == [
        ("ok", None, "priced"),
        ("error", "invalid_request_error", "free"),
        ("cancelled", "canceled", "free"),
    ]


def test_async_and_left_early_and_read_again(observe: Any, client: Any, gateway: Any) -> None:
    seen = observe()
    with attribkit.attributed(tenant_id="acme"):
        made = client.messages.batches.create(requests=asked())
    ended(client, made.id)

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=gateway.url) as other:
            async for _ in await other.messages.batches.results(made.id):
                break
            assert len([row for row in seen.records if row.batch]) == 1
            assert len([line async for line in await other.messages.batches.results(made.id)]) == 3

    asyncio.run(main())
    assert len([row for row in seen.records if row.batch]) == 3


def test_read_by_another_process_that_shares_the_ledger(gateway: Any, client: Any, tmp_path: Any) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    attribkit.instrument(ledger=ledger)
    with attribkit.attributed(tenant_id="acme", plan="gold"):
        made = client.messages.batches.create(requests=asked())
    attribkit.uninstrument()
    for _ in range(2):  # as in two other processes: nothing is known but what lies beside the ledger
        attribkit.instrument(ledger=ledger)
        ended(client, made.id)
        assert len(list(client.messages.batches.results(made.id))) == 3
        attribkit.uninstrument()
    store = open_ledger(ledger)
    rows = [row for row in store.records(Question()) if row.batch]
    store.close()
    assert [row.attribution.as_dict() for row in rows] == [{"tenant_id": "acme", "plan": "gold"}] * 3
    assert {row.hop for row in rows} == {"restored"} and len({row.call_id for row in rows}) == 3
