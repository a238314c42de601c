"""What holds for one model of a family holds for its siblings: names, tiers, dates, regions, long prompts."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from attribkit.pricing import catalog
from attribkit.pricing.catalog import Catalog
from attribkit.pricing.engine import PriceEngine

MILLION = 1_000_000
IN = {"prompt_tokens": MILLION, "completion_tokens": 0}
OUT = {"prompt_tokens": 0, "completion_tokens": MILLION}
CACHED = {"prompt_tokens": MILLION, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": MILLION}}
HEARD = {"prompt_tokens": MILLION, "completion_tokens": 0, "prompt_tokens_details": {"audio_tokens": MILLION}}
HEARD_AGAIN = {"promptTokenCount": MILLION, "cachedContentTokenCount": MILLION,
               "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": MILLION}],
               "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": MILLION}]}  # fmt: skip
SEEN_AGAIN = {"promptTokenCount": MILLION, "cachedContentTokenCount": MILLION}


def usd(seller: str, model: str, usage: dict[str, Any], **asked: Any) -> str | None:
    cost = PriceEngine.bundled().price(usage, provider=seller, model=model, **{"at": "2026-11-15", **asked})
    return None if cost.usd is None else f"{cost.usd.normalize():f}"


CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], str | None]] = [
    # a name with "x-" in it is no size of an image
    ("azure", "codex-mini", IN, {"region": "global"}, "1.5"),
    ("azure", "azure/eu/codex-mini", IN, {}, "1.65"),
    ("bedrock", "minimax.minimax-m2.1", IN, {"region": "eu-west-1"}, "0.36"),
    # kinds of deployment, as Azure writes them; a zone that is not named has no price
    ("azure", "gpt-4o", IN, {"region": "GlobalBatch"}, "1.25"),
    ("azure", "gpt-4o", IN, {"region": "Data Zone US"}, "2.75"),
    ("azure", "gpt-4o", IN, {"region": "DataZoneStandard"}, None),
    ("azure", "gpt-4.1-mini", IN, {"region": "DataZoneProvisionedManaged"}, "0"),
    # Anthropic's own platform, billed by AWS
    ("bedrock", "claude_platform/claude-opus-4-8", {"input_tokens": MILLION}, {"region": "us-west-2"}, "5"),
    ("bedrock", "bedrock/claude_platform/claude-opus-4-8", {"input_tokens": MILLION, "inference_geo": "us"},
     {"region": "us-west-2"}, "5.5"),
    ("bedrock", "claude_platform/claude-opus-99", {"input_tokens": MILLION}, {}, None),
    # snapshots cost what their family costs; older ones what they cost themselves
    ("openai", "gpt-4o-mini-transcribe-2025-12-15", HEARD, {}, "3"),
    ("openai", "gpt-4o-mini-tts-2025-12-15", OUT, {}, "12"),
    ("openai", "gpt-4o-audio-preview-2024-10-01", HEARD, {}, "100"),
    ("openai", "gpt-4o-audio-preview-2024-12-17", HEARD, {}, "40"),
    ("openai", "gpt-4o-realtime-preview-2024-10-01", HEARD, {}, "100"),
    ("vertex", "claude-3-5-haiku@20241022", IN, {"region": "global", "at": "2025-06-01"}, "0.8"),
    ("gemini", "gemini-2.5-flash-lite-preview-06-17", HEARD, {}, "0.5"),
    # residency costs more only for models released since
    ("openai", "gpt-realtime-mini-2025-10-06", IN, {"region": "eu"}, "0.6"),
    ("openai", "gpt-realtime-2.1-mini", IN, {"region": "eu"}, "0.66"),
    # before a cut
    ("openai", "o3-2025-04-16", CACHED, {"at": "2025-05-20"}, "2.5"),
    ("openai", "o3-2025-04-16", IN, {"at": "2025-05-20", "service_tier": "priority"}, None),
    ("xai", "grok-4.20-reasoning-latest", OUT, {"at": "2026-04-10"}, "6"),
    ("xai", "grok-4.20-non-reasoning", OUT, {"at": "2026-06-10"}, "2.5"),
    ("bedrock", "us.openai.gpt-5.6-sol", OUT, {"at": "2026-08-01", "region": "us-east-1"}, "33"),
    ("deepseek", "deepseek-v4-pro", IN, {"at": "2026-05-02"}, "0.435"),
    ("deepseek", "deepseek-reasoner", CACHED, {"at": "2026-05-02"}, "0.0028"),
    # peak hours: at first every day, then not at weekends and on holidays
    ("deepseek", "deepseek-v4-pro", IN, {"at": "2026-08-22T02:00:00Z"}, "1.32"),
    ("deepseek", "deepseek-v4-pro", IN, {"at": "2026-08-23T02:00:00Z"}, "0.66"),
    ("deepseek", "deepseek-v4-pro", IN, {"at": "2026-10-07T08:30:00Z"}, "0.66"),
    ("deepseek", "deepseek-v4-pro", IN, {"at": "2026-10-08T08:30:00Z"}, "1.32"),
    # cached audio at the share of cached text; a batch's cached tokens at the ordinary price
    ("gemini", "gemini-2.5-flash-lite-preview-09-2025", HEARD_AGAIN, {}, "0.03"),
    ("gemini", "gemini-2.5-flash-lite-preview-06-17", HEARD_AGAIN, {"at": "2025-07-01"}, "0.125"),
    ("vertex", "gemini-2.0-flash-001", HEARD_AGAIN, {"region": "global"}, "0.25"),
    ("gemini", "gemini-2.0-flash", SEEN_AGAIN, {"batch": True, "at": "2026-02-01"}, "0.025"),
    ("gemini", "gemini-3-pro-preview", SEEN_AGAIN, {"batch": True, "at": "2026-01-20"}, "0.4"),
    ("azure", "gpt-4o-realtime-preview-2024-12-17",
     {**HEARD, "prompt_tokens_details": {"audio_tokens": MILLION, "cached_tokens": MILLION,
                                         "cached_tokens_details": {"audio_tokens": MILLION}}},
     {"at": "2025-03-01"}, "2.5"),
    ("gemini", "gemini-robotics-er-1.5-preview", HEARD, {"at": "2026-02-01"}, "1"),
    # tiers
    ("gemini", "gemini-flash-latest", OUT, {"service_tier": "flex"}, "1.875"),
    ("gemini", "gemini-flash-lite-latest", OUT, {"service_tier": "SERVICE_TIER_PRIORITY"}, "4.5"),
    ("gemini", "gemini-3.6-flash", OUT, {"service_tier": "priority", "at": "2026-07-30"}, "13.5"),
    ("gemini", "gemini-3.7-flash", OUT, {"batch": True, "at": "2027-01-02"}, "3.75"),
    ("gemini", "gemini-4-argon", OUT, {"service_tier": "priority", "at": "2026-12-02"}, "36"),
    ("openai", "computer-use-preview-2025-03-11", OUT, {"batch": True}, "6"),
    ("bedrock", "amazon.nova-premier-v1:0", OUT, {"service_tier": "flex", "region": "us-east-1"}, "6.25"),
    ("bedrock", "deepseek.v3-v1:0", OUT, {"service_tier": "priority", "region": "us-east-1"}, "2.94"),
    ("bedrock", "us.anthropic.claude-3-7-sonnet-20250219-v1:0", OUT, {"batch": True, "region": "us-east-1"}, "7.5"),
    ("mistral", "mistral-medium-3", CACHED, {"batch": True, "at": "2026-03-01"}, "0.02"),
    ("anthropic", "claude-opus-4-7", {"input_tokens": MILLION, "speed": "fast"}, {"at": "2026-06-01"}, "30"),
    ("anthropic", "claude-opus-4-6", {"input_tokens": MILLION, "speed": "fast"}, {"at": "2026-03-01"}, "60"),
    ("vertex", "claude-opus-4-6", {"input_tokens": 1, "speed": "fast"}, {"region": "global"}, None),
    # long prompts; what a tier does not discount, it does not discount there
    ("openai", "gpt-5.6-cyber", IN, {}, "25"),
    ("openai", "gpt-5.6-luna", IN, {"service_tier": "priority", "at": "2026-07-20"}, "4"),
    ("bedrock", "openai.gpt-5.5", IN, {"region": "us-east-1"}, "11"),
    ("bedrock", "anthropic.claude-sonnet-4-20250514-v1:0", IN, {"region": "us-east-1"}, "6"),
    ("gemini", "gemini-2.5-pro", CACHED, {"batch": True}, "0.25"),
    ("azure", "grok-4.3", OUT | {"prompt_tokens": MILLION}, {"region": "global"}, "7.5"),
    ("xai", "grok-4.5", {"prompt_tokens": 200_000, "completion_tokens": 0}, {"at": "2026-07-10"}, "0.8"),
    # regions
    ("azure", "gpt-35-turbo-0125", IN, {"region": "eastus"}, "0.55"),
    ("azure", "grok-3", IN, {"region": "datazone-eu"}, "3.3"),
    ("azure", "azure/us-gov/gpt-5.1", IN, {}, "1.71875"),
    # retired, and free
    ("groq", "distil-whisper-large-v3-en", {"seconds": 3_600}, {"at": "2025-03-01"}, "0.02"),
    ("bedrock", "anthropic.claude-v2", IN, {"at": "2024-06-01", "region": "us-east-1"}, "8"),
    ("mistral", "open-mixtral-8x22b-2404", IN, {"at": "2024-06-01"}, "2"),
    ("zai", "glm-4.7-flash", IN, {}, "0"),
    # images and videos by what they are priced by
    ("gemini", "imagen-4.0-ultra-generate-001", {"images": 2}, {"at": "2026-01-10"}, "0.12"),
    ("vertex", "imagen-3.0-generate-001", {"images": 2}, {"region": "us-central1"}, "0.08"),
    ("gemini", "veo-3.1-fast-generate-preview", {"video_seconds": 8}, {}, "0.8"),
    ("openai", "sora-2-pro", {"video_seconds": 8, "size": "1792x1024"}, {}, "4"),
    ("openai", "sora-2-pro", {"video_seconds": 8}, {}, "2.4"),
    ("openai", "sora-2-pro", {"video_seconds": 8, "size": "9x9"}, {}, None),
    # pixels are not tokens
    ("voyage", "voyage-multimodal-3", {"text_tokens": MILLION, "image_pixels": MILLION * 1_000,
                                       "total_tokens": 2_785_714}, {}, "0.72"),
    # a name that moves between models, and a retired name that its successor serves
    ("mistral", "mistral-small-latest", IN, {"at": "2024-10-01"}, "0.2"),
    ("mistral", "mistral-small-latest", OUT, {"at": "2026-03-16"}, "0.6"),
    ("mistral", "mistral-medium-latest", IN, {"at": "2024-10-01"}, "2.7"),
    ("mistral", "mistral-large-latest", IN, {"at": "2025-09-15"}, "0.4"),
    ("mistral", "mistral-large-latest", OUT, {"batch": True, "at": "2025-12-02"}, "0.75"),
    ("mistral", "codestral-latest", IN, {"at": "2024-10-01"}, "0.2"),
    ("mistral", "ministral-8b-latest", IN, {"at": "2026-01-01"}, "0.15"),
    ("mistral", "magistral-medium-latest", OUT, {"at": "2025-10-01"}, "5"),
    ("mistral", "magistral-medium-latest", OUT, {}, "7.5"),
    ("mistral", "mistral-saba-2502", IN, {"at": "2025-03-01"}, "0.2"),
    ("mistral", "mistral-large-4", IN, {"at": "2026-10-10"}, "0.68"),
    ("mistral", "mistral-large-4", IN, {"at": "2026-10-25"}, "1.36"),
    ("mistral", "mistral-large-4-0", IN, {}, "0.7"),
    ("xai", "grok-3", OUT, {"at": "2026-05-15T18:59:59Z"}, "15"),
    ("xai", "grok-3-latest", OUT, {"at": "2026-05-15T19:00:00Z"}, "2.5"),
    ("xai", "grok-4", {"prompt_tokens": 150_000, "completion_tokens": 0}, {"region": "us"}, "0.20625"),
    ("xai", "grok-code-fast-1", OUT, {"at": "2025-10-01"}, "1.5"),
    ("xai", "grok-code-fast-1", OUT, {}, "2"),
    ("deepseek", "deepseek-r1-0528", IN, {"at": "2025-06-18T12:00:00Z"}, "0.55"),
    ("deepseek", "deepseek-r1-0528", IN, {"at": "2025-06-18T18:00:00Z"}, "0.135"),
    ("xai", "grok-4", {"prompt_tokens": 1_000, "completion_tokens": 0, "num_sources_used": 4}, {"at": "2025-10-01"},
     "0.103"),
    # Bedrock by the region of the call, through a geographic profile too
    ("bedrock", "amazon.nova-pro-v1:0", IN, {"region": "eu-central-1"}, "1.05"),
    ("bedrock", "eu.amazon.nova-pro-v1:0", IN, {"region": "eu-north-1"}, "0.87"),
    ("bedrock", "us.amazon.nova-pro-v1:0", IN, {}, "0.8"),
    ("bedrock", "apac.amazon.nova-micro-v1:0", OUT, {"region": "ap-southeast-1"}, "0.188"),
    ("bedrock", "amazon.nova-pro-v1:0", OUT, {"region": "ap-south-1", "batch": True}, "1.88"),
    ("bedrock", "amazon.nova-pro-v1:0", IN, {"region": "eu-central-1", "service_tier": "flex"}, "0.525"),
    ("bedrock", "amazon.nova-pro-v1:0", IN, {"region": "mx-central-1"}, None),
    ("bedrock", "global.amazon.nova-2-lite-v1:0", OUT, {"region": "ap-northeast-1"}, "3.01"),
    ("bedrock", "global.amazon.nova-2-lite-v1:0", OUT, {}, "2.5"),
    ("bedrock", "us.amazon.nova-2-lite-v1:0", OUT, {"region": "us-west-2"}, "2.75"),
    ("bedrock", "openai.gpt-oss-120b-1:0", OUT, {"region": "eu-central-1"}, "0.79"),
    ("bedrock", "qwen.qwen3-32b-v1:0", IN, {"region": "ap-northeast-1", "service_tier": "priority"}, "0.315"),
    ("bedrock", "meta.llama3-2-1b-instruct-v1:0", IN, {"region": "eu-west-1"}, "0.11"),
    ("bedrock", "global.anthropic.claude-opus-5", OUT, {"region": "eu-west-1"}, "25"),
    ("bedrock", "eu.anthropic.claude-opus-5", OUT, {"region": "eu-west-1"}, "27.5"),
    ("bedrock", "us.anthropic.claude-3-5-sonnet-20241022-v2:0", IN, {"region": "us-east-1", "at": "2025-11-30"}, "3"),
    ("bedrock", "us.anthropic.claude-3-5-sonnet-20241022-v2:0", IN, {"region": "us-east-1", "at": "2025-12-01"}, "6"),
    ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", IN, {"region": "ap-south-1", "at": "2026-01-01"}, "3"),
    ("bedrock", "anthropic.claude-opus-4-20250514-v1:0", OUT, {"batch": True, "region": "us-east-1"}, "37.5"),
    # retired and free
    ("gemini", "gemini-2.0-flash-live-001", OUT, {"at": "2025-06-01"}, "1.5"),
    ("gemini", "gemini-2.5-pro-exp-03-25", IN, {"at": "2025-04-01"}, "0"),
    ("vertex", "gemma-3-27b-it", IN, {"region": "us-central1"}, None),
    ("moonshot", "kimi-latest", OUT, {"at": "2025-06-01"}, "5"),
    # audio at the price of text is cached like text
    ("gemini", "gemini-3.5-flash", HEARD_AGAIN, {}, "0.15"),
    ("gemini", "gemini-2.5-flash", HEARD_AGAIN, {}, "0.1"),
    # what a tier does not discount today, it did not discount before
    ("gemini", "gemini-3-flash-preview", SEEN_AGAIN, {"batch": True, "at": "2025-12-20"}, "0.05"),
    # no fee by the request where there is another fee, or no search
    ("perplexity", "sonar-deep-research", {**IN, "search_context_size": "low"}, {"at": "2026-06-15"}, "2"),
    ("perplexity", "r1-1776", {**OUT, "search_context_size": "high"}, {"at": "2025-04-01"}, "8"),
    # two products of one name, and what a seller does not sell
    ("perplexity", "perplexity/sonar", OUT, {}, "1"),
    ("perplexity", "perplexity/sonar", {"input_tokens": 0, "output_tokens": MILLION}, {"api": "responses"}, "2.5"),
    ("openai", "gpt-oss-120b", IN, {}, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seller", "model", "usage", "asked", "expected"), CASES, ids=[f"{n}-{case[1]}" for n, case in enumerate(CASES)]
)
def test_case(seller: str, model: str, usage: dict[str, Any], asked: dict[str, Any], expected: str | None) -> None:
    if model.startswith("gpt-4o-mini-tts"):
        assert usd(seller, model, usage, **asked) == usd(seller, "gpt-4o-mini-tts", usage, **asked) == expected
    assert usd(seller, model, usage, **asked) == expected


def rows(seller: str) -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    data = json.loads((Path(catalog.__file__).with_name("data") / f"{seller}.json").read_text())
    return [(model, entry, entry["rows"]) for model, entry in data["models"].items()]


@pytest.mark.parametrize("seller", ["gemini", "vertex"])
def test_an_announced_price_has_the_tiers_of_today(seller: str) -> None:
    for model, _, dated in rows(seller):
        announced = [row for row in dated if row.get("from", "") > Catalog.bundled().built and "standard" in row]
        now = [row for row in dated if row not in announced][-1]
        for row in announced:
            assert {"batch", "flex", "priority"} & set(now) <= set(row), (model, row["from"])


def test_every_name_of_claude_costs_on_vertex_what_its_maker_takes() -> None:
    at = "2026-11-15"
    for model, entry, _ in rows("anthropic"):
        for name in (model, *entry.get("names", ())):
            for usage in (IN, OUT):
                theirs = usd("vertex", name, usage, region="global", at=at)
                assert theirs in (None, usd("anthropic", name, usage, at=at)), name


def test_a_geographic_profile_has_the_tiers_and_steps_of_the_model() -> None:
    models = {model: dated for model, _, dated in rows("bedrock")}
    for model, dated in models.items():
        scope, _, bare = model.partition(".")
        if scope not in ("us", "eu", "apac", "jp", "au") or bare not in models or "standard" not in models[bare][-1]:
            continue
        now, base = dated[-1], models[bare][-1]
        if all(now["standard"].get(meter) == base["standard"].get(meter) for meter in ("input", "output")):
            assert {"batch", "flex", "priority", "steps"} & set(base) <= set(now), model


def test_a_step_has_the_tiers_of_its_row() -> None:
    """A tier without a price for long prompts is left out only where no list and no rule states one."""
    for seller in ("openai", "anthropic", "gemini", "vertex", "xai"):
        for model, _, dated in rows(seller):
            for row in dated:
                for step in row.get("steps", ()):
                    missing = {"batch", "flex"} & set(row) - set(step)
                    assert not missing, (seller, model, row.get("from"), missing)
                    for tier in {"batch", "flex", "priority"} & set(step):
                        dearer, base = Decimal(step[tier]["input"]), Decimal(row.get(tier, row["standard"])["input"])
                        assert dearer >= base, (seller, model, tier)


def advised(model: str | None) -> dict[str, Any]:
    asked = {"type": "advisor_message", "model": model} if model else {"type": "compaction"}
    return {"input_tokens": 1_000_000, "output_tokens": 100_000, "iterations": [
        {**asked, "input_tokens": 150_000, "cache_read_input_tokens": 100_000, "output_tokens": 10_000},
        {"type": "message", "input_tokens": 1_000_000, "output_tokens": 100_000}]}  # fmt: skip


def test_each_round_of_a_reply_has_the_price_of_its_model() -> None:
    """Opus 4.8 takes 5 and 25 USD a million, 0.5 from the cache; Haiku 4.5 takes 1 and 5."""
    engine = PriceEngine.bundled()
    asked: dict[str, Any] = {"provider": "anthropic", "model": "claude-haiku-4-5", "at": "2026-11-15"}
    assert engine.price(advised(None), **asked).usd == Decimal("0.15") + Decimal("0.01") + Decimal("0.05") + Decimal(
        "1.5"
    )
    cost = engine.price(advised("claude-opus-4-8"), **asked)
    assert cost.usd == Decimal("0.75") + Decimal("0.05") + Decimal("0.25") + Decimal("1.5")
    assert cost.usd == sum(line.usd for line in cost.lines) == cost.list_usd
    assert engine.price(advised("claude-opus-4-8"), batch=True, **asked).usd == cost.usd / 2
    assert cost.priced_as == "anthropic/claude-haiku-4-5"


def test_a_round_of_an_unknown_model_leaves_the_reply_unpriced() -> None:
    cost = PriceEngine.bundled().price(advised("claude-opus-99"), provider="anthropic", model="claude-haiku-4-5")
    assert cost.usd is None and "claude-opus-99" in (cost.reason or "")


def test_rounds_below_and_above_a_step_are_priced_apart() -> None:
    """Sonnet 4.5 takes 3 USD a million up to 200,000 tokens of prompt and 6 above."""
    usage = {"input_tokens": 150_000, "output_tokens": 0, "iterations": [
        {"type": "compaction", "input_tokens": 250_000, "output_tokens": 0},
        {"type": "message", "input_tokens": 150_000, "output_tokens": 0}]}  # fmt: skip
    asked: dict[str, Any] = {"provider": "anthropic", "model": "claude-sonnet-4-5", "at": "2025-11-15"}
    cost = PriceEngine.bundled().price(usage, **asked)
    assert cost.usd == Decimal("1.5") + Decimal("0.45")
    assert [(line.meter, line.quantity) for line in cost.lines] == [("input", 250_000), ("input", 150_000)]
