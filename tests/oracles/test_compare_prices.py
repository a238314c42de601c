"""The tool that prices generated calls with other engines: its calls, and its reasons for what differs."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

from attribkit.pricing.engine import PriceEngine

TOOL = Path(__file__).parents[2] / "tools" / "compare_prices.py"
AT = datetime(2026, 11, 15, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("compare_prices", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_prices"] = module
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def made(tool: ModuleType) -> dict[tuple[str, str, str], object]:
    cases = tool.cases(PriceEngine.bundled(), AT)
    return {(case.seller, case.model, case.shape): case for case in cases}


def test_many_calls_of_every_shape(tool: ModuleType, made: dict[tuple[str, str, str], object]) -> None:
    assert len(made) > 5_000
    assert {shape for _, _, shape in made} == set(tool.SHAPES)
    assert {seller for seller, _, _ in made} == set(tool.SELLERS)


@pytest.mark.parametrize(
    ("key", "theirs", "said"),
    [
        (("openai", "gpt-4.1", "cached"), "0.0028", "no price for cached tokens and takes the ordinary one"),
        (("openai", "gpt-4.1", "cached"), "0.002", "counts them as nothing"),
        (("openai", "gpt-4.1", "priority"), "0.0028", "no priority price"),
        (("gemini", "gemini-2.5-pro", "long"), "0.385", "no dearer step"),
        (("openai", "o3", "plain"), "0.014", "another date"),
        (("bedrock", "anthropic.claude-haiku-4-5", "plain"), "0.0015", "10 %"),
        (("openai", "gpt-4.1", "plain"), "0.0123456", None),
    ],
)
def test_reasons(
    tool: ModuleType, made: dict[tuple[str, str, str], object], key: tuple[str, str, str], theirs: str, said: str | None
) -> None:
    because = tool.reason(made[key], Decimal(theirs), "litellm 1", set())
    assert (because is None) if said is None else (said in (because or "")), because
