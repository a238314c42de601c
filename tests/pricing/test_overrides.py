"""An organisation's own prices over the catalog."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from attribkit.errors import PriceDataError
from attribkit.pricing.engine import PriceEngine

CHAT = {"prompt_tokens": 1_000_000, "completion_tokens": 100_000}


def test_contract_price_keeps_the_list_price_beside_it() -> None:
    engine = PriceEngine.bundled({"price": [{"seller": "openai", "model": "gpt-4.1", "input": "1.5"}]})
    cost = engine.price(CHAT, model="gpt-4.1", provider="openai")
    assert (cost.usd, cost.list_usd) == (Decimal("2.3"), Decimal("2.8"))
    assert cost.price_version == engine.version != PriceEngine.bundled().version
    other = engine.price(CHAT, model="gpt-4.1-mini", provider="openai")
    assert other.usd == other.list_usd and other.price_version == PriceEngine.bundled().version


def test_discount_by_pattern_and_date() -> None:
    rule = {"seller": "openai", "model": "gpt-4.1*", "percent": "12.5", "from": "2026-01-01", "until": "2026-07-01"}
    engine = PriceEngine.bundled({"discount": [rule]})
    inside = engine.price(CHAT, model="gpt-4.1-2025-04-14", provider="openai", at="2026-03-01")
    assert (inside.usd, inside.list_usd) == (Decimal("2.45"), Decimal("2.8"))
    for day in ("2025-12-31", "2026-07-01"):
        assert engine.price(CHAT, model="gpt-4.1-2025-04-14", provider="openai", at=day).usd == Decimal("2.8")


def test_discount_leaves_fees_unless_told() -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 0, "server_tool_use": {"web_search_requests": 100}}
    rule = {"seller": "anthropic", "percent": 50}
    for fees, usd in ((False, "1.5"), (True, "1.0")):
        engine = PriceEngine.bundled([{"discount": [{**rule, "fees": fees}]}])
        assert engine.price(usage, model="claude-haiku-4-5", provider="anthropic").usd == Decimal(usd)


def test_own_models_deployments_and_hardware(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(
        """
[[price]]
seller = "vllm"
model = "llama-local"
input = 0.1
output = "0.3"

[[free]]
seller = "ollama"
reason = "our own machines"

