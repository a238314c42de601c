"""Calls beside the corpus, worked out by hand from the published numbers: other models, dates, regions and tiers of the
same traps, and every kind of name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from attribkit.pricing.engine import PriceEngine

CHAT = {"prompt_tokens": 1_000, "completion_tokens": 100}
MESSAGES = {"input_tokens": 1_000, "output_tokens": 100}
CONVERSE = {"inputTokens": 1_000, "outputTokens": 100}
GEMINI = {"promptTokenCount": 1_000, "candidatesTokenCount": 100}


def price(usage: Any, **asked: Any) -> Any:
    return PriceEngine.bundled().price(usage, **{"at": "2026-11-15", **asked})


@pytest.mark.parametrize(
    ("provider", "model", "per_million", "asked"),
    [
        # fine-tuned: the base decides, with its date or without, through a router's prefix, at a checkpoint
        ("openai", "ft:gpt-4.1-nano-2025-04-14:acme::AbC", ("0.2", "0.8"), {}),
        ("openai", "ft:gpt-3.5-turbo-0125:acme:support:9xyz:ckpt-step-90", ("3", "6"), {}),
        ("openai", "ft:gpt-4.1:acme::AbC", ("3", "12"), {}),
        ("openai", "openai/ft:o4-mini-2025-04-16:acme::AbC", ("4", "16"), {}),
        # Azure: deployment types in LiteLLM's prefix, in the region, in the portal's spelling
        ("azure", "azure/eu/gpt-4o-2024-08-06", ("2.75", "11"), {}),
        ("azure", "azure/us/gpt-4.1-2025-04-14", ("2.2", "8.8"), {}),
        ("azure", "azure/global-standard/gpt-4o-2024-08-06", ("2.5", "10"), {}),
        ("azure", "gpt-4o-2024-08-06", ("2.75", "11"), {"region": "datazone-us"}),
        ("azure", "gpt-4o-2024-08-06", ("2.75", "11"), {"region": "East US"}),
        ("azure", "gpt-4.1", ("3.85", "15.4"), {"region": "datazone-eu", "service_tier": "priority"}),
        # Bedrock: bare ids, profiles, ARNs, LiteLLM's region, GovCloud
        ("bedrock", "global.anthropic.claude-sonnet-4-6", ("3", "15"), {"region": "eu-west-1"}),
        ("bedrock", "eu.anthropic.claude-sonnet-4-6", ("3.3", "16.5"), {"region": "eu-west-1"}),
        ("bedrock", "bedrock/us-west-2/anthropic.claude-haiku-4-5-20251001-v1:0", ("1.1", "5.5"), {}),
        ("bedrock", "arn:aws-us-gov:bedrock:us-gov-west-1:123:inference-profile/us-gov.anthropic.claude-sonnet-4-5-"
         "20250929-v1:0", ("3.6", "18"), {}),
        ("bedrock", "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
         ("0.25", "1.25"), {}),
        ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", ("0.125", "0.625"), {"batch": True}),
        ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0:200k", ("3", "15"), {"at": "2025-06-01"}),
        ("bedrock", "moonshotai.kimi-k2-thinking", ("0.6", "2.5"), {}),
        ("bedrock", "moonshotai.kimi-k2-thinking", ("0.73", "3.03"), {"region": "ap-northeast-1"}),
        ("bedrock", "moonshotai.kimi-k2.5", ("1.05", "5.25"), {"service_tier": "priority"}),
        ("bedrock", "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
         ("0.078", "0.312"), {}),
        # Vertex: "@" dates, releases, publishers left out, its own price where it differs from the Gemini API
        ("vertex", "claude-3-5-sonnet-v2@20241022", ("3", "15"), {}),
        ("vertex", "claude-sonnet-4-5@20250929", ("3.3", "16.5"), {"region": "europe-west1"}),
        ("vertex", "publishers/anthropic/models/claude-haiku-4-5@20251001", ("1", "5"), {"region": "global"}),
        ("vertex", "projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro", ("1.25", "10"), {}),
        ("vertex", "projects/p/locations/europe-west1/publishers/anthropic/models/claude-haiku-4-5@20251001",
         ("1.1", "5.5"), {}),
        ("vertex", "projects/p/locations/global/publishers/anthropic/models/claude-haiku-4-5@20251001", ("1", "5"), {}),
        ("vertex", "llama-3.3-70b-instruct-maas", ("0.72", "0.72"), {}),
        ("vertex", "gemini-2.0-flash-001", ("0.15", "0.6"), {}),
        ("gemini", "gemini-2.0-flash-001", ("0.1", "0.4"), {}),
        ("gemini", "gemini-2.0-flash", ("0.05", "0.2"), {"batch": True}),
        # routers: variants keep the model's price only where they do
        ("openrouter", "anthropic/claude-3.7-sonnet:thinking", ("3", "15"), {}),
        ("openrouter", "openrouter/openai/gpt-4o", ("2.5", "10"), {}),
        ("openai", "@openai-prod/gpt-4.1", ("2", "8"), {}),
        ("bedrock", "@aws-prod/us.anthropic.claude-sonnet-4-5-20250929-v1:0", ("3.3", "16.5"), {}),
        ("anthropic", "anthropic/claude-haiku-4.5", ("1", "5"), {}),
        # residency: any region of models released since 2026-03-05, none of the older ones
        ("openai", "gpt-6-sol", ("2.2", "11"), {"region": "jp"}),
        ("openai", "gpt-5.4-mini", ("0.825", "4.95"), {"region": "eu"}),
        ("openai", "o3", ("2", "8"), {"region": "eu"}),
        # batch by the seller's rule of half
        ("groq", "llama-3.3-70b-versatile", ("0.295", "0.395"), {"batch": True}),
        ("mistral", "mistral-medium-2508", ("0.2", "1"), {"batch": True}),
        ("openai", "o3-deep-research", ("5", "20"), {"batch": True}),
    ],
)  # fmt: skip
def test_plain_calls(provider: str, model: str, per_million: tuple[str, str], asked: dict[str, Any]) -> None:
    cost = price(CHAT, provider=provider, model=model, **asked)
    want = (1_000 * Decimal(per_million[0]) + 100 * Decimal(per_million[1])) / 1_000_000
    assert cost.usd == want, cost


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "ft:gpt-9-2027-01-01:acme::AbC"),
        ("openai", "gpt-4.1-ultra"),
        ("openai", "o5-max"),
        ("azure", "prod-chat-eastus"),
        ("azure", "gpt-4o-2024-08-06.ft-0e6b6a8c"),
        ("anthropic", "claude-sonnet-4-99"),
        ("anthropic", "claude-opus-6-20270101"),
        ("gemini", "tunedModels/my-model-123"),
        ("gemini", "gemini-9-pro"),
        ("vertex", "projects/p/locations/us-central1/endpoints/1234567890"),
        ("vertex", "claude-opus-9@20270101"),
        ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef"),
        ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abcdef"),
        ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"),
        ("bedrock", "us.anthropic.claude-opus-9-v1:0"),
        ("mistral", "mistral-huge-2701"),
        ("deepseek", "deepseek-v9"),
        ("xai", "grok-99"),
        ("cohere", "command-z-2027"),
        ("groq", "llama-9-8b-instant"),
        ("openrouter", "openai/gpt-4.1:nitro"),  # the price is that of whichever provider answers
        ("perplexity", "sonar-ultra"),
        ("voyage", "voyage-99"),
        ("together", "meta-llama/Llama-9-70B"),
        ("zai", "glm-99"),
        ("tierup", "tier-3"),
        ("custom", "gpt-4o"),
        ("vllm", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_names_that_nobody_prices(provider: str, model: str) -> None:
    usage = MESSAGES if provider == "anthropic" else GEMINI if provider == "gemini" else CHAT
    cost = price(usage, provider=provider, model=model)
    assert cost.status == "unpriced" and cost.usd is None and cost.reason, cost


def test_steps_hold_for_the_whole_call_and_start_after_their_threshold() -> None:
    def usd(tokens: int, provider: str, model: str, **more: Any) -> Any:
        return price({"prompt_tokens": tokens, "completion_tokens": 0}, provider=provider, model=model, **more).usd

    assert usd(272_000, "openai", "gpt-5.5") == Decimal("1.36")
    assert usd(272_001, "openai", "gpt-5.5") == Decimal("2.72001")
    assert usd(199_999, "xai", "grok-4.20-0309-reasoning") == Decimal("0.24999875")
    assert usd(200_000, "xai", "grok-4.20-0309-reasoning") == Decimal("0.5")  # from the threshold itself
    assert usd(130_000, "xai", "grok-4", at="2026-01-10") == Decimal("0.78")
    assert usd(130_000, "xai", "grok-4-fast-reasoning", at="2026-01-10") == Decimal("0.052")
    assert usd(300_000, "gemini", "gemini-2.5-pro-preview-06-05", at="2025-07-01") == Decimal("0.75")
    assert usd(200_000, "gemini", "gemini-3.1-pro-preview") == Decimal("0.4")
    assert usd(200_001, "gemini", "gemini-3.1-pro-preview") == Decimal("0.800004")
    assert usd(272_001, "openai", "gpt-6-sol", region="eu") == Decimal("1.1968044")


def test_dates() -> None:
    def usd(provider: str, model: str, at: str) -> Any:
        return price(
            {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}, provider=provider, model=model, at=at
        )

    assert usd("openai", "gpt-4o", "2024-06-01").usd == Decimal(20)  # the name meant 2024-05-13
    assert usd("openai", "gpt-4o", "2024-11-01").usd == Decimal("12.5")
    assert usd("openai", "gpt-4o-2024-05-13", "2026-01-01").usd == Decimal(20)
    assert usd("openai", "gpt-3.5-turbo-0125", "2024-03-01").usd == Decimal(2)
    assert usd("mistral", "mistral-large-latest", "2024-03-01").usd == Decimal(32)
    assert usd("gemini", "gemini-1.5-flash", "2024-07-01").usd == Decimal("2.8")  # beyond its 128k step
    assert usd("cohere", "command-r", "2024-07-01").usd == Decimal(2)


@pytest.mark.parametrize(
    ("usage", "model", "usd"),
    [
        ({"characters": 2_000}, "tts-1", "0.03"),
        ({"characters": 2_000}, "tts-1-hd", "0.06"),
        ({"images": 2, "size": "1024x1792", "quality": "hd"}, "dall-e-3", "0.24"),
        ({"images": 1, "size": None, "quality": None}, "dall-e-3", "0.04"),
        ({"images": 3, "size": "512x512", "quality": None}, "dall-e-2", "0.054"),
        ({"images": 1, "size": "1024x1536", "quality": "high"}, "gpt-image-1", "0.25"),
        ({"video_seconds": 8}, "sora-2", "0.8"),
        ({"type": "duration", "seconds": 90}, "whisper-1", "0.009"),
        ({"images": 1, "size": "auto", "quality": "auto"}, "gpt-image-1", None),  # nobody says what was made
    ],
)
def test_what_is_not_counted_in_tokens(usage: dict[str, Any], model: str, usd: str | None) -> None:
    cost = price(usage, provider="openai", model=model)
    assert cost.usd == (None if usd is None else Decimal(usd)), cost


def reply(model: str, tools: list[str], *items: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "resp-1", "model": model, "tools": [{"type": kind} for kind in tools], "output": list(items),
        "usage": {"input_tokens": 1_000, "output_tokens": 100},
    }  # fmt: skip


SEARCH = {"type": "web_search_call", "action": {"type": "search"}}
OPEN = {"type": "web_search_call", "action": {"type": "open_page"}}
FILES = {"type": "file_search_call"}
CODE = {"type": "code_interpreter_call", "container_id": "cntr_1"}


@pytest.mark.parametrize(
    ("tools", "items", "fee"),
    [
        (["web_search"], [SEARCH, SEARCH, OPEN], "0.02"),
        (["web_search_preview_2025_03_11"], [SEARCH], "0.025"),
        (["file_search"], [FILES, FILES], "0.005"),
        (["code_interpreter"], [CODE, CODE, {**CODE, "container_id": "cntr_2"}], "0.06"),
        ([], [{"type": "message", "content": []}], "0"),
    ],
)
def test_tool_fees_of_a_whole_reply(tools: list[str], items: list[dict[str, Any]], fee: str) -> None:
    tokens = price({"input_tokens": 1_000, "output_tokens": 100}, provider="openai", model="gpt-4.1")
    cost = price(reply("gpt-4.1-2025-04-14", tools, *items), provider="openai", model="gpt-4.1")
    assert cost.usd - tokens.usd == Decimal(fee), cost


def test_fees_are_not_halved_by_a_tier_nor_raised_by_a_region() -> None:
    whole = reply("gpt-6-sol", ["web_search"], SEARCH)
    for asked in ({"batch": True}, {"region": "eu"}, {"service_tier": "flex"}):
        fees = [line.usd for line in price(whole, provider="openai", model="gpt-6-sol", **asked).lines[2:]]
        assert fees == [Decimal("0.01")]


def test_a_whole_reply_states_its_tier() -> None:
    whole = {**reply("o3-2025-04-16", []), "service_tier": "flex"}
    assert price(whole, provider="openai", model="o3", service_tier="priority").usd == Decimal("0.0014")
    converse = {"usage": CONVERSE, "serviceTier": {"type": "flex"}}
    assert price(converse, provider="bedrock", model="amazon.nova-pro-v1:0").usd == Decimal("0.00056")
    fast = {"usage": CONVERSE, "performanceConfig": {"latency": "optimized"}}
    assert price(fast, provider="bedrock", model="amazon.nova-pro-v1:0").usd == Decimal("0.0014")
    assert price(fast, provider="bedrock", model="amazon.nova-lite-v1:0").usd is None


def test_history_is_that_of_the_price_and_not_of_a_list_that_learned_late() -> None:
    def usd(provider: str, model: str, at: str) -> Decimal | None:
        usage = {"prompt_tokens": 1_000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 1_000}}
        return price(usage, provider=provider, model=model, at=at).usd

    assert usd("gemini", "gemini-2.5-pro", "2025-09-01") == Decimal("0.00031")
    assert usd("gemini", "gemini-2.5-pro", "2026-01-10") == Decimal("0.000125")
    assert usd("openai", "gpt-5.1", "2026-01-10") == Decimal("0.000125")
    assert usd("openai", "o1-mini", "2025-01-30") == Decimal("0.0015")
    assert usd("openai", "o1-mini", "2025-02-01") == Decimal("0.00055")
    assert price(CHAT, provider="groq", model="openai/gpt-oss-120b", at="2025-09-01").usd == Decimal("0.000225")
    assert price(CHAT, provider="groq", model="openai/gpt-oss-120b", at="2026-01-01").usd == Decimal("0.00021")
    assert price(CHAT, provider="vertex", model="gemini-1.0-pro-001", at="2024-06-01").usd == Decimal("0.00065")
    nova = price(CHAT, provider="bedrock", model="global.amazon.nova-2-lite-v1:0", at="2026-07-01", region="us-east-1")
    assert nova.usd == Decimal("0.00055")
