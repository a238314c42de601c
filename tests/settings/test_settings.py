"""Settings by keyword, environment and file, in that order; what cannot be used is told with key, value and choice."""

from __future__ import annotations

from pathlib import Path

import pytest

import attribkit
from attribkit.errors import ConfigurationError, PriceDataError
from attribkit.settings import Settings, load


def test_a_keyword_beats_the_environment_beats_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text('[tool.attribkit]\nledger = "sqlite:///pyproject.db"\nrequire = ["tenant_id"]\n')
    assert load({}).ledger == "sqlite:///pyproject.db"
    Path("attribkit.toml").write_text('ledger = "sqlite:///toml.db"\n[gateways]\n"http://gw" = "litellm"\n')
    assert load({}).ledger == "sqlite:///toml.db"
    monkeypatch.setenv("ATTRIBKIT_LEDGER", "sqlite:///env.db")
    settings = load({})
    assert (settings.ledger, settings.require, settings.gateways) == (
        "sqlite:///env.db",
        ("tenant_id",),
        {"http://gw": "litellm"},
    )
    assert load({"ledger": None}).ledger is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("REQUIRE", "tenant_id, workflow_id", ("tenant_id", "workflow_id")),
        ("PEERS", "http://a,http://b", ("http://a", "http://b")),
        ("LEDGER", "none", None),
        ("SPANS", "false", False),
        ("GATEWAYS", '{"http://gw": "portkey"}', {"http://gw": "portkey"}),
        ("HOPS", '{"openai": false}', {"openai": False}),
        ("ON_MISSING", "reject", "reject"),
    ],
)
def test_environment(name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ATTRIBKIT_{name}", text)
    assert getattr(load({}), name.lower()) == value


@pytest.mark.parametrize(
    ("keywords", "name", "says"),
    [
        ({"on_missing": "explode"}, "on_missing", ("'explode'", "record", "reject")),
        ({"gatways": {}}, "gatways", ("gateways",)),
        ({"gateways": {"http://gw": "portky"}}, "", ("portky", "portkey")),
        ({"gateways": {"not a url": "portkey"}}, "", ("not a url",)),
        ({"ledger": "mysql://x"}, "", ("mysql", "sqlite")),
        ({"ledger": 5}, "ledger", ("5",)),
        ({"hops": {"opneai": False}}, "hops", ("opneai", "openai")),
        ({"budgets": [{"name": "b", "limit": "x"}]}, "limit", ("'x'", "49.00")),
        ({"budgets": [{"name": "b", "limit": "1", "window": "fortnight"}]}, "window", ("fortnight", "month")),
        ({"budgets": [{"nme": "b"}]}, "budgets", ("nme",)),
        ({"tiers": [{"when": {}}]}, "", ("tier",)),
    ],
)
def test_what_cannot_be_used_is_told(keywords: dict[str, object], name: str, says: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        attribkit.instrument(**keywords)
    for word in says:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    if name:
        assert caught.value.name == name


def test_secrets_are_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        attribkit.instrument(carrier_key=["top-secret"])
    assert "top-secret" not in str(caught.value)
    assert "hidden" not in repr(Settings(carrier_key="hidden"))


def test_a_price_file_that_breaks_the_format_is_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[[price]]\nseller = "openai"\n')
    with pytest.raises(PriceDataError, match=r"prices\.toml"):
        attribkit.instrument(ledger=None, prices=str(file))


def test_garbage_in_a_file_is_told(tmp_path: Path) -> None:
    Path("attribkit.toml").write_text("ledger = [")
    with pytest.raises(ConfigurationError, match="attribkit settings"):
        attribkit.instrument()


def test_instrument_again_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    first = attribkit.instrument(ledger=None, gateways={"http://gw": "portkey"})
    assert attribkit.instrument().gateways == first.gateways
    assert not caplog.records
    assert attribkit.instrument(ledger=None, gateways={"http://other": "litellm"}).gateways == first.gateways
    assert "first ones stay" in caplog.text
