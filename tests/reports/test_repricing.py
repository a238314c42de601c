"""A new figure over history: exact, complete, invisible until it is whole; the rows stay as they are."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from ledger.made import record

from attribkit.calls import CallRecord
from attribkit.cost import Cost
from attribkit.errors import ConfigurationError
from attribkit.ledger.base import Question
from attribkit.ledger.memory import MemoryLedger
from attribkit.pricing.engine import PriceEngine
from attribkit.reports.queries import spend
from attribkit.reports.repricing import preview, reprice
from attribkit.usage.model import Usage
from attribkit.usage.read import read_usage

PLAIN = PriceEngine.bundled()
HALF = PriceEngine.bundled({"discount": [{"percent": "50"}]})


def call(
    payload: dict[str, Any], provider: str, model: str, *, engine: PriceEngine = PLAIN, **facts: Any
) -> CallRecord:
    usage = read_usage(payload, provider=provider)
    made = record(
        {"tenant_id": "acme"}, provider=provider, requested_model=model, served_model=model, usage=usage,
        served_tier=usage.tier if usage.speed in (None, "standard") else usage.speed, region=usage.region,
    )._replace(**facts)  # fmt: skip
    cost = engine.cost(usage, provider=provider, model=model, api=made.api, service_tier=made.served_tier,
                       region=made.region, batch=made.batch, at=made.started_ns, who=made.attribution)  # fmt: skip
    return made._replace(cost=cost)


CALLS = (
    ({"prompt_tokens": 9_000, "completion_tokens": 70}, "openai", "gpt-4.1", {}),
    ({"prompt_tokens": 9_000, "completion_tokens": 70}, "openai", "o3", {"started_ns": 1_747_000_000 * 10**9}),
    ({"prompt_tokens": 9_000, "completion_tokens": 70}, "openai", "gpt-5", {"served_tier": "flex"}),
    ({"prompt_tokens": 9_000, "completion_tokens": 70}, "openai", "gpt-6-sol", {"region": "eu"}),
    ({"prompt_tokens": 9_000, "completion_tokens": 70}, "openai", "gpt-4o", {"batch": True, "api": "batch"}),
    ({"input_tokens": 9, "cache_read_input_tokens": 5_000, "output_tokens": 7, "inference_geo": "us",
      "service_tier": "standard", "speed": "fast"}, "anthropic", "claude-opus-5", {}),
    ({"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.25}, "openrouter", "some/model", {}),
    ({"type": "duration", "seconds": 59.5}, "openai", "whisper-1", {"api": "transcriptions"}),
    ({"promptTokenCount": 9, "candidatesTokenCount": 7, "thoughtsTokenCount": 70}, "gemini", "gemini-2.5-pro", {}),
    ({"inputTokens": 9, "outputTokens": 7}, "bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0",
     {"region": "us-east-1"}),
)  # fmt: skip


@pytest.fixture
def ledger() -> MemoryLedger:
    ledger = MemoryLedger()
    for payload, provider, model, facts in CALLS:
        ledger.finished(call(payload, provider, model, **facts))
    return ledger


def test_the_same_prices_change_nothing(ledger: MemoryLedger) -> None:
    """Everything that the price of a call depends on is on its row: tier, speed, region, batch, stated cost, time."""
    found = preview(ledger, PLAIN)
    assert found.changes == () and found.total.calls == len(CALLS)
    assert found.total.before == found.total.after > 0


def test_a_figure_is_exact_and_beside_the_rows(ledger: MemoryLedger) -> None:
    rows, before = ledger.rows(), spend(ledger)
    found = reprice(ledger, HALF, label="half", reason="the contract of January")
    assert found.total.after == (found.total.before - Decimal("0.25")) / 2 + Decimal("0.25")  # a stated charge stays
    assert ledger.rows() == rows and spend(ledger) == before
    figure = spend(ledger, figure="half")
    assert figure.total.cost == found.total.after and figure.total.list_cost == before.total.cost
    (kept,) = ledger.repricings()
    assert (kept.label, kept.reason, kept.calls) == ("half", "the contract of January", len(CALLS))
    assert kept.changed == len(CALLS) - 1 and kept.price_version == HALF.version


def test_a_run_that_breaks_off_leaves_nothing_to_see(ledger: MemoryLedger) -> None:
    class Pulled(Exception): ...

    def pull(done: int) -> None:
        raise Pulled

    for _ in range(500):
        ledger.finished(call(*CALLS[0][:3]))
    with pytest.raises(Pulled):
        reprice(ledger, HALF, label="half", reason="r", progress=pull)
    assert ledger.repricings() == []
    with pytest.raises(ConfigurationError, match="half"):
        spend(ledger, figure="half")
    reprice(ledger, HALF, label="half", reason="again")
    assert len(ledger.repricings()) == 1
    assert ledger.drop_repricing("half") and not ledger.drop_repricing("half")


def test_what_was_never_served_is_not_priced(ledger: MemoryLedger) -> None:
    ledger.finished(record(usage=Usage(known=False), cost=Cost.unknown("no reply arrived")))
    ledger.finished(record(usage=Usage(known=False), cost=Cost.free("HTTP 500: nothing was served"), http_status=500))
    assert preview(ledger, HALF, Question(where={"tenant_id": "acme"})).total.newly_priced == 0


def test_charges_are_priced_again_too(ledger: MemoryLedger) -> None:
    marked = PriceEngine.bundled({"charge": [{"percent": "20", "when": {"tenant_id": "acme"}}]})
    reprice(ledger, marked, label="marked up", reason="r")
    total = spend(ledger, figure="marked up").total
    assert total.charged == total.cost * Decimal("1.2")
    assert spend(ledger).total.charged == spend(ledger).total.cost


def test_a_row_holds_list_price_cost_and_charge() -> None:
    engine = PriceEngine.bundled({"discount": [{"percent": "50"}], "charge": [{"percent": "10"}]})
    ledger = MemoryLedger()
    ledger.finished(call(*CALLS[0][:3], engine=engine))
    (row,) = ledger.rows()
    assert (row.list_pico, row.cost_pico, row.charged_pico) == (18_560_000_000, 9_280_000_000, 10_208_000_000)
    total = spend(ledger).total
    assert (total.list_cost, total.cost, total.charged) == (Decimal("0.01856"), Decimal("0.00928"), Decimal("0.010208"))


@pytest.mark.parametrize(("label", "reason"), [("", "r"), ("x", " ")])
def test_a_figure_needs_a_label_and_a_reason(ledger: MemoryLedger, label: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match="label and a reason"):
        reprice(ledger, HALF, label=label, reason=reason)


def test_a_reply_of_several_models_keeps_its_cost() -> None:
    """Its row has the sum of the tokens; which model made which of them it does not say."""
    usage = {"input_tokens": 10, "output_tokens": 10, "iterations": [
        {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 10, "output_tokens": 10},
        {"type": "message", "input_tokens": 10, "output_tokens": 10}]}  # fmt: skip
    ledger = MemoryLedger()
    made = call(usage, "anthropic", "claude-haiku-4-5", started_ns=1_784_000_000 * 10**9)
    assert made.cost.usd == Decimal("0.00036") and len(made.cost.lines) == 4
    ledger.finished(made)
    found = reprice(ledger, HALF, label="half", reason="r")
    assert found.total.before == found.total.after == made.cost.usd
