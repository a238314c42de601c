"""What can be set for a gateway, and how it is said that something cannot."""

from __future__ import annotations

from typing import Any

import pytest

from attribkit.attribution import Attribution
from attribkit.errors import ConfigurationError
from attribkit.gateways.route import Gateways, Route
from attribkit.gateways.table import DIALECTS

SECRET = "a secret of some length"


def returns_headers(attribution: Attribution) -> dict[str, str]:
    return {"X-Who": f"{attribution.tenant_id} ✓\n", "x-empty": "", "x-n": str(len(attribution))}


def raises(attribution: Attribution) -> dict[str, str]:
    raise RuntimeError("tenant acme")


def route(value: Any, **more: Any) -> Route:
    found = Gateways({"http://gateway.internal": value}, **more).match("http://gateway.internal/v1")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "name", "allowed"),
    [
        ("portky", ".dialect", "portkey"),
        ({"dialect": "portky"}, ".dialect", "off"),
        ({}, ".dialect", "litellm"),
        (7, "", "portkey"),
        ({"dialect": "portkey", "field": []}, ".field", "fields"),
        ({"dialect": "portkey", "fields": 7}, ".fields", None),
        ({"dialect": "portkey", "fields": ["a", 7]}, ".fields", None),
        ({"dialect": "portkey", "pseudonymise": {"a": 1}}, ".pseudonymise", None),
        ({"dialect": "portkey", "tiers": ["gold"]}, ".tiers", None),
        ({"dialect": "portkey", "tiers": {"gold": 1}}, ".tiers", None),
        ({"dialect": "portkey", "stream_usage": "yes"}, ".stream_usage", "true"),
        ({"dialect": "portkey", "headers": {"x-a": "b"}}, ".headers", "custom"),
        ({"dialect": "portkey", "buckets": {"tenant_id": 5}}, ".buckets", "vertex"),
        ({"dialect": "vertex", "buckets": {"tenant_id": 5000}}, ".buckets", None),
        ({"dialect": "vertex", "buckets": {"tenant_id": True}}, ".buckets", None),
        ({"dialect": "custom"}, ".headers", None),
        ({"dialect": "custom", "headers": {}}, ".headers", None),
        ({"dialect": "custom", "headers": "no_colon"}, ".headers", None),
        ("no.such.module:function", ".headers", None),
        ("attribkit.gateways.route:no_such", ".headers", None),
        ("attribkit.gateways.route:_REMEMBERED", ".headers", None),
        ({"dialect": "custom", "headers": {"authorization": "{tenant_id}"}}, ".headers", None),
        ({"dialect": "custom", "headers": {"bad name": "{tenant_id}"}}, ".headers", None),
        ({"dialect": "custom", "headers": {"x-a": 7}}, ".headers", None),
        ({"dialect": "custom", "headers": {"x-a": "{tenant_id"}}, ".headers['x-a']", None),
        ({"dialect": "custom", "headers": {"x-a": "{tenant_id!r}"}}, ".headers['x-a']", "json"),
        ({"dialect": "custom", "headers": {"x-a": "{0.__class__}"}}, ".headers['x-a']", "call_id"),
        ({"dialect": "custom", "headers": {"x-a": "{tenant_id}{call_id}"}}, ".headers['x-a']", None),
        ({"dialect": "custom", "headers": {"x-a": "caf\xe9 {tenant_id}"}}, ".headers['x-a']", None),
        ({"dialect": "custom", "headers": {"x-a": "{call_id}" + "x" * 600}}, ".headers", None),
        ({"dialect": "portkey", "pseudonymise": ["tenant_id"]}, ".pseudonymise", None),
    ],
)
def test_bad_settings_name_key_value_and_what_would_do(value: Any, name: str, allowed: str | None) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Gateways({"http://gateway.internal": value})
    assert refused.value.name == f"gateways['http://gateway.internal']{name}"
    assert "http://gateway.internal" in str(refused.value)
    if allowed is not None:
        assert allowed in refused.value.allowed and allowed in str(refused.value)


