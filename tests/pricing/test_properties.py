"""What holds for every usage: nothing lost, nothing negative, nothing raised, more never cheaper.

Many more examples: ATTRIBKIT_MANY_EXAMPLES=50000 python -m pytest tests/pricing/test_properties.py -k garbage
"""

from __future__ import annotations

import math
import os
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from attribkit.pricing.engine import PriceEngine
from attribkit.usage.read import read_usage

ENGINE = PriceEngine.bundled()
MODELS = st.sampled_from(
    [
        ("openai", "gpt-4.1"), ("openai", "gpt-5.6-sol"), ("openai", "gpt-audio"), ("anthropic", "claude-haiku-5-5"),
        ("anthropic", "claude-opus-5"), ("gemini", "gemini-2.5-pro"), ("gemini", "gemini-2.5-flash"),
        ("xai", "grok-4.6"), ("deepseek", "deepseek-v4-pro"), ("azure", "gpt-5.4"), ("mistral", "mistral-large-2512"),
    ]
)  # fmt: skip
COUNT = st.integers(0, 90_000)
MANY = int(os.environ.get("ATTRIBKIT_MANY_EXAMPLES", "0"))
AT = "2026-11-15"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
        "input_tokens", "output_tokens", "input_tokens_details", "input_token_details", "cached_tokens",
        "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "server_tool_use", "service_tier",
        "inference_geo", "speed", "promptTokenCount", "promptTokensDetails", "candidatesTokenCount", "trafficType",
        "thoughtsTokenCount", "inputTokens", "outputTokens", "cacheDetails", "cacheWriteInputTokens", "billed_units",
        "seconds", "cost", "is_byok", "cost_details", "usage", "model", "response", "gen_ai.usage.input_tokens",
        "cost_in_usd_ticks", "search_context_size", "results", "inputTextTokenCount", "pages_processed",
    ]
)  # fmt: skip
PAYLOAD = st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=3), max_size=6)


@given(
    PAYLOAD | JSON, st.sampled_from(["openai", "anthropic", "gemini", "bedrock", "xai", "openrouter", "perplexity", ""])
)
@settings(max_examples=MANY or 250, deadline=None)
def test_garbage_is_a_state_never_an_exception(payload: Any, provider: str) -> None:
    usage = read_usage(payload, provider=provider)
    for meter, quantity in usage.meters:
        assert isinstance(meter, str)
        assert quantity > 0 and math.isfinite(quantity)
    cost = ENGINE.price(payload, provider=provider or None, model="gpt-4.1", at=AT)
    assert cost.status in ("priced", "free", "unpriced", "estimated")
    assert (cost.usd is None) == (cost.status == "unpriced")
    assert cost.usd is None or (cost.usd >= 0 and cost.usd.is_finite())
    assert cost.reason or cost.status == "priced"


SELLERS = [*ENGINE.catalog.sellers, "acme", "", None]
NAMES = st.sampled_from(
    [
        "gpt-4.1", "claude-opus-5", "gemini-2.5-pro", "us.amazon.nova-pro-v1:0", "arn:aws:bedrock:", "arn:x/y", "ft:",
        "@", "@/", "a" * 5_000, "projects//locations//publishers//models/", "gpt-4o-2024-99-99", ":", "-latest",
    ]
)  # fmt: skip
WORDS = NAMES | st.text(max_size=12) | st.sampled_from(
    ["flex", "us", "eu-west-1", "global", "datazone-us", "2026-11-15", "2026-13-4", "9999-12-31T23:59:59-14:00"]
)  # fmt: skip


