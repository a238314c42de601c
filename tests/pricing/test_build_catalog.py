"""The script that builds the catalog: ranks, disagreements, history."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attribkit.pricing import lists

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("build_catalog", TOOLS / "build_catalog.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(TOOLS))
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def offer(build: ModuleType, model: str, *rows: dict[str, Any]) -> Any:
    return build.Offer("acme", model, list(rows), "a page")


def test_a_lower_rank_fills_and_never_overwrites(build: ModuleType) -> None:
    book, report = build.Book("acme"), []
    book.add(offer(build, "m", {"standard": {"input": "1", "output": "2"}}), "genai-prices", "2026-01-01", report)
    lower = {"standard": {"input": "1", "output": "2", "cache_read": "0.1"}, "batch": {"input": "0.5", "output": "1"}}
    book.add(offer(build, "m", lower), "litellm", "2026-01-01", report)
    row = book.models["m"]["rows"][0]
    assert row["standard"] == {"input": "1", "output": "2", "cache_read": "0.1"}
    assert row["batch"] == {"input": "0.5", "output": "1"} and not report


def test_a_disagreement_is_reported_and_nothing_of_it_taken(build: ModuleType) -> None:
    book, report = build.Book("acme"), []
    book.add(offer(build, "m", {"standard": {"input": "1", "output": "2"}}), "genai-prices", "2026-01-01", report)
    other = {"standard": {"input": "3", "output": "2", "cache_read": "0.3"}, "batch": {"input": "1.5"}}
    book.add(offer(build, "m", other), "litellm", "2026-01-01", report)
    row = book.models["m"]["rows"][0]
    assert row["standard"]["input"] == "1" and "batch" not in row
    assert report == [{"model": "acme/m", "what": "standard.input", "genai-prices": "1", "litellm": "3"}]


def test_hand_checked_rows_stand(build: ModuleType) -> None:
    book, report = build.Book("acme"), []
    row = {"source": "the seller's page", "list": "hand", "standard": {"input": "1"}}
    book.models["m"] = {"rows": [dict(row)], "names": set()}
    book.owner["m"] = "m"
    book.add(offer(build, "m", {"standard": {"input": "9", "output": "9"}}), "litellm", "2026-01-01", report)
    assert book.models["m"]["rows"] == [row]


def test_history_comes_from_the_list_that_has_it(build: ModuleType) -> None:
    book, report = build.Book("acme"), []
    book.add(offer(build, "m", {"standard": {"input": "1", "output": "2"}}), "litellm", "2026-01-01", report)
    past = {"from": "2024-01-01", "standard": {"input": "4", "output": "8"}}
    now = {"from": "2025-01-01", "standard": {"input": "1", "output": "2"}}
    book.add(offer(build, "m", past, now), "model-prices", "2026-01-01", report)
    assert [row.get("from") for row in book.models["m"]["rows"]] == ["2024-01-01", "2025-01-01"]


def test_prices_from_floats_are_what_was_written(build: ModuleType) -> None:
    assert lists.amount(1.5e-07, lists.MILLION) == "0.15"
    assert lists.amount(2.9999999999999997e-06, lists.MILLION) == "3"
    assert lists.amount(0.006, lists.Decimal(1)) == "0.006"


@pytest.mark.parametrize(
    ("meter", "means"),
    [
        ("gpt 4.1 mini Inp regnl Tokens", ("4.1 mini", "regional", "standard", False, "input")),
        ("5.4 mini cd inp Dz 1M Tokens", ("5.4 mini", "zone", "standard", False, "cache_read")),
        ("5.6 luna ShortCo Cd Wr Std DZ 1M Tokens", ("5.6 luna", "zone", "standard", False, "cache_write_5m")),
        ("5.5 LongCo pp opt Gl 1M Tokens", ("5.5", "global", "priority", True, "output")),
        ("gpt-4o-0806-FT-inp-glbl Tokens", None),
    ],
)
def test_azure_meter_names(build: ModuleType, meter: str, means: Any) -> None:
    assert sys.modules["price_azure"].parsed(meter) == means


def test_a_name_that_moves_has_the_rows_of_each_model_for_its_time(build: ModuleType) -> None:
    def row(price: str, start: str = "") -> dict[str, Any]:
        return {**({"from": start} if start else {}), "source": "page", "standard": {"input": price}}

    models = {
        "a": {"names": ["latest", "a-1"], "rows": [row("1"), row("2", "2024-06-01"), row("3", "2025-06-01")]},
        "b": {"rows": [row("9", "2025-03-01")]},
    }
    build.follow(models, {"latest": {"source": "docs", "means": [["", "a"], ["2025-01-01", "b"], ["2026-01-01", "a"]]}})
    found = [(r.get("from"), r["standard"]["input"]) for r in models["latest"]["rows"]]
    assert found == [(None, "1"), ("2024-06-01", "2"), ("2025-01-01", "9"), ("2026-01-01", "3")]
    assert models["a"]["names"] == ["a-1"]
    assert models["latest"]["rows"][2]["note"] == "the name means b, docs"


def test_regions_that_differ_are_strict(build: ModuleType) -> None:
    row = {
        "list": "litellm",
        "standard": {"input": "1", "output": "2"},
        "regions": {"eu": {"standard": {"input": "3"}}},
    }
    report: list[dict[str, Any]] = []
    listed = {"us": {"standard": {"input": "1.0"}}, "eu": {"standard": {"input": "1.1"}}}
    build._put_regions(row, listed, "acme/m", report)
    assert row["regions"] == {"us": {}, "eu": {"standard": {"input": "1.1"}}} and row["strict_regions"]
    assert report == [{"model": "acme/m", "what": "eu: input", "aws": "1.1", "litellm": "3"}]
