"""Tiers by rule."""

from __future__ import annotations

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
    ],
)
def test_rules_that_cannot_be_read(rule: Any, name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TierPolicy([{"tier": "default"}, rule])
    assert refused.value.name == name and name in str(refused.value)
