"""`attribkit budgets` against a real file, beside a process that spends."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from budgets.made import ACME, call, guard, spend
from typer.testing import CliRunner

from attribkit.attribution import Attribution
from attribkit.budgets.policy import Budget
from attribkit.budgets.sqlite import SqliteStore
from attribkit.calls import CallRecord
from attribkit.cli.main import app
from attribkit.cost import Cost
from attribkit.errors import BudgetExceeded
from attribkit.ledger.open import open_ledger
from attribkit.ledger.reading import row_of
from attribkit.usage.model import Usage


def run(*words: str, code: int = 0) -> str:
    ran = CliRunner().invoke(app, ["budgets", *words])
    assert ran.exit_code == code, ran.output
    return ran.output


def told(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


def test_a_budget_is_made_changed_topped_up_and_removed_beside_a_running_process() -> None:
    run("set", "each", "--limit", "10", "--per", "tenant_id", "--window", "total", "--warn", "80%")
    store = SqliteStore(str(Path("attribkit.db").resolve()))
    at = guard(store)
    spend(at, "6")
    (row,) = told("list")
    assert (row["budget"], row["limit"], row["spent"], row["from"]) == ("each", "10", "6", "set")
    run("set", "each", "--limit", "7")
    at._plans.refresh(store)
    with pytest.raises(BudgetExceeded):
        spend(at, "2")
    assert "6 usd left" in run("top-up", "each", "5", "--key", "tenant_id=acme", "--note", "order 17")
    spend(at, "6")
    (row,) = told("show", "each", "--key", "tenant_id=acme")
    assert (row["spent"], row["left"], row["limit"], row["share"]) == ("12", "0", "12", "1")
    lines = told("statement", "each")
    assert [(line["what"], line["amount"], line["note"]) for line in lines] == [
        ("top-up", "5", "order 17"),
        ("spent", "-12", "total"),
    ]
    run("set", "each", "--remove")
    at._plans.refresh(store)
    spend(at, "100")
    assert told("list") == []
    at.close()
    store.close()


def test_what_is_wrong_is_one_line() -> None:
    run("show", "nope", code=2)
    run("set", "new", code=2)
    run("set", "b", "--limit", "x", code=2)
    run("set", "b", "--limit", "1", "--per", "tenant_id")
    run("top-up", "b", "5", code=2)
    run("top-up", "b", "five", "--key", "tenant_id=acme", code=2)
    run("list", "--store", "mysql://x", code=2)
    run("release", "nobody", code=2)


def test_declared_budgets_are_listed_and_a_dead_process_is_released() -> None:
    Path("attribkit.toml").write_text('[[budgets]]\nname = "b"\nlimit = "10"\n')
    assert told("list")[0]["from"] == "settings"
    store = SqliteStore(str(Path("attribkit.db").resolve()))
    store.define(Budget("c", limit="5").as_dict(), "declared")
    assert [row["budget"] for row in told("list")] == ["b", "c"]
    at = guard(store, Budget("b", limit="10"))
    held = at.reserve(call("4"), ACME, "")
    (row,) = told("release")
    assert row["counters"] == 1
    assert "in 1 counters" in run("release", row["holder"])
    at.settle(held, Decimal(4))
    at.close()
    store.close()


def test_past_calls_are_replayed_against_budgets_and_tiers() -> None:
    ledger = open_ledger("sqlite:///attribkit.db")
    start = 1_790_000_000 * 10**9
    for number in range(10):
        who = Attribution.of({"tenant_id": "acme" if number % 2 else "globex", "plan": "gold"})
        cost = Cost(Decimal(1), "priced", list_usd=Decimal(1))
        record = CallRecord(
            f"{number:020d}", f"{number}", 0, start + number, 1, None, "openai", "openai", None, "h", "chat", "gpt-5",
            None, None, None, None, False, False, "ok", 200, None, None, None, None, None, Usage((("input", 5),)), cost,
            who, "inherited",
        )  # fmt: skip
        ledger.write([row_of(record)])
    ledger.close()
    Path("proposed.toml").write_text(
        '[[budgets]]\nname = "each"\nlimit = "3"\nper = "tenant_id"\nmatch = {tenant_id = "acme"}\n'
        'thresholds = [{at = "60%", action = "downgrade", tier = "flex"}]\n'
        '[[tiers]]\nwhen = {plan = "gold"}\ntier = "priority"\n'
    )
    found = told("simulate", "--ledger", "sqlite:///attribkit.db", "--budgets", "proposed.toml")
    assert (found["calls"], found["refused"], found["refused_usd"], found["downgraded"]) == (10, 2, "2", 1)
    assert found["budgets"][0]["who"] == "tenant_id=acme"
    assert found["tiers"] == {"priority": 7, "flex": 1, "(refused)": 2}
    Path("tiers.toml").write_text(
        '[[budgets]]\nname = "each"\nlimit = "5"\nper = "tenant_id"\nwindow = "total"\ndry_run = true\n'
        '[[tiers]]\nbudget = "each"\nleft_under = "30%"\ntier = "flex"\n'
        '[[tiers]]\ndays = "mon"\nfrom = "14:00"\nuntil = "15:00"\ntier = "priority"\n'
    )
    found = told("simulate", "--ledger", "sqlite:///attribkit.db", "--budgets", "tiers.toml")
    assert found["tiers"] == {"flex": 2, "priority": 8}  # 21 September 2026, 14:13 UTC, was a Monday
    assert "2 refused" in run("simulate", "--budgets", "proposed.toml")
    assert "no call would" in run("simulate", "--budgets", "proposed.toml", "--since", "2099-01-01")