@given(
    st.fixed_dictionaries({"prompt_tokens": COUNT, "completion_tokens": COUNT}) | PAYLOAD,
    st.fixed_dictionaries(
        {"provider": st.sampled_from(SELLERS) | WORDS | JSON, "model": NAMES | WORDS | JSON},
        optional=dict.fromkeys(("api", "service_tier", "region", "batch", "at"), WORDS | JSON),
    ),
)
@settings(max_examples=MANY or 250, deadline=None)
def test_garbage_in_any_argument_is_a_state(payload: Any, asked: dict[str, Any]) -> None:
    cost = ENGINE.price(payload, **asked)
    assert (cost.usd is None) == (cost.status == "unpriced")
    assert cost.usd is None or (cost.usd >= 0 and cost.usd.is_finite())
    assert cost.reason or cost.status == "priced"


@given(MODELS, COUNT, COUNT, COUNT)
@settings(max_examples=80, deadline=None)
def test_more_tokens_never_cost_less_within_a_step(model: tuple[str, str], prompt: int, made: int, more: int) -> None:
    def usd(prompt: int, made: int) -> Decimal:
        payload = {"prompt_tokens": prompt + 1, "completion_tokens": made}
        cost = ENGINE.price(payload, provider=model[0], model=model[1], at=AT)
        assert cost.usd is not None
        return cost.usd

    assert usd(prompt, made + more) >= usd(prompt, made)
    if (prompt + more > 90_000) == (prompt > 90_000):
        assert usd(prompt + more, made) >= usd(prompt, made)


@given(MODELS, COUNT, COUNT, COUNT, COUNT)
@settings(max_examples=80, deadline=None)
def test_parts_add_up(model: tuple[str, str], text: int, cached: int, audio: int, made: int) -> None:
    payload = {
        "prompt_tokens": text + cached + audio + 1,
        "completion_tokens": made,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio},
    }
    usage = read_usage(payload, provider=model[0])
    assert usage.known
    assert usage.input_tokens == text + cached + audio + 1
    assert usage.output_tokens == made
    cost = ENGINE.cost(usage, provider=model[0], model=model[1], at=AT)
    assert cost.usd == sum((line.quantity * line.unit_price for line in cost.lines), Decimal(0))
    assert tuple((line.meter, line.quantity) for line in cost.lines) == usage.meters


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
@settings(max_examples=100, deadline=None)
def test_no_token_is_lost_in_any_dialect(text: int, read: int, short: int, long: int, made: int) -> None:
    anthropic = {
        "input_tokens": text, "cache_read_input_tokens": read, "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": made,
    }  # fmt: skip
    converse = {
        "inputTokens": text, "cacheReadInputTokens": read, "cacheWriteInputTokens": short + long, "outputTokens": made,
        "cacheDetails": [{"ttl": "5m", "inputTokens": short}, {"ttl": "1h", "inputTokens": long}],
    }  # fmt: skip
    langchain = {
        "input_tokens": text + read + short + long, "output_tokens": made,
        "input_token_details": {
            "cache_read": read, "ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long,
        },
    }  # fmt: skip
    first = read_usage(anthropic, provider="anthropic")
    assert first.input_tokens == text + read + short + long and first.output_tokens == made
    for payload, provider, api in ((converse, "bedrock", "converse"), (langchain, "anthropic", "langchain")):
        assert read_usage(payload, provider=provider, api=api).meters == first.meters


@given(COUNT, COUNT, COUNT, COUNT)
@settings(max_examples=60, deadline=None)
def test_ceiling_bounds_every_split(text: int, cached: int, written: int, made: int) -> None:
    for provider, model in (
        ("openai", "gpt-5.6-sol"),
        ("anthropic", "claude-haiku-5-5"),
        ("bedrock", "amazon.nova-pro-v1:0"),
    ):
        total = text + cached + written + 1
        ceiling = ENGINE.ceiling(provider=provider, model=model, input_tokens=total, max_output_tokens=made, at=AT)
        payload = {
            "prompt_tokens": total, "completion_tokens": made,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        }  # fmt: skip
        cost = ENGINE.price(payload, provider=provider, model=model, at=AT).usd
        assert cost is not None and ceiling is not None and cost <= ceiling
