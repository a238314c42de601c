"""`attribkit prices` and `attribkit reprice`, as processes: what they print, and the codes that CI gates on."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ledger.made import record

from attribkit.cost import Cost
from attribkit.ledger.writer import LedgerSink
from attribkit.pricing.engine import PriceEngine
from attribkit.usage.model import Usage

COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'attribkit'; from attribkit.cli.main import app; app()"]
CHAT = '{"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 400}}'


def attribkit(*args: str, folder: Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", "XDG_CACHE_HOME": str(folder / "home"), **env},
    )


def test_show(tmp_path: Path) -> None:
    done = attribkit("prices", "show", "o3-2025-04-16", "--at", "2025-05-01", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "openai/o3" and any("from the beginning" in line and "<- in force" in line for line in lines)
    assert any(line.strip().startswith("standard: input 10/1M") for line in lines)
    read = json.loads(attribkit("prices", "show", "gpt-4.1", "--provider", "azure", "--json", folder=tmp_path).stdout)
    assert [model["seller"] for model in read["models"]] == ["azure"]
    assert read["models"][0]["rows"][-1]["standard"]["input"] == "2"


def test_show_names_the_nearest(tmp_path: Path) -> None:
    done = attribkit("prices", "show", "gpt-6-sol-xl", folder=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("attribkit: no seller has 'gpt-6-sol-xl'; nearest: openai/gpt-6-sol")


def test_explain(tmp_path: Path) -> None:
    asked = ("prices", "explain", "--model", "gpt-4.1", "--provider", "openai", "--at", "2026-11-15")
    done = attribkit(*asked, folder=tmp_path, stdin=CHAT)
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1:5] == [["input", "600", "0.000002", "0.0012"], ["cache_read", "400", "0.0000005", "0.0002"],
                          ["output", "10", "0.000008", "0.00008"], ["total", "0.00148"]]  # fmt: skip
    (tmp_path / "usage.json").write_text(CHAT)
    (tmp_path / "prices.toml").write_text('[[charge]]\npercent = "25"\nwhen = {tenant_id = "acme"}\n')
    done = attribkit(*asked, "usage.json", "--prices", "prices.toml", "--field", "tenant_id=acme", "--json",
                     folder=tmp_path)  # fmt: skip
    read = json.loads(done.stdout)
    assert (read["usd"], read["list_usd"], read["charged_usd"]) == ("0.00148", "0.00148", "0.00185")
    assert read["priced_as"] == "openai/gpt-4.1" and read["price_age_days"] is not None


@pytest.mark.parametrize(
    ("args", "stdin", "code", "said"),
    [
        (("explain", "--model", "gpt-9"), CHAT, 1, ""),
        (("explain", "--model", "gpt-4.1"), '{"prompt_tokens": -1}', 1, ""),
        (("explain", "--model", "gpt-4.1"), "no json", 2, "is no usage as JSON"),
        (("explain", "nowhere.json", "--model", "gpt-4.1"), "", 2, "nowhere.json"),
        (("explain", "--model", "gpt-4.1", "--field", "acme"), CHAT, 2, "FIELD=VALUE"),
        (("explain", "--model", "gpt-4.1", "--prices", "nowhere.toml"), CHAT, 2, "nowhere.toml"),
        (("diff",), "", 2, "price_source"),
        (("diff", "bundled", "nowhere.json"), "", 2, "nowhere.json"),
        (("update",), "", 2, "price source"),
        (("update", "nowhere.json"), "", 1, "nowhere.json"),
        (("import", "nowhere.csv", "-o", "x.json"), "", 2, "nowhere.csv"),
        (("import", "pyproject.toml", "-o", "x.json"), "", 2, "pyproject.toml"),
        (("show", "gpt-4.1", "--provider", "acme"), "", 1, "no seller 'acme' is known"),
        (("check", "--ledger", "sqlite:///nowhere.db"), "", 2, "there is no ledger"),
    ],
)
def test_codes_and_one_line_errors(tmp_path: Path, args: tuple[str, ...], stdin: str, code: int, said: str) -> None:
    done = attribkit("prices", *args, folder=tmp_path, stdin=stdin)
    assert done.returncode == code, done
    assert said in done.stderr and len(done.stderr.splitlines()) <= 1 and "Traceback" not in done.stderr


def test_import_update_and_diff(tmp_path: Path) -> None:
    entry = {"litellm_provider": "openai", "input_cost_per_token": 3e-06, "output_cost_per_token": 9e-06}
    (tmp_path / "litellm.json").write_text(json.dumps({"gpt-9": entry, "gpt-4.1": entry}))
    assert attribkit("prices", "import", "litellm.json", "-o", "new.json", folder=tmp_path).returncode == 0
    done = attribkit("prices", "diff", "bundled", "new.json", "--seller", "openai", "--csv", folder=tmp_path)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {"seller": "openai", "model": "gpt-9", "what": "model", "before": "", "after": "new"} in rows or any(
        row["model"] == "gpt-9" and row["after"] == "new" for row in rows
    )
    changed = [row for row in rows if row["model"] == "gpt-4.1" and row["what"] == "standard.input"]
    assert [(row["before"], row["after"]) for row in changed] == [("2", "3")]
    done = attribkit("prices", "update", folder=tmp_path, ATTRIBKIT_PRICE_SOURCE="new.json")
    assert done.returncode == 0 and done.stdout.startswith("taken: version ")
    done = attribkit("prices", "show", "gpt-9", folder=tmp_path, ATTRIBKIT_PRICE_SOURCE="new.json")
    assert done.returncode == 0 and done.stdout.startswith("openai/gpt-9")
    (tmp_path / "new.json").write_text("{}")
    done = attribkit("prices", "update", "--json", folder=tmp_path, ATTRIBKIT_PRICE_SOURCE="new.json")
    assert done.returncode == 1 and json.loads(done.stdout)["error"]


def test_contract_prices_from_csv(tmp_path: Path) -> None:
    (tmp_path / "contract.csv").write_text("seller,model,input,output,from\nopenai,gpt-4.1,$1.5,6,2026-01-01\n")
    assert attribkit("prices", "import", "contract.csv", "-o", "own.json", folder=tmp_path).returncode == 0
    cost = PriceEngine.bundled(tmp_path / "own.json").price(json.loads(CHAT), model="gpt-4.1", provider="openai")
    assert cost.usd == Decimal("0.00116")  # what the contract leaves out keeps its list price
    (tmp_path / "contract.csv").write_text("seller,model,input\nopenai,gpt-4.1,cheap\n")
    done = attribkit("prices", "import", "contract.csv", "-o", "own.json", folder=tmp_path)
    assert done.returncode == 2 and "line 2: input" in done.stderr
    for text, said in (
        ("", "contract.csv: has no row"),
        ("seller,model,input\n", "contract.csv: has no row"),
        ("seller,model,input\nopenai,gpt-4.1,1e99999\n", "is not an amount"),
    ):
        (tmp_path / "contract.csv").write_text(text)
        done = attribkit("prices", "import", "contract.csv", "-o", "none.json", folder=tmp_path)
        assert done.returncode == 2 and said in done.stderr and not (tmp_path / "none.json").exists()
    (tmp_path / "contract.csv").write_text("seller,model,input\nopenai,gpt-4.1,1\n")
    done = attribkit("prices", "import", "contract.csv", "-o", "nowhere/none.json", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("attribkit: nowhere/none.json: cannot be written")


# -- the ledger -------------------------------------------------------------------------------------------------------

USAGE = Usage((("input", 600), ("cache_read", 400), ("output", 10)))


def call(model: str = "gpt-4.1", tenant: str = "acme", **facts: Any) -> Any:
    made = record({"tenant_id": tenant}, requested_model=model, served_model=model, served_tier=None, usage=USAGE)
    cost = PriceEngine.bundled().cost(USAGE, provider="openai", model=model, at=made.started_ns)
    return made._replace(**{"cost": cost, **facts})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sink = LedgerSink(f"sqlite:///{tmp_path}/attribkit.db")
    for made in (call(), call(tenant="globex"), call("gpt-4o-mini"), call("house-model"),
                 call(usage=Usage(known=False), cost=Cost.unknown("no reply arrived"))):  # fmt: skip
        sink.finished(made)
    sink.close()
    return tmp_path


def test_check_finds_models_without_a_price(folder: Path) -> None:
    done = attribkit("prices", "check", folder=folder)  # rows that wait in the spool are looked at
    assert done.returncode == 1
    assert "house-model" in done.stdout and "not well: 1 kinds of calls without a price" in done.stdout
    (folder / "own.toml").write_text('[[price]]\nseller = "openai"\nmodel = "house-model"\ninput = "1"\noutput = "2"\n')
    done = attribkit("prices", "check", "--prices", "own.toml", "--json", folder=folder)
    assert done.returncode == 0 and json.loads(done.stdout)["gaps"] == []
    stale = attribkit("prices", "check", "--prices", "own.toml", "--max-age", "-1", folder=folder)
    assert stale.returncode == 1 and "not well: the catalog is stale\n" in stale.stdout


def test_check_asks_for_an_embedding_what_an_embedding_has(tmp_path: Path) -> None:
    sink = LedgerSink(f"sqlite:///{tmp_path}/attribkit.db")
    usage = Usage((("input", 1_000),))
    for model in ("text-embedding-3-small", "text-embedding-9-huge"):
        sink.finished(call(model, api="embeddings", usage=usage))
    sink.close()
    done = attribkit("prices", "check", "--json", folder=tmp_path)
    assert [gap["model"] for gap in json.loads(done.stdout)["gaps"]] == ["text-embedding-9-huge"]


def test_reprice_is_a_dry_run_first_and_a_figure_beside_the_rows_then(folder: Path) -> None:
    (folder / "own.toml").write_text(
        '[[price]]\nseller = "openai"\nmodel = "house-model"\ninput = "1"\noutput = "2"\n'
        '[[discount]]\nseller = "openai"\nmodel = "gpt-4.1"\npercent = "50"\n'
    )
    done = attribkit("reprice", "--prices", "own.toml", "--json", folder=folder)
    assert done.returncode == 0, done
    read = json.loads(done.stdout)
    assert {row["name"]: (row["before_usd"], row["after_usd"]) for row in read["rows"]} == {
        "openai/gpt-4.1": ("0.00296", "0.00148"),
        "openai/house-model": ("0", "0.00102"),
    }
    assert (read["total"]["calls"], read["total"]["changed"], read["total"]["newly_priced"]) == (5, 3, 1)
    before = attribkit("report", "--json", folder=folder).stdout
    assert "no figure" not in before and attribkit("reprice", "--list", "--json", folder=folder).stdout.strip() == "[]"

    done = attribkit("reprice", "--prices", "own.toml", "--apply", folder=folder)
    assert done.returncode == 2 and "--label" in done.stderr
    kept = ("reprice", "--prices", "own.toml", "--apply", "--label", "contract", "--reason", "the new contract")
    assert attribkit(*kept, folder=folder).returncode == 0
    assert attribkit("report", "--json", folder=folder).stdout == before  # the rows keep what they say
    figure = json.loads(attribkit("report", "--json", "--figure", "contract", folder=folder).stdout)
    assert figure["figure"] == "contract"
    total = json.loads(before)["total"]
    moved = Decimal(figure["total"]["cost_usd"]) - Decimal(total["cost_usd"])
    assert moved == Decimal("0.00148") - Decimal("0.00296") + Decimal("0.00102")
    assert figure["total"]["unpriced_calls"] == total["unpriced_calls"] - 1
    done = attribkit(*kept, folder=folder)
    assert done.returncode == 2 and "contract" in done.stderr  # a label is used once
    listed = json.loads(attribkit("reprice", "--list", "--json", folder=folder).stdout)
    assert [(one["label"], one["reason"], one["calls"], one["changed"]) for one in listed] == [
        ("contract", "the new contract", 5, 3)
    ]
    done = attribkit("report", "--figure", "nothing", folder=folder)
    assert done.returncode == 2 and "contract" in done.stderr
    assert attribkit("reprice", "--drop", "contract", folder=folder).returncode == 0
    assert attribkit("report", "--figure", "contract", folder=folder).returncode == 2


def test_reprice_only_what_is_asked_for(folder: Path) -> None:
    (folder / "own.toml").write_text('[[discount]]\npercent = "50"\n')
    asked = ("--prices", "own.toml", "--json", "--where", "tenant_id=globex")
    read = json.loads(attribkit("reprice", *asked, folder=folder).stdout)
    assert (read["total"]["calls"], read["total"]["changed"]) == (1, 1)
    read = json.loads(attribkit("reprice", *asked, "--since", "2020-01-01", "--until", "2020-02-01",
                                folder=folder).stdout)  # fmt: skip
    assert read["total"]["calls"] == 0
