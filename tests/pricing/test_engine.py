"""What the price engine promises beside the numbers: states, reasons, versions, dates, forms of time, worst cases."""

from __future__ import annotations

import decimal
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from attribkit.pricing.engine import PriceEngine
from attribkit.usage.model import NO_USAGE, Usage
from attribkit.usage.read import read_usage

CHAT = {"prompt_tokens": 1_000_000, "completion_tokens": 100_000}


@pytest.fixture
def engine() -> PriceEngine:
    return PriceEngine.bundled()


def test_lines_explain_the_cost(engine: PriceEngine) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}}
    cost = engine.price(usage, model="gpt-4.1-2025-04-14", provider="openai", at="2026-11-15")
    assert [(line.meter, line.quantity, str(line.unit_price)) for line in cost.lines] == [
        ("input", 40, "0.000002"),
        ("cache_read", 60, "5E-7"),
        ("output", 10, "0.000008"),
    ]
    assert cost.usd == Decimal("0.00019")
    assert cost.priced_as == "openai/gpt-4.1"
    assert cost.price_version == engine.version


@pytest.mark.parametrize(
    "at",
    [
        "2025-06-09",
        "2025-06-09T23:59:59Z",
        "2025-06-10T01:00:00+02:00",
        date(2025, 6, 9),
        datetime(2025, 6, 9, 12),
        datetime(2025, 6, 9, 12, tzinfo=UTC),
        int(datetime(2025, 6, 9, 12, tzinfo=UTC).timestamp()) * 10**9,
    ],
)
def test_a_price_holds_at_its_time_in_every_form_of_time(engine: PriceEngine, at: Any) -> None:
    assert engine.price(CHAT, model="o3", provider="openai", at=at).usd == Decimal(14)
    assert engine.price(CHAT, model="o3", provider="openai", at="2025-06-10").usd == Decimal("2.8")


def test_a_time_that_is_none_is_said(engine: PriceEngine) -> None:
    cost = engine.price(CHAT, model="o3", provider="openai", at="last week")
    assert cost.status == "unpriced" and "last week" in (cost.reason or "")


def test_unknown_model_names_the_nearest(engine: PriceEngine) -> None:
    cost = engine.price(CHAT, model="gpt-6-sol-xl", provider="openai")
    assert cost.usd is None and "gpt-6-sol" in (cost.reason or "")
    assert engine.nearest("gpt-6-sol-xl", "openai")[0] == "openai/gpt-6-sol"


@pytest.mark.parametrize(
    ("provider", "model", "said"),
    [
        ("vllm", "my-model", "price overrides"),
        ("azure", "gpt4o-team-a", "[[name]]"),
        ("openai", "", "names no model"),
        ("openai", None, "names no model"),
        (None, "some-model", "no provider"),
        ("nobody", "gpt-4o", "no price list"),
        (7, "gpt-4o", ""),
        ("openai", ["gpt-4o"], ""),
    ],
)
def test_unpriced_says_why(engine: PriceEngine, provider: Any, model: Any, said: str) -> None:
    cost = engine.price(CHAT, model=model, provider=provider)
    assert cost.usd is None and cost.status == "unpriced" and said in (cost.reason or "") and cost.reason


def test_region_without_a_price_is_unpriced_where_regions_differ(engine: PriceEngine) -> None:
    cost = engine.price(CHAT, model="gpt-4o-2024-08-06", provider="azure", region="marscentral")
    assert cost.usd is None and "marscentral" in (cost.reason or "")


def test_tier_without_a_price_is_unpriced(engine: PriceEngine) -> None:
    cost = engine.price(CHAT, model="gpt-4-0613", provider="openai", service_tier="priority")
    assert cost.usd is None and "priority" in (cost.reason or "")


@pytest.mark.parametrize("tier", [None, "", "default", "standard", "auto", "on_demand", "Default"])
def test_words_for_the_standard_tier(engine: PriceEngine, tier: str | None) -> None:
    assert engine.price(CHAT, model="gpt-4.1", provider="openai", service_tier=tier).usd == Decimal("2.8")


def test_served_beats_asked(engine: PriceEngine) -> None:
    usage = read_usage({"input_tokens": 1_000_000, "output_tokens": 0, "service_tier": "batch"}, provider="anthropic")
    asked = engine.cost(usage, provider="anthropic", model="claude-haiku-4-5", service_tier="standard")
    assert asked.usd == Decimal("0.5")
    usage = read_usage({"model": "gpt-4.1-mini", "usage": CHAT}, provider="openai")
    assert engine.cost(usage, provider="openai", model="gpt-4.1").priced_as == "openai/gpt-4.1-mini"


def test_free_is_not_unpriced(engine: PriceEngine) -> None:
    cost = engine.price({"prompt_tokens": 5, "total_tokens": 5}, model="omni-moderation-latest", provider="openai")
    assert (cost.usd, cost.status) == (Decimal(0), "free") and cost.reason
    cost = engine.price(CHAT, model="meta-llama/llama-9:free", provider="openrouter")
    assert cost.status == "free"


