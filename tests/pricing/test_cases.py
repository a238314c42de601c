"""The corpus of calls with exact costs: every trap of the price engine, to the last digit."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from attribkit.pricing.engine import PriceEngine

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text().splitlines()]


def priced(case: dict[str, Any], **changes: Any) -> Any:
    asked = {key: case.get(key) for key in ("provider", "model", "api", "service_tier", "region", "at")}
    return PriceEngine.bundled().price(case["usage"], batch=case["batch"], **{**asked, **changes})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: dict[str, Any]) -> None:
    cost = priced(case)
    if case["usd"] is None:
        assert cost.usd is None
        assert cost.status == "unpriced"
        assert cost.reason
        return
    assert cost.usd == Decimal(case["usd"]), (cost, case["source"])
    assert cost.status == ("free" if not cost.usd else "priced")
    assert sum((line.usd for line in cost.lines), Decimal(0)) == cost.usd
    assert all(line.quantity * line.unit_price == line.usd for line in cost.lines)
    assert cost.price_version.startswith(PriceEngine.bundled().version)
    assert cost.list_usd == cost.usd


def test_corpus_is_whole() -> None:
    assert len(CASES) == 275
    assert len({case["id"].rpartition("-")[0] for case in CASES}) == 60


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["provider"] in ("openai", "anthropic", "gemini")][::7], ids=lambda c: c["id"]
)
def test_provider_is_inferred_from_the_name(case: dict[str, Any]) -> None:
    if "/" in case["model"] or not case["model"]:
        return
    assert priced(case, provider=None).usd == priced(case).usd


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case["id"])
def test_whole_reply_prices_like_its_usage(case: dict[str, Any]) -> None:
    key = "usageMetadata" if "promptTokenCount" in case["usage"] else "usage"
    assert priced({**case, "usage": {"id": "r-1", key: case["usage"]}}).usd == priced(case).usd
