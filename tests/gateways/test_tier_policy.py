"""Tiers by rule."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from attribkit.attribution import Attribution
from attribkit.errors import ConfigurationError
from attribkit.gateways.tiers import TierPolicy

RULES = (
    {"when": {"tenant_id": "acme", "feature": ["summary", "search"]}, "tier": "priority"},
    {"when": {"plan": "gold"}, "tier": "reasoning"},
    {"when": {"workflow": ("nightly",)}, "tier": "flex"},
)


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({"tenant_id": "acme", "feature": "search"}, "priority"),
        ({"tenant_id": "acme", "feature": "chat"}, None),
        ({"tenant_id": "acme"}, None),
        ({"tenant_id": "acme", "feature": "search", "plan": "gold"}, "priority"),
        ({"plan": "gold", "workflow": "nightly"}, "reasoning"),
        ({"workflow": "nightly"}, "flex"),
        ({}, None),
        ({"workflow": "nightly", "tier": "scale"}, "scale"),
    ],
)
def test_the_first_rule_that_holds_decides_and_the_app_beats_it(fields: dict[str, str], tier: str | None) -> None:
    policy, who = TierPolicy(RULES), Attribution.of(fields)
    assert policy.pick(who) == tier
    assert policy.applied(who) == Attribution.of({**fields, "tier": tier})
    assert policy.applied(who) is policy.applied(Attribution.of(fields))


def test_a_rule_without_when_is_for_the_rest() -> None:
    policy = TierPolicy([*RULES, {"tier": "default"}])
    assert policy.pick(Attribution()) == "default"
    assert policy.pick(Attribution.of({"plan": "gold"})) == "reasoning"
    assert not TierPolicy([]) and policy
    assert TierPolicy([]).pick(Attribution.of({"plan": "gold"})) is None


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ({"days": "mon-fri"}, ["2026-11-20T23:59:59Z"], ["2026-11-21T00:00Z", "2026-11-22T12:00Z"]),
        ({"days": ["sat", "sun"]}, ["2026-11-21T00:00Z"], ["2026-11-20T23:59Z"]),
        ({"days": "fri-mon"}, ["2026-11-20T12:00Z", "2026-11-23T12:00Z"], ["2026-11-24T12:00Z"]),
        ({"from": "08:00", "until": "18:00"}, ["2026-11-21T08:00Z", "2026-11-21T17:59:59Z"], ["2026-11-21T18:00Z"]),
        ({"from": "08:00"}, ["2026-11-21T23:59Z"], ["2026-11-21T07:59Z"]),
        ({"until": "08:00"}, ["2026-11-21T00:00Z"], ["2026-11-21T08:00Z"]),
        (
            {"days": "fri", "from": "22:00", "until": "06:00"},
            ["2026-11-20T22:00Z", "2026-11-21T05:59Z"],
            ["2026-11-20T05:00Z", "2026-11-21T22:30Z", "2026-11-21T06:00Z"],
        ),
        (
            {"from": "09:00", "until": "10:00", "timezone": "Europe/Berlin"},
            ["2026-11-21T08:30Z", "2026-07-21T07:30Z"],
            ["2026-11-21T09:30Z", "2026-07-21T08:30Z"],
        ),
        # The hour that daylight saving repeats is there twice, and the one that it skips is not there.
        (
            {"from": "02:00", "until": "03:00", "timezone": "Europe/Berlin"},
            ["2026-10-25T00:30Z", "2026-10-25T01:30Z"],
            ["2026-03-29T00:59Z", "2026-03-29T01:00Z"],
        ),
        ({"days": "sun", "timezone": "Pacific/Kiritimati"}, ["2026-11-21T12:00Z"], ["2026-11-22T12:00Z"]),
    ],
)
def test_a_rule_holds_at_its_hours(hours: dict[str, Any], inside: list[str], outside: list[str]) -> None:
    clock = [0.0]
    policy = TierPolicy([{**hours, "tier": "flex"}, {"tier": "default"}], now=lambda: clock[0])
    for texts, tier in ((inside, "flex"), (outside, "default")) * 2:
        for text in texts:
            clock[0] = at(text)
            assert policy.pick(Attribution()) == tier, text


def test_a_rule_holds_by_what_is_left_of_a_budget() -> None:
    shares = {"acme": Decimal("0.5")}

    def left(budget: str, who: Attribution, model: str | None, *, wait: bool = True) -> Decimal | None:
        return shares.get(who.tenant_id or "") if budget == "each" else None

    rules: list[dict[str, Any]] = [
        {"budget": "other", "left_over": "0%", "tier": "never"},
        {"budget": "each", "left_under": "20%", "when": {"tenant_id": ["acme", "globex"]}, "tier": "flex"},
        {"budget": "each", "left_over": 0.8, "tier": "priority"},
    ]
    policy, acme = TierPolicy(rules, left=left), Attribution.of({"tenant_id": "acme"})
    found = []
    for share in ("0.81", "0.8", "0.2", "0.19"):
        shares["acme"] = Decimal(share)
        found.append(policy.pick(acme))
    assert found == ["priority", None, None, "flex"]
    assert policy.pick(Attribution.of({"tenant_id": "globex"})) is None
    assert policy.pick(acme.merged({"tier": "scale"})) == "scale"
    assert TierPolicy(rules).pick(acme) is None


def test_memory_is_bounded() -> None:
    policy = TierPolicy(RULES)
    for number in range(3000):
        policy.pick(Attribution.of({"tenant_id": str(number)}))
    assert len(policy._applied) == 1024


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("gold", "tiers[1]"),
        ({"if": {}, "tier": "x"}, "tiers[1]"),
        ({"when": {}}, "tiers[1].tier"),
        ({"tier": 3}, "tiers[1].tier"),
        ({"tier": "x", "when": "gold"}, "tiers[1].when"),
        ({"tier": "x", "when": {"plan": 3}}, "tiers[1].when.plan"),
        ({"tier": "x", "when": {"plan": ["a", 3]}}, "tiers[1].when.plan"),
        ({"tier": "x", "days": "monday"}, "tiers[1].days"),
        ({"tier": "x", "days": []}, "tiers[1].days"),
        ({"tier": "x", "from": "8:00"}, "tiers[1].from"),
        ({"tier": "x", "until": "25:00"}, "tiers[1].until"),
        ({"tier": "x", "until": 8}, "tiers[1].until"),
        ({"tier": "x", "days": "mon", "timezone": "Mars/Base"}, "tiers[1].timezone"),
        ({"tier": "x", "timezone": "Europe/Berlin"}, "tiers[1].timezone"),
        ({"tier": "x", "budget": "b"}, "tiers[1].budget"),
        ({"tier": "x", "left_under": "20%"}, "tiers[1].budget"),
        ({"tier": "x", "budget": "b", "left_under": "120%"}, "tiers[1].left_under"),
        ({"tier": "x", "budget": "b", "left_over": "much"}, "tiers[1].left_over"),
    ],
)
def test_rules_that_cannot_be_read(rule: Any, name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TierPolicy([{"tier": "default"}, rule])
    assert refused.value.name == name and name in str(refused.value)