def test_estimates_say_how(engine: PriceEngine) -> None:
    usage = Usage((("input", 100), ("output", 7)), estimated="the stream was cut after 7 chunks")
    cost = engine.cost(usage, provider="openai", model="gpt-4.1")
    assert cost.status == "estimated" and cost.reason == usage.estimated and cost.usd == Decimal("0.000256")


@pytest.mark.parametrize("usage", [NO_USAGE, Usage(known=False, problems=("prompt_tokens is -1, not a count",))])
def test_no_usage_is_unpriced(engine: PriceEngine, usage: Usage) -> None:
    cost = engine.cost(usage, provider="openai", model="gpt-4.1")
    assert cost.status == "unpriced" and "usage" in (cost.reason or "")


def test_zero_tokens_are_no_silent_zero(engine: PriceEngine) -> None:
    cost = engine.price({"prompt_tokens": 0, "completion_tokens": 0}, model="gpt-4.1", provider="openai")
    assert cost.usd is None


def test_openrouter_states_its_charge(engine: PriceEngine) -> None:
    usage = {
        **CHAT, "cost": 0.000001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02},
    }  # fmt: skip
    cost = engine.price(usage, model="some/model", provider="openrouter")
    assert (cost.usd, cost.stated_usd, cost.status) == (Decimal("0.020001"), Decimal("0.020001"), "priced")
    unknown = engine.price({**usage, "cost_details": {}}, model="some/model", provider="openrouter")
    assert unknown.usd is None
    listed = engine.price({**usage, "cost_details": {}}, model="openai/gpt-4o", provider="openrouter")
    assert listed.status == "estimated" and "own key" in (listed.reason or "")


def test_what_a_gateway_states_stands_beside(engine: PriceEngine) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost_in_usd_ticks": 600_000}
    cost = engine.price(usage, model="grok-4.6", provider="xai", at="2026-11-15")
    assert cost.stated_usd == Decimal("0.00006") and cost.usd == Decimal("0.00005")


def test_peak_hours_are_working_hours(engine: PriceEngine) -> None:
    def at(moment: str) -> Decimal | None:
        return engine.price(CHAT, model="deepseek-v4-pro", provider="deepseek", at=moment).usd

    off, peak = Decimal("0.858"), Decimal("1.716")
    assert at("2026-10-15T00:59:59Z") == off
    assert at("2026-10-15T01:00:00Z") == peak
    assert at("2026-10-15T03:59:59Z") == peak
    assert at("2026-10-15T04:00:00Z") == off
    assert at("2026-10-18T02:00:00Z") == off  # a Sunday
    assert at("2026-10-05T02:00:00Z") == off  # a holiday
    assert at("2026-08-16T15:59:00Z") == Decimal("0.522")  # before hours mattered


@pytest.mark.parametrize(
    ("provider", "word"),
    [
        ("google", "gemini"),
        ("vertex_ai", "vertex"),
        ("azure_openai", "azure"),
        ("x-ai", "xai"),
        ("aws.bedrock", "bedrock"),
    ],
)
def test_sellers_by_the_words_of_sdks(engine: PriceEngine, provider: str, word: str) -> None:
    assert engine.seller_of(provider, None) == word
    assert engine.known(provider) == engine.known(word) != ()


def test_the_application_s_decimal_context_does_not_matter(engine: PriceEngine) -> None:
    with decimal.localcontext(prec=3):
        cost = engine.price({"prompt_tokens": 123_457, "completion_tokens": 0}, model="gpt-5-nano", provider="openai")
    assert cost.usd == Decimal("0.00617285")


def test_ceiling_is_never_below_the_cost(engine: PriceEngine) -> None:
    ceiling = engine.ceiling(
        provider="anthropic", model="claude-haiku-5-5", input_tokens=120_000, max_output_tokens=4_000
    )
    usage = {"input_tokens": 20_000, "cache_creation_input_tokens": 100_000, "output_tokens": 4_000,
             "cache_creation": {"ephemeral_1h_input_tokens": 100_000}}  # fmt: skip
    cost = engine.price(usage, provider="anthropic", model="claude-haiku-5-5").usd
    assert ceiling is not None and cost is not None and cost <= ceiling
    assert engine.ceiling(provider="openai", model="gpt-unheard-of", input_tokens=1, max_output_tokens=1) is None


def test_memory_is_bounded(engine: PriceEngine) -> None:
    own = PriceEngine(engine.catalog, engine.overrides)
    for number in range(10_000):
        own.price(CHAT, model=f"model-{number}", provider="vllm")
    assert len(own._entries) <= 4_096 and len(own._sellers) <= 4_096


def test_age(engine: PriceEngine) -> None:
    built = date.fromisoformat(engine.catalog.built)
    assert engine.age_days(built) == 0
    assert engine.age_days(datetime(built.year, built.month, built.day, tzinfo=UTC)) == 0
