"""Raw usage of every provider, to meters that do not overlap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from attribkit.usage.model import Usage
from attribkit.usage.read import read_usage


def meters(payload: Mapping[str, Any] | None, provider: str = "openai", api: str | None = None) -> dict[str, Any]:
    usage = read_usage(payload, provider=provider, api=api)
    assert usage.known, usage.problems
    return dict(usage.meters)


OPENAI_CHAT = {
    "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 10, "cache_write_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 5, "accepted_prediction_tokens": 3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "api", "payload", "expected"),
    [
        ("openai", "chat", OPENAI_CHAT,
         {"input": 30, "cache_read": 40, "cache_write_5m": 20, "audio_input": 10, "output": 45, "audio_output": 5}),
        ("openai", "responses",
         {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 9,
          "output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 109},
         {"input": 40, "cache_read": 60, "output": 9}),
        ("openai", "responses", {"input_tokens": 7, "output_tokens": 2}, {"input": 7, "output": 2}),
        ("openai", "embeddings", {"prompt_tokens": 8, "total_tokens": 8}, {"input": 8}),
        ("voyage", "embeddings", {"total_tokens": 8}, {"input": 8}),
        ("openai", "images", {"input_tokens": 20, "output_tokens": 100, "input_tokens_details": {"image_tokens": 15}},
         {"input": 5, "image_input": 15, "image_output": 100}),
        ("openai", "realtime",
         {"input_tokens": 100, "output_tokens": 30, "output_token_details": {"text_tokens": 10, "audio_tokens": 20},
          "input_token_details": {"text_tokens": 40, "audio_tokens": 60, "cached_tokens": 25,
                                  "cached_tokens_details": {"text_tokens": 5, "audio_tokens": 20}}},
         {"input": 35, "cache_read": 5, "audio_input": 40, "audio_cache_read": 20, "output": 10, "audio_output": 20}),
        ("openai", "transcriptions", {"type": "duration", "seconds": 59.5}, {"seconds": Decimal("59.5")}),
        ("openai", "transcriptions",
         {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "input_token_details": {"audio_tokens": 14}},
         {"audio_input": 14, "output": 45}),
        ("deepseek", "chat", {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 5,
                              "prompt_cache_miss_tokens": 4}, {"input": 4, "cache_read": 5, "output": 1}),
        ("moonshot", "chat", {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 5},
         {"input": 4, "cache_read": 5, "output": 1}),
        ("xai", "chat", {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 15,
                         "completion_tokens_details": {"reasoning_tokens": 5}}, {"input": 9, "output": 6}),
        ("xai", "chat", {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17,
                         "completion_tokens_details": {"reasoning_tokens": 5}}, {"input": 9, "output": 8}),
        ("xai", "chat", {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 14,
                         "completion_tokens_details": {"reasoning_tokens": 5}}, {"input": 9, "output": 5}),
        ("gemini", "chat", {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 18}, {"input": 9, "output": 9}),
        ("mistral", "ocr", {"pages_processed": 3, "doc_size_bytes": 100}, {"pages": 3}),
        ("perplexity", "chat", {"prompt_tokens": 9, "completion_tokens": 1, "search_context_size": "low"},
         {"input": 9, "output": 1, "requests_low": 1}),
        ("perplexity", "chat", {"prompt_tokens": 33, "completion_tokens": 7, "citation_tokens": 20,
                                "reasoning_tokens": 70, "num_search_queries": 18},
         {"input": 33, "output": 7, "citation_input": 20, "reasoning_apart": 70, "search_queries": 18}),
        ("anthropic", "messages",
         {"input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 11, "output_tokens": 3,
          "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 7},
          "server_tool_use": {"web_search_requests": 2}},
         {"input": 5, "cache_read": 7, "cache_write_5m": 4, "cache_write_1h": 7, "output": 3, "web_search": 2}),
        ("anthropic", "messages", {"input_tokens": 5, "cache_creation_input_tokens": 11, "output_tokens": 3},
         {"input": 5, "cache_write_5m": 11, "output": 3}),
        ("gemini", "generateContent",
         {"promptTokenCount": 100, "candidatesTokenCount": 10, "thoughtsTokenCount": 5, "toolUsePromptTokenCount": 7,
          "cachedContentTokenCount": 30, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 60},
                                                                 {"modality": "AUDIO", "tokenCount": 40}],
          "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 10}, {"modality": "TEXT", "tokenCount": 20}]},
         {"input": 47, "cache_read": 20, "audio_input": 30, "audio_cache_read": 10, "output": 15}),
        ("gemini", "generateContent",
         {"prompt_token_count": 10, "candidates_token_count": 9,
          "candidates_tokens_details": [{"modality": "IMAGE", "token_count": 8}]},
         {"input": 10, "output": 1, "image_output": 8}),
        ("bedrock", "converse", {"inputTokens": 5, "outputTokens": 3, "cacheReadInputTokens": 2,
                                 "cacheWriteInputTokens": 9, "cacheDetails": [{"ttl": "1h", "inputTokens": 4}]},
         {"input": 5, "cache_read": 2, "cache_write_5m": 5, "cache_write_1h": 4, "output": 3}),
        ("bedrock", "invoke_model", {"inputTokenCount": 5, "outputTokenCount": 3}, {"input": 5, "output": 3}),
        ("bedrock", "invoke_model", {"prompt_token_count": 5, "generation_token_count": 3}, {"input": 5, "output": 3}),
        ("bedrock", "invoke_model", {"inputTextTokenCount": 5, "results": [{"tokenCount": 3}]},
         {"input": 5, "output": 3}),
        ("bedrock", "invoke_model", {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 1},
         {"input": 5, "cache_read": 1, "output": 3}),
        ("cohere", "chat", {"billed_units": {"input_tokens": 5, "output_tokens": 3}, "tokens": {"input_tokens": 70}},
         {"input": 5, "output": 3}),
        ("cohere", "rerank", {"billed_units": {"search_units": 1}}, {"search_units": 1}),
        ("openai", "langchain",
         {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120,
          "input_token_details": {"cache_read": 40, "audio": 10}, "output_token_details": {"reasoning": 5}},
         {"input": 50, "cache_read": 40, "audio_input": 10, "output": 20}),
        ("openai", None,
         {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_read.input_tokens": 40,
          "gen_ai.usage.output_tokens": 7},
         {"input": 60, "cache_read": 40, "output": 7}),
        ("openai", None, {"gen_ai.usage.prompt_tokens": 100, "gen_ai.usage.completion_tokens": 7},
         {"input": 100, "output": 7}),
    ],
)  # fmt: skip
def test_dialect(provider: str, api: str | None, payload: dict[str, Any], expected: dict[str, Any]) -> None:
    assert meters(payload, provider, api) == expected


def test_what_a_usage_states_beside_tokens() -> None:
    usage = read_usage(
        {"input_tokens": 1, "output_tokens": 9, "service_tier": "batch", "inference_geo": "us", "speed": "fast",
         "output_tokens_details": {"thinking_tokens": 4}},
        provider="anthropic",
    )  # fmt: skip
    assert (usage.tier, usage.region, usage.speed, usage.reasoning_tokens) == ("batch", "us", "fast", 4)
    usage = read_usage({"promptTokenCount": 1, "trafficType": "ON_DEMAND_PRIORITY"}, provider="vertex")
    assert usage.tier == "priority"
    usage = read_usage({"model": "gpt-4.1-2025-04-14", "usage": OPENAI_CHAT}, provider="openai")
    assert usage.model == "gpt-4.1-2025-04-14" and usage.reasoning_tokens == 30


COMPACTED = {
    "input_tokens": 23_000, "output_tokens": 1_000, "service_tier": "standard", "inference_geo": "us",
    "server_tool_use": {"web_search_requests": 2},
    "iterations": [{"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
                   {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000}],
}  # fmt: skip


def test_every_round_of_an_anthropic_reply_is_counted() -> None:
    usage = read_usage(COMPACTED, provider="anthropic")
    assert dict(usage.meters) == {"input": 203_000, "output": 4_500, "web_search": 2}
    assert [one.output_tokens for one in usage.rounds] == [3_500, 1_000]
    assert {one.region for one in usage.rounds} == {"us"}
    total: dict[str, Any] = {}
    for meter, quantity in (pair for one in usage.rounds for pair in one.meters):
        total[meter] = total.get(meter, 0) + quantity
    assert total == dict(usage.meters)


@pytest.mark.parametrize(
    "iterations", [[], None, [{"type": "message", "input_tokens": 23_000, "output_tokens": 1_000}]]
)
def test_one_round_is_what_the_totals_say(iterations: Any) -> None:
    usage = read_usage({**COMPACTED, "iterations": iterations}, provider="anthropic")
    assert usage.rounds == ()
    assert dict(usage.meters) == {"input": 23_000, "output": 1_000, "web_search": 2}


@pytest.mark.parametrize(
    "iterations",
    ["x", [3], [{"input_tokens": -1}], [{"type": "message", "input_tokens": 9, "output_tokens": 9}], {"a": 1}],
)
def test_rounds_that_cannot_be_are_a_problem(iterations: Any) -> None:
    assert read_usage({**COMPACTED, "iterations": iterations}, provider="anthropic").problems


def test_a_batch_line_is_read() -> None:
    line = {"custom_id": "x", "response": {"status_code": 200, "body": {"model": "gpt-4.1", "usage": OPENAI_CHAT}}}
    assert read_usage(line, provider="openai").input_tokens == 100


IMPOSSIBLE: list[Any] = ["12", -1, 2**70, 1.5, True, [], {}, float("nan"), float("inf"), 10**12 + 1]


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize(
    ("provider", "payload"),
    [
        ("openai", {"prompt_tokens": 10, "completion_tokens": 5}),
        ("openai", {"input_tokens": 10, "input_tokens_details": {}, "output_tokens": 5}),
        ("anthropic", {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3}),
        ("gemini", {"promptTokenCount": 10, "candidatesTokenCount": 5}),
        ("bedrock", {"inputTokens": 10, "outputTokens": 5}),
    ],
)
def test_an_impossible_count_is_a_problem_and_not_a_meter(provider: str, payload: dict[str, Any], value: Any) -> None:
    for key in payload:
        if isinstance(payload[key], dict):
            continue
        usage = read_usage({**payload, key: value}, provider=provider)
        assert not usage.known
        assert usage.problems and key in usage.problems[0]
        assert all(quantity <= 10**12 and quantity > 0 for _, quantity in usage.meters)


@pytest.mark.parametrize(
    "payload",
    [
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 11}},
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"audio_tokens": 6}},
        {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 3,
         "cache_creation": {"ephemeral_5m_input_tokens": 4}},
        {"promptTokenCount": 10, "cachedContentTokenCount": 11},
        {"inputTokens": 1, "cacheWriteInputTokens": 2, "cacheDetails": [{"ttl": "1h", "inputTokens": 3}]},
    ],
)  # fmt: skip
def test_parts_over_the_whole_are_said(payload: dict[str, Any]) -> None:
    usage = read_usage(payload, provider="x")
    assert not usage.known and usage.problems


@pytest.mark.parametrize(
    "payload", [None, {}, {"usage": None}, {"prompt_tokens": None}, {"error": "html"}, "tokens: 5", 7, [], b"x"]
)
def test_no_usage(payload: Any) -> None:
    usage = read_usage(payload, provider="openai")
    assert not usage.known and not usage.meters


def test_whole_numbers_written_as_floats_are_counts() -> None:
    assert meters({"inputTokens": 5.0, "outputTokens": 3.0}, "bedrock") == {"input": 5, "output": 3}


def test_a_hostile_mapping_does_not_raise() -> None:
    class Hostile(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            raise RuntimeError("no")

    usage = read_usage(Hostile(prompt_tokens=1), provider="openai")
    assert isinstance(usage, Usage) and not usage.known and "RuntimeError" in usage.problems[0]


def test_deep_nesting_ends() -> None:
    payload: dict[str, Any] = {}
    for _ in range(5_000):
        payload = {"response": payload}
    assert not read_usage(payload, provider="openai").known
    assert json.dumps(read_usage({"usage": {"usage": {}}}, provider="").problems)
