"""Payloads made to break the books: no negative meter, no silent zero, no lost token, no exception."""

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
ODD = st.sampled_from(
    [
        -1, 0, 1, 7, 10**12, 10**12 + 1, 2**63, 2**64, 10**30, -(2**70), True, False, None, "", "7", "-7", "1e3", "NaN",
        0.0, 0.5, 7.0, -0.0, 1e300, math.inf, -math.inf, math.nan, [], [7], {}, {"a": 7}, Decimal(7), b"7", {7},
    ]
)  # fmt: skip
SANE = st.integers(0, 5_000)
MANY = int(os.environ.get("ATTRIBKIT_MANY_EXAMPLES", "0"))

DIALECTS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "openai chat": ("openai", "gpt-4.1", {
        "prompt_tokens": 900, "completion_tokens": 70,
        "prompt_tokens_details": {"cached_tokens": 300, "audio_tokens": 0, "cache_write_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0, "rejected_prediction_tokens": 5}}),
    "openai responses": ("openai", "gpt-5", {
        "input_tokens": 900, "input_tokens_details": {"cached_tokens": 300}, "output_tokens": 70,
        "output_tokens_details": {"reasoning_tokens": 30}}),
    "openai realtime": ("openai", "gpt-realtime", {
        "input_tokens": 900, "output_tokens": 70,
        "input_token_details": {"text_tokens": 200, "audio_tokens": 700, "cached_tokens": 150,
                                "cached_tokens_details": {"text_tokens": 50, "audio_tokens": 100}},
        "output_token_details": {"text_tokens": 20, "audio_tokens": 50}}),
    "openai embeddings": ("openai", "text-embedding-3-large", {"prompt_tokens": 900, "total_tokens": 900}),
    "openai batch line": ("openai", "gpt-4.1", {"response": {"body": {"model": "gpt-4.1", "usage": {
        "prompt_tokens": 900, "completion_tokens": 70}}}}),
    "anthropic": ("anthropic", "claude-haiku-4-5", {
        "input_tokens": 100, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 200, "output_tokens": 70,
        "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
        "server_tool_use": {"web_search_requests": 2}}),
    "gemini": ("gemini", "gemini-2.5-flash", {
        "promptTokenCount": 900, "cachedContentTokenCount": 300, "candidatesTokenCount": 70, "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 40, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 100}]}),
    "converse": ("bedrock", "amazon.nova-lite-v1:0", {
        "inputTokens": 900, "outputTokens": 70, "cacheReadInputTokens": 300, "cacheWriteInputTokens": 20}),
    "invoke": ("bedrock", "amazon.nova-lite-v1:0", {"inputTokenCount": 900, "outputTokenCount": 70}),
    "deepseek": ("deepseek", "deepseek-chat", {
        "prompt_tokens": 900, "completion_tokens": 70,
        "prompt_cache_hit_tokens": 300, "prompt_cache_miss_tokens": 600}),
    "mistral ocr": ("mistral", "mistral-ocr-2505", {"pages_processed": 7, "doc_size_bytes": 1}),
    "cohere": ("cohere", "command-a-03-2025", {"billed_units": {"input_tokens": 900, "output_tokens": 70}}),
    "voyage": ("voyage", "voyage-3.5", {"total_tokens": 900}),
    "groq": ("groq", "openai/gpt-oss-20b", {
        "queue_time": 0.01, "prompt_tokens": 900, "prompt_time": 0.01, "completion_tokens": 70, "total_time": 0.2}),
    "xai": ("xai", "grok-4.6", {
        "prompt_tokens": 900, "completion_tokens": 70, "total_tokens": 1000,
        "completion_tokens_details": {"reasoning_tokens": 30}}),
    "perplexity": ("perplexity", "sonar", {
        "prompt_tokens": 900, "completion_tokens": 70, "search_context_size": "low"}),
    "langchain": ("anthropic", "claude-haiku-4-5", {
        "input_tokens": 900, "output_tokens": 70, "input_token_details": {"cache_read": 300, "cache_creation": 100}}),
    "otel": ("openai", "gpt-4.1", {
        "gen_ai.usage.input_tokens": 900, "gen_ai.usage.cache_read.input_tokens": 300,
        "gen_ai.usage.output_tokens": 70}),
    "seconds": ("openai", "whisper-1", {"type": "duration", "seconds": 59}),
    "characters": ("openai", "tts-1", {"characters": 900}),
    "images": ("openai", "dall-e-3", {"images": 2, "size": "1024x1024", "quality": "standard"}),
}  # fmt: skip


def _paths(payload: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = payload.items() if isinstance(payload, dict) else enumerate(payload) if isinstance(payload, list) else ()
    return [path, *(found for key, item in inner for found in _paths(item, (*path, key)))]


def _with(payload: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(payload, list):
        return [_with(item, rest, value) if place == key else item for place, item in enumerate(payload)]
    return {name: _with(item, rest, value) if name == key else item for name, item in payload.items()}


def _holds(payload: Any, provider: str, model: str | None) -> None:
    usage = read_usage(payload, provider=provider)
    for _, quantity in usage.meters:
        assert quantity > 0 and math.isfinite(quantity)
    cost = ENGINE.price(payload, provider=provider, model=model, at="2026-11-15")
    assert (cost.usd is None) == (cost.status == "unpriced")
    if cost.usd is not None:
        assert cost.usd >= 0 and cost.usd.is_finite()
        assert cost.usd > 0 or cost.status == "free"
        assert cost.usd == sum((line.usd for line in cost.lines), Decimal(0))
        assert tuple((line.meter, line.quantity) for line in cost.lines) == usage.meters
    assert cost.reason or cost.status == "priced"


@given(st.sampled_from(sorted(DIALECTS)), st.data())
@settings(max_examples=MANY or 400, deadline=None)
def test_one_odd_value_anywhere_in_any_dialect(name: str, data: st.DataObject) -> None:
    provider, model, payload = DIALECTS[name]
    path = data.draw(st.sampled_from(_paths(payload)))
    _holds(_with(payload, path, data.draw(ODD | SANE)), provider, model)


@given(
    st.sampled_from(sorted(DIALECTS)), st.lists(ODD | SANE, min_size=2, max_size=5), st.randoms(use_true_random=False)
)
@settings(max_examples=MANY or 200, deadline=None)
def test_several_odd_values(name: str, values: list[Any], random: Any) -> None:
    provider, model, payload = DIALECTS[name]
    for value in values:
        payload = _with(payload, random.choice(_paths(payload)), value)
    _holds(payload, provider, model)


def test_every_dialect_has_a_price_as_it_is() -> None:
    for name, (provider, model, payload) in DIALECTS.items():
        _holds(payload, provider, model)
        cost = ENGINE.price(payload, provider=provider, model=model, at="2026-11-15")
        assert cost.usd, (name, cost)


@given(st.sampled_from(sorted(DIALECTS)), st.sampled_from(sorted(DIALECTS)))
@settings(max_examples=60, deadline=None)
def test_a_payload_of_the_wrong_provider_is_a_state(name: str, other: str) -> None:
    provider, model, _ = DIALECTS[other]
    _holds(DIALECTS[name][2], provider, model)


@given(st.lists(st.tuples(SANE, SANE), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_the_sum_of_costs_is_the_cost_of_the_sum(calls: list[tuple[int, int]]) -> None:
    def usd(prompt: int, made: int) -> Decimal:
        payload = {"prompt_tokens": prompt + 1, "completion_tokens": made}
        cost = ENGINE.price(payload, provider="openai", model="gpt-5-nano", at="2026-11-15").usd
        assert cost is not None
        return cost

    total = sum((usd(*call) for call in calls), Decimal(0))
    prompts, made = sum(call[0] + 1 for call in calls), sum(call[1] for call in calls)
    assert total == usd(prompts - 1, made)