[[name]]
seller = "azure"
name = "gpt4o-team-a"
model = "gpt-4o-2024-08-06"
"""
    )
    engine = PriceEngine.bundled([file])
    own = engine.price(CHAT, model="llama-local", provider="vllm")
    assert (own.usd, own.list_usd, own.priced_as) == (Decimal("0.13"), None, "vllm/llama-local")
    free = engine.price(CHAT, model="anything", provider="ollama")
    assert (free.usd, free.status, free.reason) == (Decimal(0), "free", "our own machines")
    named = engine.price(CHAT, model="gpt4o-team-a", provider="azure", region="global")
    assert named.usd == Decimal("3.5") and named.priced_as == "azure/gpt-4o-2024-08-06"


def test_contract_goes_before_discount_and_names_its_tier() -> None:
    engine = PriceEngine.bundled(
        {
            "discount": [{"seller": "*", "percent": 10}],
            "price": [{"seller": "openai", "model": "gpt-4.1", "tier": "batch", "input": "0.7", "output": "3"}],
        }
    )
    assert engine.price(CHAT, model="gpt-4.1", provider="openai").usd == Decimal("2.52")
    assert engine.price(CHAT, model="gpt-4.1", provider="openai", batch=True).usd == Decimal("1.0")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"prices": []}, "'prices' is not one of"),
        ({"price": {}}, "not a list"),
        ({"price": [{"seller": "openai", "model": "m"}]}, "no price"),
        ({"price": [{"seller": "openai", "input": "1"}]}, "model"),
        ({"price": [{"seller": "openai", "model": "m", "input": "cheap"}]}, "input = 'cheap'"),
        ({"price": [{"seller": "openai", "model": "m", "input": -1}]}, "input = -1"),
        ({"price": [{"seller": "openai", "model": "m", "inptu": "1"}]}, "'inptu'"),
        ({"discount": [{"percent": 101}]}, "from 0 to 100"),
        ({"discount": [{"percent": True}]}, "percent = True"),
        ({"discount": [{"percent": 5, "from": "soon"}]}, "from = 'soon'"),
        ({"discount": [{"percent": 5, "from": "2026-02-01", "until": "2026-01-01"}]}, "is not after"),
        ({"discount": ["all"]}, "row 1: is not a table"),
    ],
)
def test_what_breaks_the_format_is_named(data: dict[str, Any], said: str) -> None:
    with pytest.raises(PriceDataError, match="overrides") as error:
        PriceEngine.bundled(data)
    assert said in str(error.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    for name, content in (("a.toml", "price = ["), ("b.json", "[1]"), ("c.json", "{")):
        (tmp_path / name).write_text(content)
        with pytest.raises(PriceDataError, match=name):
            PriceEngine.bundled(str(tmp_path / name))
    with pytest.raises(PriceDataError, match="nowhere"):
        PriceEngine.bundled(tmp_path / "nowhere.toml")


class Who(dict[str, str]):
    """What rules ask of an attribution."""


ACME, GLOBEX = Who(tenant_id="acme", plan="gold"), Who(tenant_id="globex")


def test_a_tenant_s_contract_goes_before_the_organisation_s() -> None:
    engine = PriceEngine.bundled(
        {
            "discount": [{"seller": "openai", "percent": "10"}],
            "price": [
                {"seller": "openai", "model": "gpt-4.1", "input": "1.9", "from": "2026-01-01"},
                {"seller": "openai", "model": "gpt-4.1", "input": "1", "when": {"tenant_id": ["acme", "initech"]},
                 "until": "2026-12-01"},
            ],
        }
    )  # fmt: skip

    def usd(who: Any, at: str = "2026-11-15", model: str = "gpt-4.1") -> Decimal | None:
        return engine.price(CHAT, model=model, provider="openai", at=at, who=who).usd

    assert usd(ACME) == Decimal("1.8") and usd(GLOBEX) == usd(None) == Decimal("2.7")
    assert usd(ACME, "2026-12-01") == Decimal("2.7")
    assert usd(GLOBEX, "2025-12-31") == Decimal("2.52")
    assert usd(ACME, model="gpt-4.1-mini") == Decimal("0.504")


def test_the_charge_stands_beside_list_price_and_cost() -> None:
    engine = PriceEngine.bundled(
        {
            "discount": [{"seller": "openai", "percent": "50"}],
            "charge": [
                {"percent": "20"},
                {"percent": "5", "when": {"plan": "gold"}},
                {"percent": "0", "on": "list", "when": {"tenant_id": "globex"}, "seller": "openai", "model": "gpt-4*"},
            ],
        }
    )

    def layers(who: Any, **asked: Any) -> tuple[Decimal | None, ...]:
        cost = engine.price(CHAT, **{"model": "gpt-4.1", "provider": "openai", "who": who, **asked})
        return cost.list_usd, cost.usd, cost.charged_usd

    assert layers(None) == (Decimal("2.8"), Decimal("1.4"), Decimal("1.68"))
    assert layers(ACME) == (Decimal("2.8"), Decimal("1.4"), Decimal("1.47"))
    assert layers(GLOBEX) == (Decimal("2.8"), Decimal("1.4"), Decimal("2.8"))
    assert layers(GLOBEX, model="o3") == (Decimal("2.8"), Decimal("1.4"), Decimal("1.68"))
    assert layers(ACME, model="gpt-unheard-of") == (None, None, None)
    stated = engine.price({**CHAT, "cost": 1}, model="some/model", provider="openrouter", who=ACME)
    assert (stated.usd, stated.charged_usd) == (Decimal(1), Decimal("1.05"))
    assert engine.price(CHAT, model="gpt-4.1", provider="openai", who=ACME).price_version == engine.version


def test_without_a_charge_nothing_is_charged_on_top() -> None:
    assert PriceEngine.bundled().price(CHAT, model="gpt-4.1", provider="openai", who=ACME).charged_usd is None


def test_many_tenants_share_few_entries() -> None:
    engine = PriceEngine.bundled({"charge": [{"percent": "5", "when": {"tenant_id": "acme"}}]})
    for number in range(6_000):
        engine.price(CHAT, model="gpt-4.1", provider="openai", at="2026-11-15", who=Who(tenant_id=f"t{number}"))
    assert len(engine._entries) == 1 and len(engine.overrides._groups) <= 4_096


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"percent": "-1"}, "not an amount"),
        ({"percent": "20000"}, "from 0 to 10000"),
        ({"percent": "5", "on": "profit"}, "on"),
        ({"percent": "5", "when": "acme"}, "when"),
        ({"percent": "5", "when": {"tenant_id": 7}}, "when.tenant_id"),
        ({"percent": "5", "when": {"tenant_id": []}}, "when.tenant_id"),
    ],
)
def test_broken_charges_are_named(row: dict[str, Any], said: str) -> None:
    with pytest.raises(PriceDataError, match="charge row 1") as error:
        PriceEngine.bundled({"charge": [row]})
    assert said in str(error.value)