@pytest.mark.parametrize("pseudonyms", [{"2026-11": "short"}, {"": SECRET}, {"a.b": SECRET}, {"a": 7}])
def test_bad_pseudonym_keys_are_not_shown(pseudonyms: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Gateways({}, pseudonyms=pseudonyms)
    assert "pseudonyms[" in str(refused.value)
    assert "short" not in str(refused.value) and SECRET not in str(refused.value)
    assert refused.value.value == "***"


def test_pseudonyms_are_keyed_rotatable_and_per_destination() -> None:
    who = Attribution.of({"tenant_id": "acme", "user_id": "zoe", "workflow": "w"})
    hidden = {"dialect": "litellm", "pseudonymise": ["tenant_id", "user_id"]}
    old = route(hidden, pseudonyms={"2026-10": SECRET})
    new = route(hidden, pseudonyms={"2026-10": SECRET, "2026-11": "another secret of some length"})
    assert "acme" not in str(old.headers(who)) and "zoe" not in str(old.headers(who))
    assert "tenant_id:2026-10." in str(old.headers(who)) and "workflow:w" in str(old.headers(who))
    assert "tenant_id:2026-11." in str(new.headers(who))
    assert old.headers(who) == route(hidden, pseudonyms={"2026-10": SECRET.encode()}).headers(who)
    assert old.sent(who).tenant_id == who.pseudonymised(
        frozenset({"tenant_id"}), SECRET.encode(), key_id="2026-10"
    ).get("tenant_id")
    openai = route({"dialect": "openai", "pseudonymise": ["tenant_id"]}, pseudonyms={"2026-10": SECRET})
    assert openai.body(who, "runs", {})["metadata"]["tenant_id"] == old.sent(who).tenant_id
    assert "acme" in str(route("litellm").headers(who))


def test_only_the_named_fields_are_told_and_the_tier() -> None:
    who = Attribution.of({"tenant_id": "acme", "user_id": "zoe", "tier": "gold", "plan": "p"})
    told = route({"dialect": "portkey", "fields": ["plan", "tenant_id"]})
    assert dict(told.headers(who))["x-portkey-metadata"] == '{"plan":"p","tenant_id":"acme","tier":"gold"}'
    assert route({"dialect": "portkey", "fields": "plan, tenant_id"}).headers(who) == told.headers(who)
    assert told.headers(Attribution.of({"user_id": "zoe"})) == ()


def test_usage_of_streams_can_be_left_alone() -> None:
    assert all(route(name).stream_usage for name in DIALECTS if name != "custom")
    assert not route({"dialect": "portkey", "stream_usage": False}).stream_usage


@pytest.mark.parametrize("value", ["off", {"dialect": "off"}])
def test_off(value: Any) -> None:
    assert Gateways({"https://openrouter.ai": value}).match("https://openrouter.ai/api/v1") is None


def test_templates() -> None:
    told = route(
        {
            "dialect": "custom",
            "headers": {
                "x-team": "{tenant_id}/{workflow}",
                "x-one": "tenant={tenant_id}",
                "x-fixed": "attribkit",
                "x-braces": "{{{tenant_id}}}",
                "x-none": "{region}",
            },
        }
    )
    who = Attribution.of({"tenant_id": "a/b=c 100%", "workflow": "東"})
    assert dict(told.headers(who)) == {
        "x-team": "a%2Fb=c 100%25/%E6%9D%B1",
        "x-one": "tenant=a/b=c 100%25",
        "x-fixed": "attribkit",
        "x-braces": "{a/b=c 100%25}",
    }
    assert told.left_out == {}
    assert dict(told.headers(Attribution.of({"feature": "f"}))) == {"x-fixed": "attribkit"}
    assert told.tier("flex", "chat", {}) == {}
    assert route({"dialect": "custom", "headers": {"x": "{tier}"}, "tiers": {"gold": "flex"}}).tier(
        "gold", "chat", {}
    ) == {"service_tier": "flex"}


@pytest.mark.parametrize(
    "value", [f"{__name__}:returns_headers", {"dialect": "custom", "headers": returns_headers}], ids=["name", "object"]
)
def test_a_function_of_ones_own(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)("x"))
    monkeypatch.setattr(sys.modules[__name__], "returns_headers", returns_headers, raising=False)
    said = dict(route(value).headers(Attribution.of({"tenant_id": "acme"})))
    assert said.pop("x-who").startswith("acme %E2%9C%93_~")
    assert said == {"x-n": "1"}


def test_a_function_that_fails_leaves_the_request_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    from attribkit import faults

    faults.strict(False)
    told = route({"dialect": "custom", "headers": raises})
    for _ in range(3):
        assert told.headers(Attribution.of({"tenant_id": "acme"})) == ()
    assert faults.counts() == {"gateways.custom.headers: RuntimeError": 3}
    assert len(caplog.records) == 1 and "acme" not in caplog.text


def test_headers_are_computed_once_for_each_attribution_and_memory_is_bounded() -> None:
    computed = []

    def count(attribution: Attribution) -> dict[str, str]:
        computed.append(attribution)
        return {"x-who": attribution.tenant_id or ""}

    told = route({"dialect": "custom", "headers": count})
    who = [Attribution.of({"tenant_id": f"t{n}"}) for n in range(3000)]
    for _ in range(3):
        told.headers(who[0])
        told.headers(Attribution.of({"tenant_id": "t0"}))
    once = len(computed)
    for attribution in who:
        told.headers(attribution)
    assert len(told._headers) == 1024
    assert list(told._headers) == who[-1024:]
    computed.clear()
    told.headers(who[-1])
    assert once <= 2 and computed == []
