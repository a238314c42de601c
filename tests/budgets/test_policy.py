"""What can be said of a budget, what cannot, and which calls it is about."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from attribkit.attribution import Attribution
from attribkit.budgets.matching import Budgets, counters_of
from attribkit.budgets.policy import Budget
from attribkit.errors import ConfigurationError

FULL: dict[str, Any] = {
    "name": "all",
    "limit": "49.00",
    "window": "day",
    "timezone": "Europe/Berlin",
    "match": {"feature": ["chat", "search"], "plan": "gold"},
    "per": ["tenant_id", "model"],
    "daily_cap": "5",
    "thresholds": [
        {"at": "80%", "action": "warn", "webhook": "http://hooks/x"},
        {"at": "90%", "action": "downgrade", "tier": "flex", "models": {"gpt-5": "gpt-5-mini"}},
        {"at": "100%", "action": "queue", "seconds": 2.0, "waiting": 5},
    ],
    "dry_run": True,
    "unpriced": "reserve",
    "ceiling": "0.5",
    "store_down": "closed",
}


def test_a_budget_can_be_written_down_and_read_again() -> None:
    budget = Budget(**FULL)
    assert budget.as_dict() == FULL
    assert Budget(**json.loads(json.dumps(budget.as_dict()))) == budget
    assert Budget("a", limit=1) != Budget("a", limit=2)
    assert {Budget("a", limit="1"), Budget("a", limit="1.00")} == {Budget("a", limit=1)}


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"limit": "x"}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "NaN"}, "limit"),
        ({"limit": "10000000"}, "limit"),
        ({"limit": "1.5", "unit": "tokens"}, "limit"),
        ({"unit": "euro"}, "unit"),
        ({"window": "fortnight"}, "window"),
        ({"timezone": "Mars"}, "timezone"),
        ({"wallet": True, "window": "day"}, "window"),
        ({"match": "tenant"}, "match"),
        ({"match": {"tenant_id": []}}, "match.tenant_id"),
        ({"match": {"tenant_id": 5}}, "match.tenant_id"),
        ({"per": ["a", "a"]}, "per"),
        ({"unpriced": "ignore"}, "unpriced"),
        ({"unpriced": "reserve"}, "ceiling"),
        ({"store_down": "maybe"}, "store_down"),
        ({"thresholds": [{"at": "8o%"}]}, "thresholds.at"),
        ({"thresholds": [{"at": "80%", "action": "explode"}]}, "thresholds.action"),
        ({"thresholds": [{"at": "80%", "action": "downgrade"}]}, "thresholds.tier"),
        ({"thresholds": [{"action": "queue"}]}, "thresholds.seconds"),
        ({"thresholds": [{"att": "80%"}]}, "thresholds"),
        ({"name": ""}, "name"),
    ],
)
def test_what_cannot_be_meant_is_told(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        Budget(**{"name": "b", "limit": "1", **wrong})
    assert told.value.name == name


def test_a_call_matches_by_any_field_and_by_the_model() -> None:
    budgets = [
        Budget("org", limit=1),
        Budget("acme", limit=1, match={"tenant_id": "acme"}),
        Budget("two", limit=1, match={"tenant_id": ["acme", "globex"], "feature": "chat"}),
        Budget("dear", limit=1, match={"model": "gpt-5"}),
        Budget("each", limit=1, per="tenant_id"),
        Budget("each-model", limit=1, per=("tenant_id", "model")),
    ]
    index = Budgets(budgets)

    def names(model: str | None, **fields: str) -> list[str]:
        attribution = Attribution.of({**fields, "workflow_id": "x"})
        found = [budget.name for budget in index.matching(index.relevant(attribution), model)]
        assert found == [budget.name for budget in budgets if budget.matches(attribution, model)]
        return found

    assert names(None) == ["org"]
    assert names("gpt-5") == ["org", "dear"]
    assert names("gpt-4", tenant_id="acme") == ["org", "acme", "each", "each-model"]
    assert names("gpt-5", tenant_id="globex", feature="chat") == ["org", "two", "dear", "each", "each-model"]
    assert index.relevant(Attribution.of({"tenant_id": "a", "workflow_id": "x"})) == (("tenant_id", "a"),)


def test_a_template_has_one_counter_for_each_value_and_a_cap_is_another() -> None:
    budget = Budget("each", limit="10", per="tenant_id", daily_cap="1")
    acme, globex = (counters_of(budget, Attribution.of({"tenant_id": who}), None, 0.0) for who in ("acme", "globex"))
    assert [limit.counter.window for limit in acme] == ["month", "daily cap"]
    assert [limit.amount for limit in acme] == [10 * 10**12, 10**12]
    assert len({limit.counter.id for limit in (*acme, *globex)}) == 4
    assert json.loads(acme[0].counter.key) == {"tenant_id": "acme"}


def test_a_lower_reject_is_the_limit() -> None:
    budget = Budget("b", limit="10", thresholds=[{"at": "90%", "action": "reject"}])
    assert counters_of(budget, Attribution(), None, 0.0)[0].amount == 9 * 10**12
    assert budget.limit == Decimal(10)
