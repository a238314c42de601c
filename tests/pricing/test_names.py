"""Names as they reach a ledger, to the models they mean."""

from __future__ import annotations

import pytest

from attribkit.pricing.engine import PriceEngine

CHAT = {"prompt_tokens": 10, "completion_tokens": 1}
AT = "2026-11-15"


@pytest.mark.parametrize(
    ("provider", "name", "means"),
    [
        ("openai", "gpt-5.4-20260305", "openai/gpt-5.4"),
        ("openai", "openai/gpt-5-mini", "openai/gpt-5-mini"),
        ("openai", "@my-openai/gpt-4.1", "openai/gpt-4.1"),
        ("openai", "GPT-4.1", "openai/gpt-4.1"),
        ("openai", "ft:gpt-4.1-2025-04-14:acme::x", "openai/ft:gpt-4.1-2025-04-14"),
        ("azure", "azure/gpt-4.1-2025-04-14", "azure/gpt-4.1-2025-04-14"),
        ("anthropic", "anthropic/claude-opus-4.5", "anthropic/claude-opus-4-5"),
        ("anthropic", "claude-opus-4-5-20251101", "anthropic/claude-opus-4-5"),
        ("gemini", "models/gemini-2.5-pro", "gemini/gemini-2.5-pro"),
        ("gemini", "google/gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ("vertex", "publishers/google/models/gemini-2.5-flash", "vertex/gemini-2.5-flash"),
        ("vertex", "projects/p/locations/us-east5/publishers/anthropic/models/claude-opus-5", "vertex/claude-opus-5"),
        ("vertex", "claude-opus-4-5@20251101", "vertex/claude-opus-4-5"),
        ("vertex_ai", "vertex_ai/claude-opus-4-6@default", "vertex/claude-opus-4-6"),
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", "bedrock/anthropic.claude-haiku-4-5"),
        ("bedrock", "bedrock/converse/us.anthropic.claude-opus-4-6-v1", "bedrock/anthropic.claude-opus-4-6"),
        (
            "bedrock",
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-haiku-4-5-20251001-v1:0",
            "bedrock/anthropic.claude-haiku-4-5",
        ),
        ("bedrock", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "bedrock/amazon.nova-pro-v1:0"),
        ("groq", "groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("groq", "openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("together", "together_ai/deepseek-ai/DeepSeek-V3", "together/deepseek-ai/DeepSeek-V3"),
        ("together", "deepseek-ai/deepseek-v3", "together/deepseek-ai/DeepSeek-V3"),
        (None, "gpt-4.1", "openai/gpt-4.1"),
        (None, "claude-opus-5", "anthropic/claude-opus-5"),
        (None, "groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        (None, "us.anthropic.claude-haiku-4-5-20251001-v1:0", "bedrock/anthropic.claude-haiku-4-5"),
    ],
)  # fmt: skip
def test_name(provider: str | None, name: str, means: str) -> None:
    cost = PriceEngine.bundled().price(CHAT, provider=provider, model=name, at=AT)
    assert cost.priced_as == means, cost.reason


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "gpt-4o-enterprise-private"),
        ("openai", "ft:gpt-unheard-of:acme::x"),
        ("openai", "ft:"),
        ("anthropic", "claude-sonnet-7-20270301"),
        ("gemini", "gemini-2.5-flash-mega"),
        ("vertex", "projects/p/locations/l/endpoints/1234567890"),
        ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6"),
        ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc"),
        ("bedrock", "arn:"),
        ("openrouter", "some-lab/unlisted-model-7b"),
        ("openai", "/"),
        ("openai", "@"),
        ("openai", "a" * 10_000),
        (None, "gpt-oss-120b"),
        (None, "llama-3.3-70b"),
    ],
)
def test_a_name_without_a_price(provider: str | None, name: str) -> None:
    cost = PriceEngine.bundled().price(CHAT, provider=provider, model=name, at=AT)
    assert cost.usd is None and cost.reason


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "gpt-4o-2031-01-01"),
        ("openai", "gpt-5.4-20261305"),
        ("openai", "ft:gpt-4o-2029-08-06:acme::x"),
        ("vertex", "claude-opus-4-5@20270101"),
        ("bedrock", "global.anthropic.claude-haiku-4-5-20270101-v1:0"),
    ],
)
def test_a_snapshot_dated_after_the_call_is_no_snapshot_of_a_known_model(provider: str, name: str) -> None:
    engine = PriceEngine(PriceEngine.bundled().catalog, PriceEngine.bundled().overrides)
    for at in (AT, "2026-11-16"):
        assert engine.price(CHAT, provider=provider, model=name, at=at).usd is None
    if "1305" not in name:
        assert engine.price(CHAT, provider=provider, model=name, at="2031-01-02").usd
        assert engine.price(CHAT, provider=provider, model=name, at=AT).usd is None


def test_the_nearest_of_a_routers_variant_is_the_model() -> None:
    cost = PriceEngine.bundled().price(
        {"prompt_tokens": 1, "completion_tokens": 1}, provider="openrouter", model="openai/gpt-4o:nitro"
    )
    assert cost.usd is None and "nearest known: openai/gpt-4o," in str(cost.reason)
