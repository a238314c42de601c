"""docs/prices.md runs as it is written."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

from attribkit.pricing.catalog import check_shard
from attribkit.pricing.engine import PriceEngine

PAGE = (Path(__file__).parents[2] / "docs" / "prices.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_python_runs() -> None:
    for block in blocks("python"):
        exec(compile(block, "docs/prices.md", "exec"), {})


def test_overrides_hold(tmp_path: Path) -> None:
    block, layers = blocks("toml")
    PriceEngine.bundled(_written(tmp_path / "layers.toml", layers))
    (tmp_path / "prices.toml").write_text(block)
    engine = PriceEngine.bundled(tmp_path / "prices.toml")
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
    assert engine.price(usage, provider="openai", model="gpt-4.1").usd == Decimal("1.8")
    assert engine.price(usage, provider="vllm", model="x").status == "free"
    assert engine.price(usage, provider="azure", model="gpt4o-team-a").usd == 2.5


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_example_row_keeps_the_format() -> None:
    (block,) = blocks("json")
    check_shard("acme", json.loads(block))


def test_every_region_word_and_seller_is_known() -> None:
    sellers = PriceEngine.bundled().catalog.sellers
    row = PAGE.split("in these words", 1)[1].split("and the other sellers", 1)[0].partition(":\n")[2]
    assert all(word.strip() in sellers for word in row.replace("\n", " ").split(",") if word.strip())
