"""Batches at the Gemini API: each line a row at the batch price, once, for whoever created the batch."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

import attribkit
from attribkit.ledger.base import Question
from attribkit.ledger.open import open_ledger

genai = pytest.importorskip("google.genai")
MODEL = "gemini-2.5-flash"
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning", "ignore::ResourceWarning")


def asked(questions: int = 3) -> list[Any]:
    return [{"contents": [{"role": "user", "parts": [{"text": f"Question {number}"}]}]} for number in range(questions)]


@pytest.fixture
def client(gateway: Any) -> Any:
    made = genai.Client(api_key="k", http_options={"base_url": gateway.url, "api_version": "v1beta"})
    if not hasattr(made, "batches"):
        pytest.skip("this version has no batches")
    return made


def done(client: Any, name: str) -> Any:
    while not (found := client.batches.get(name=name)).done:
        pass
    return found


def price_of(response: Any, *, batch: bool) -> Decimal:
    usage = response.usage_metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
    cost = attribkit.price(usage, model=MODEL, provider="gemini", api="generateContent", batch=batch)
    assert cost.usd is not None
    return cost.usd


def test_inline_lines_are_rows_at_the_batch_price_for_the_creator(observe: Any, client: Any) -> None:
    seen = observe()
    with attribkit.attributed(tenant_id="acme", feature="digest"):
        made = client.batches.create(model=MODEL, src=asked())
    (created,) = seen.records
    assert (created.cost.status, created.api, created.attribution.tenant_id) == ("free", "batches", "acme")
    with attribkit.attributed(tenant_id="the poller"):
        lines = done(client, made.name).dest.inlined_responses
        client.batches.get(name=made.name)
    rows = seen.records[1:]
    assert len(rows) == len(lines) == 3
    for row, line in zip(rows, lines, strict=True):
        assert (row.batch, row.api, row.hop, row.status) == (True, "generateContent", "restored", "ok")
        assert row.attribution.as_dict() == {"tenant_id": "acme", "feature": "digest"}
        assert row.usage.output_tokens == line.response.usage_metadata.candidates_token_count
        assert row.cost.status == "priced" and row.cost.usd == price_of(line.response, batch=True)
        assert row.cost.usd < price_of(line.response, batch=False)
    polls = [request for request in seen.requests() if request.method == "GET"]
    assert {request.attribution["tenant_id"] for request in polls} == {"acme"}


def test_a_line_that_failed_says_so_and_costs_nothing(observe: Any, client: Any) -> None:
    seen = observe()
    with attribkit.attributed(tenant_id="acme"):
        made = client.batches.create(
            model=MODEL, src=[*asked(1), {"contents": [{"role": "user", "parts": [{"text": ""}]}]}]
        )
    done(client, made.name)
    rows = [(row.status, row.error, row.cost.status) for row in seen.records if row.batch]
    assert rows == [("ok", None, "priced"), ("error", "3", "free")]


def test_lines_in_a_file_sync_and_async(observe: Any, client: Any) -> None:
    seen = observe()
    with attribkit.attributed(tenant_id="acme"):
        made = client.batches.create(model=MODEL, src="files/questions")
        other = client.batches.create(model=MODEL, src="files/questions")
    output = done(client, made.name).dest.file_name
    assert not [row for row in seen.records if row.batch]
    assert client.files.download(file=output) == client.files.download(file=output)

    async def main() -> None:
        await client.aio.batches.get(name=other.name)
        found = await client.aio.batches.get(name=other.name)
        await client.aio.files.download(file=found.dest.file_name)
        close = getattr(client.aio, "aclose", None)
        if close is not None:
            await close()

    asyncio.run(main())
    rows = [row for row in seen.records if row.batch]
    assert [(row.attribution.tenant_id, row.cost.status) for row in rows] == [("acme", "priced")] * 2


def test_read_by_another_process_that_shares_the_ledger(client: Any, tmp_path: Any) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    attribkit.instrument(ledger=ledger)
    with attribkit.attributed(tenant_id="acme", plan="gold"):
        made = client.batches.create(model=MODEL, src=asked())
    attribkit.uninstrument()
    for _ in range(2):  # as in two other processes: nothing is known but what lies beside the ledger
        attribkit.instrument(ledger=ledger)
        done(client, made.name)
        attribkit.uninstrument()
    store = open_ledger(ledger)
    rows = [row for row in store.records(Question()) if row.batch]
    store.close()
    assert [row.attribution.as_dict() for row in rows] == [{"tenant_id": "acme", "plan": "gold"}] * 3
