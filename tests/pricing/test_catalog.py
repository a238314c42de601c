"""The bundled data keeps its format, its breadth and its weight."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attribkit.errors import PriceDataError
from attribkit.pricing import catalog
from attribkit.pricing.catalog import Catalog, check_shard, instant
from attribkit.pricing.engine import PriceEngine
from attribkit.pricing.meters import STANDS_IN, UNITS

DATA = Path(catalog.__file__).with_name("data")
SHARDS = sorted(path for path in DATA.glob("*.json") if path.name != "index.json")


@pytest.mark.parametrize("path", SHARDS, ids=lambda path: path.stem)
def test_shard_keeps_the_format(path: Path) -> None:
    def no_floats(text: str) -> Any:
        raise AssertionError(f"{path.name}: {text} is a float; prices are texts")

    data = json.loads(path.read_text(), parse_float=no_floats)
    assert data["seller"] == path.stem
    check_shard(path.stem, data)


def test_breadth() -> None:
    sellers = Catalog.bundled().sellers
    assert len(sellers) >= 40 and len(sellers) == len(SHARDS)
    assert sum(entry["models"] for entry in sellers.values()) >= 2_500
    assert json.loads((DATA / "index.json").read_text())["units"] == UNITS


def test_every_stand_in_is_a_meter() -> None:
    assert all(meter in UNITS and set(others) <= set(UNITS) for meter, others in STANDS_IN.items())


def test_hand_checked_rows_are_in_the_catalog_unchanged() -> None:
    for path in (Path(__file__).parents[2] / "tools" / "prices").glob("*.json"):
        data = json.loads(path.read_text())
        for model, entry in data.get("models", {}).items():
            shard = json.loads((DATA / path.name).read_text())
            for row, built in zip(entry["rows"], shard["models"][model]["rows"], strict=True):
                assert {key: built.get(key) for key in row if key != "uplift"} == {
                    k: v for k, v in row.items() if k != "uplift"
                }


def test_only_the_seller_that_is_asked_is_read() -> None:
    code = (
        "import sys\n"
        "from attribkit.pricing.engine import PriceEngine\n"
        "engine = PriceEngine.bundled()\n"
        "assert engine.price({'prompt_tokens': 5, 'completion_tokens': 1}, provider='openai', model='gpt-4.1').usd\n"
        "assert list(engine.catalog._shards) == ['openai'], engine.catalog._shards\n"
        "heavy = {'pydantic', 'logging', 'sqlite3', 'hashlib', 'tomllib', 'difflib', 'asyncio'} & set(sys.modules)\n"
        "known = set(sys.argv[1].split(','))\n"
        "assert heavy <= known, heavy\n"
    )
    bare = subprocess.run(
        [sys.executable, "-c", "import sys, attribkit; print(','.join(sys.modules))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", code, bare.stdout.strip()], check=True)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"standard": {"input": 0.5}, "source": "s"}, "decimal texts"),
        ({"standard": {"input": "-1"}, "source": "s"}, "decimal texts"),
        ({"standard": {"inptu": "1"}, "source": "s"}, "no such meter"),
        ({"standard": {"input": "1"}}, "source"),
        ({"standard": "1", "source": "s"}, "not a card"),
        ({"standard": {"input": "1"}, "source": "s", "from": "soon"}, "ISO date"),
        ({"standard": {"input": "1"}, "source": "s", "steps": [{"over": "2"}]}, "step"),
        ({"standard": {"input": "1"}, "source": "s", "hours": {"schedule": "x", "card": "y"}}, "schedule"),
    ],
)
def test_broken_rows_are_named(row: dict[str, Any], said: str) -> None:
    with pytest.raises(PriceDataError, match="acme/m") as error:
        check_shard("acme", {"format": 1, "models": {"m": {"rows": [row]}}})
    assert said in str(error.value)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(
        json.dumps({"version": "1", "built": "2026-01-01", "sellers": {"acme": {"models": 1}}, "infer": []})
    )
    (tmp_path / "acme.json").write_text(json.dumps({"format": 2, "models": {}}))
    with pytest.raises(PriceDataError, match="format 2"):
        Catalog(str(tmp_path)).shard("acme")
    with pytest.raises(PriceDataError, match=r"index\.json"):
        Catalog(str(tmp_path / "nowhere"))


def test_a_withdrawn_row_never_holds(tmp_path: Path) -> None:
    rows = [
        {"from": "2026-06-30", "source": "s", "standard": {"input": "2"}},
        {"from": "2026-09-01", "source": "s", "withdrawn": "announced and cancelled", "standard": {"input": "3"}},
    ]
    (tmp_path / "index.json").write_text(
        json.dumps({"version": "1", "built": "2026-01-01", "sellers": {"acme": {"models": 1}}, "infer": []})
    )
    (tmp_path / "acme.json").write_text(json.dumps({"format": 1, "models": {"m": {"rows": rows}}}))
    engine = PriceEngine(Catalog(str(tmp_path)), PriceEngine.bundled().overrides)
    cost = engine.price(
        {"prompt_tokens": 1_000_000, "completion_tokens": 0}, provider="acme", model="m", at="2026-10-01"
    )
    assert str(cost.usd) == "2.000000" and cost.price_date == "2026-06-30"


def test_instants() -> None:
    assert instant("1970-01-02") == 86_400 * 10**9
    assert instant("1970-01-01T00:00:01.000001+00:00") == 1_000_001_000
    assert instant("2026-08-16T16:00:00Z") == instant("2026-08-17T00:00:00+08:00")
