"""What Google's grounding costs: by the prompt up to Gemini 2.5, by the query later."""

from __future__ import annotations

from typing import Any

import pytest

from attribkit.pricing.engine import PriceEngine

TOKENS = {"promptTokenCount": 1_000_000, "candidatesTokenCount": 0, "totalTokenCount": 1_000_000}


def reply(queries: int, *sources: str, **more: Any) -> dict[str, Any]:
    said = {"webSearchQueries": ["words"] * queries, "groundingChunks": [{kind: {"uri": "u"}} for kind in sources]}
    return {"candidates": [{"content": {}, "groundingMetadata": said}], "usageMetadata": {**TOKENS, **more}}


def fees(model: str, payload: dict[str, Any], **asked: Any) -> dict[str, str]:
    cost = PriceEngine.bundled().price(payload, provider="gemini", model=model, **{"at": "2026-11-15", **asked})
    assert cost.usd is not None, cost.reason
    return {line.meter: f"{line.usd.normalize():f}" for line in cost.lines if line.usd and line.meter != "input"}


@pytest.mark.parametrize(
    ("model", "payload", "asked", "expected"),
    [
        ("gemini-2.5-flash", reply(3, "web"), {}, {"grounded_prompts": "0.035"}),
        ("gemini-2.5-flash", reply(3, "web"), {"batch": True}, {"grounded_prompts": "0.035"}),
        ("gemini-2.0-flash", reply(1, "web", "web"), {}, {"grounded_prompts": "0.035"}),
        ("gemini-3.1-pro-preview", reply(3, "web"), {}, {"grounding": "0.042"}),
        ("gemini-3.8-flash", reply(2, "web"), {"service_tier": "priority"}, {"grounding": "0.028"}),
        ("gemini-3.8-flash", reply(2, "web"), {"at": "2027-02-01"}, {"grounding": "0.028"}),
        ("gemini-flash-latest", reply(0, "web"), {}, {"grounding": "0.014"}),
        ("gemini-2.5-pro", reply(0, "maps"), {}, {"maps_grounding": "0.025"}),
        ("gemini-3.1-pro-preview", reply(1, "web", "maps"), {}, {"grounding": "0.014", "maps_grounding": "0.014"}),
        ("gemini-2.5-pro", reply(2), {}, {}),  # no source was found
        ("gemini-3.8-flash", {**TOKENS, "grounding": {"grounding": 2}}, {}, {"grounding": "0.028"}),
    ],
)  # fmt: skip
def test_fees(model: str, payload: dict[str, Any], asked: dict[str, Any], expected: dict[str, str]) -> None:
    assert fees(model, payload, **asked) == expected


@pytest.mark.parametrize("said", [None, 5, "x", [], {"groundingChunks": 3}, {"groundingChunks": ["x", None]}])
def test_what_grounding_cannot_say_adds_nothing(said: Any) -> None:
    payload = {"candidates": [None, {"groundingMetadata": said}, "x"], "usageMetadata": TOKENS}
    assert fees("gemini-2.5-pro", payload) == {}


def test_an_impossible_count_makes_the_usage_unknown() -> None:
    cost = PriceEngine.bundled().price(
        {**TOKENS, "grounding": {"grounding": -1}}, provider="gemini", model="gemini-2.5-pro"
    )
    assert cost.usd is None and cost.reason is not None and "grounding is -1" in cost.reason


def test_what_a_model_is_billed_by_must_be_stated() -> None:
    tokens = {"prompt_tokens": 10, "completion_tokens": 20}
    engine = PriceEngine.bundled()
    heard = engine.price({**tokens, "prompt_audio_seconds": 60}, provider="mistral", model="voxtral-mini-2602")
    assert f"{heard.usd:f}" == "0.00300"
    unsaid = engine.price(tokens, provider="mistral", model="voxtral-mini-2602")
    assert unsaid.usd is None and "billed by (seconds)" in str(unsaid.reason)


def test_images_of_cohere_are_billed_by_the_image_or_by_its_tokens() -> None:
    def meters(**units: int) -> list[str]:
        cost = PriceEngine.bundled().price({"billed_units": units}, provider="cohere", model=model)
        return [f"{line.meter} {line.usd:f}" for line in cost.lines]

    model = "embed-english-v3.0"
    assert meters(images=2) == ["images 0.0002"]
    model = "embed-v4.0"
    assert meters(images=1, image_tokens=1_000_000) == ["image_input 0.47000000"]


def test_pages_of_a_whole_reply() -> None:
    payload = {"pages": [], "model": "mistral-ocr-2512", "usage_info": {"pages_processed": 10, "doc_size_bytes": None}}
    cost = PriceEngine.bundled().price(payload, provider="mistral", model="mistral-ocr-2512")
    assert f"{cost.usd:f}" == "0.020"
