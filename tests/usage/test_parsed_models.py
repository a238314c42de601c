"""An SDK's model of a usage object is read like the JSON that it came from."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types import CompletionUsage
from openai.types.responses import ResponseUsage

from attribkit.usage.dialects.openai import model_counts, text_counts
from attribkit.usage.models import plain
from attribkit.usage.read import read_usage

counts = st.integers(0, 5) | st.integers(0, 300_000) | st.sampled_from([10**12, 10**12 + 1, 2**70])
odd = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5) | st.integers(-5, -1)
number = counts | counts | counts | odd
details = st.dictionaries(
    st.sampled_from(["cached_tokens", "reasoning_tokens", "audio_tokens", "image_tokens"]), number, max_size=3
)
chat = st.fixed_dictionaries(
    {"prompt_tokens": number, "completion_tokens": number},
    optional={
        "total_tokens": number,
        "prompt_tokens_details": st.none() | details,
        "completion_tokens_details": st.none() | details,
        "prompt_cache_hit_tokens": number,
        "cost": odd,
    },
)


def model_of(kind: type, payload: dict[str, Any]) -> Any:
    """Return what the SDK makes of a usage object in a reply."""
    return construct_type(value=json.loads(json.dumps(payload)), type_=kind)


@settings(deadline=None, max_examples=500)
@given(chat)
def test_chat(payload: dict[str, Any]) -> None:
    usage = model_of(CompletionUsage, payload)
    counted = model_counts(usage)
    assert counted is None or counted == text_counts(plain(usage))
    assert read_usage(usage, provider="openai", api="chat") == read_usage(plain(usage), provider="openai", api="chat")


@settings(deadline=None, max_examples=100)
@given(
    st.fixed_dictionaries({"input_tokens": number, "output_tokens": number}, optional={"input_tokens_details": details})
)
def test_responses(payload: dict[str, Any]) -> None:
    usage = model_of(ResponseUsage, payload)
    stated = {key: value for key, value in plain(usage).items() if key in payload}
    assert read_usage(usage, provider="openai", api="responses") == read_usage(
        stated, provider="openai", api="responses"
    )


def test_what_nearly_all_calls_state_is_counted() -> None:
    usage = {
        "prompt_tokens": 1200,
        "completion_tokens": 85,
        "total_tokens": 1285,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": None, "rejected_prediction_tokens": 0},
    }
    expected = (("input", 176), ("cache_read", 1024), ("output", 85)), 64, 1200
    assert model_counts(model_of(CompletionUsage, usage)) == expected
    bare = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert model_counts(model_of(CompletionUsage, bare)) == ((("input", 7), ("output", 2)), 0, 7)
    assert model_counts(model_of(CompletionUsage, {**usage, "cost": 0.1})) is None
    audio = {**usage, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 9}}
    assert model_counts(model_of(CompletionUsage, audio)) is None
