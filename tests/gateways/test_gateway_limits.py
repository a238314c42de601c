"""Each target's limits: what is too long or cannot be carried is shortened or escaped by rule, and nothing that does
not fit goes missing in silence."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from typing import Any
from urllib.parse import unquote

import pytest

from attribkit.attribution import WELL_KNOWN, Attribution, shortened
from attribkit.gateways.base import CallIds
from attribkit.gateways.route import Gateways, Route
from attribkit.gateways.table import DIALECTS

ALL_WELL_KNOWN = {name: f"v-{name}" for name in WELL_KNOWN}
MANY = Attribution.of({**ALL_WELL_KNOWN, **{f"dim_{n:02}": f"value {n}" for n in range(40)}})
HUGE = Attribution.of({f"dim_{n:02}": f"{n:02}" + "東" * 1000 for n in range(50)} | {"tenant_id": "acme"})
IDS = CallIds("c" * 36, "o" * 36, "a" * 32, "b" * 16, f"00-{'a' * 32}-{'b' * 16}-01")
TEMPLATES = {"dialect": "custom", "headers": {"x-who": "{tenant_id}/{workflow}", "x-meta": "{json}"}}


def route(dialect: Any, **settings: Any) -> Route:
    if dialect == "custom":
        dialect = TEMPLATES
    value = {"dialect": dialect, **settings} if settings else dialect
    found = Gateways({"http://gateway.internal": value}).match("http://gateway.internal")
    assert found is not None
    return found


def size(route: Route, attribution: Attribution) -> int:
    headers = route.headers(attribution) + route.call_headers(IDS)
    return sum(len(name) + len(value) + 4 for name, value in headers)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("who", [MANY, HUGE], ids=["many", "huge"])
def test_all_headers_together_stay_under_8_kb_and_the_rest_is_counted(dialect: str, who: Attribution) -> None:
    told = route(dialect)
    assert size(told, who) <= 8192
    bodies = [told.body(who, api, {"store": True}) for api in told.body_apis]
    sent = json.dumps([told.headers(who), bodies]).replace("-", "_")
    missing = {key for key, value in who if key not in sent and value.replace("-", "_") not in sent}
    by_design = {"anthropic": {"tenant_id", "user_id", "tier"}, "vercel": {"tier"}}.get(dialect, set())
    assert missing - by_design <= set(told.left_out)
    assert "tenant_id" not in told.left_out


def test_what_has_no_room_goes_by_order_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    told = route("cloudflare")
    with caplog.at_level(logging.WARNING, "attribkit"):
        for tenant in ("acme", "globex"):
            told.headers(MANY.merged({"tenant_id": tenant}))
        told.headers(MANY)
    kept = json.loads(dict(told.headers(MANY))["cf-aig-metadata"])
    assert list(kept) == ["tenant_id", "workflow", "workflow_id", "feature", "environment"]
    assert set(told.left_out) == {key for key, _ in MANY} - set(kept)
    assert set(told.left_out.values()) == {3}
    assert len(caplog.records) == 1
    assert "dim_39" in caplog.text and "http://gateway.internal" in caplog.text


def test_named_fields_go_first_and_alone() -> None:
    told = route("cloudflare", fields=["plan", "tenant_id"])
    who = MANY.merged({"plan": "gold", "tier": "flex"})
    assert json.loads(dict(told.headers(who))["cf-aig-metadata"]) == {
        "plan": "gold",
        "tenant_id": "v-tenant_id",
        "tier": "flex",
    }
    assert not told.left_out


@pytest.mark.parametrize(("dialect", "header"), [("portkey", "x-portkey-metadata"), ("truefoundry", "x-tfy-metadata")])
def test_128_characters(dialect: str, header: str) -> None:
    values = {"ascii": "x" * 500, "fits": "y" * 128, "emoji": "🦊" * 100, "fits_emoji": "🦊" * 64}
    sent = json.loads(dict(route(dialect).headers(Attribution.of(values)))[header])
    assert sent["fits"] == values["fits"] and sent["fits_emoji"] == values["fits_emoji"]
    assert sent["ascii"] == shortened(values["ascii"], 128)
    assert re.fullmatch("🦊+~[0-9a-f]{8}", sent["emoji"])
    for value in sent.values():
        assert len(value.encode("utf-16-le")) <= 256  # as JavaScript counts


def test_values_that_were_cut_or_cleaned_stay_apart() -> None:
    told = route("portkey")
    long = [dict(told.headers(Attribution.of({"tenant_id": "x" * 200 + end}))) for end in "ab"]
    assert long[0] != long[1]
    broken = [
        json.loads(dict(told.headers(Attribution.of({"tenant_id": f"a{c}b"})))["x-portkey-metadata"])["tenant_id"]
        for c in ("\n", "\x00", "\x7f", "\ud800", "\x85")
    ]
    assert len(set(broken)) == 5
    assert all(re.fullmatch("a_b~[0-9a-f]{8}", value) for value in broken)


def test_portkeys_own_user_is_left_as_the_app_set_it() -> None:
    said = dict(route("portkey").headers(Attribution.of({"user_id": "u", "_user": "other"})))
    assert json.loads(said["x-portkey-metadata"]) == {"user_id": "u", "_user": "other"}


def test_litellm_tags_survive_the_split_at_commas() -> None:
    values = {"tenant_id": "a,b", "feature": " lead, 50% off ", "plan": "größe", "note": '["x","y"]'}
    tags = dict(route("litellm").headers(Attribution.of(values)))["x-litellm-tags"]
    read = dict(tag.strip().split(":", 1) for tag in tags.split(","))
    assert {key: unquote(value) for key, value in read.items()} == values


def test_litellm_gets_a_session_or_a_trace_never_both() -> None:
    told = route("litellm")
    names = [name for name, _ in told.headers(Attribution.of({"session_id": "s"})) + told.call_headers(IDS)]
    assert "x-litellm-session-id" in names and "x-litellm-trace-id" not in names


def test_helicone_sessions_fall_back_to_the_run_of_the_workflow() -> None:
    said = dict(route("helicone").headers(Attribution.of({"workflow": "a/b c", "workflow_id": "wf-9"})))
    assert said["helicone-session-id"] == "wf-9"
    assert said["helicone-session-path"] == "/a%2Fb c"
    assert said["helicone-property-workflow-id"] == "wf-9"


def test_helicone_names_that_become_one_are_reported() -> None:
    told = route("helicone")
    said = dict(told.headers(Attribution.of({"a_b": "1", "a-b": "2"})))
    assert said == {"helicone-property-a-b": "2"}
    assert told.left_out == {"a_b": 1}


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("plain value: a_b@c$d#e=f/g+h,i-j.k", "plain value: a_b@c$d#e=3Df/g+h,i-j.k"),
        ("Zürich 東京!", "Z=C3=BCrich =E6=9D=B1=E4=BA=AC=21"),
        ('a"b~c', "a=22b=7Ec"),
    ],
)
def test_bedrock_characters(value: str, sent: str) -> None:
    told = route("bedrock").body(Attribution.of({"tenant_id": value}), "converse", {})
    assert told == {"requestMetadata": {"tenant_id": sent}}


def test_bedrock_takes_sixteen_entries_with_the_users_first() -> None:
    told = route("bedrock")
    metadata = told.body(MANY, "converse", {"requestMetadata": {"own": "1", "tenant_id": "theirs"}})["requestMetadata"]
    assert len(metadata) == 16
    assert list(metadata)[:3] == ["own", "tenant_id", "workflow"]
    assert metadata["tenant_id"] == "theirs"
    header = dict(told.headers(HUGE))["x-amzn-bedrock-request-metadata"]
    assert len(json.loads(header)) == 16 and len(header) <= 8500
    for key, value in json.loads(header).items():
        assert 1 <= len(key) <= 256 and len(value) <= 256
        assert re.fullmatch(r"[a-zA-Z0-9\s:_@$#=/+,\-.]*", value)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("acme-1_x", "acme-1_x"),
        ("Acme", "acme-~"),
        ("zürich", "zurich-~"),
        ("東京", "-~"),
        ("a.b", "a_b-~"),
        ("", None),
    ],
)
def test_vertex_labels(value: str, label: str | None) -> None:
    labels = route("vertex").body(Attribution.of({"plan": value}), "generateContent", {}).get("labels", {})
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    assert labels.get("plan") == (label.replace("~", digest) if label is not None else None)


def test_long_vertex_labels_stay_apart() -> None:
    sent = {
        route("vertex").body(Attribution.of({"plan": "X" * 100 + end}), "generateContent", {})["labels"]["plan"]
        for end in "ab"
    }
    assert len(sent) == 2
    assert all(re.fullmatch("[a-z0-9_-]{1,63}", label) for label in sent)


def test_vertex_leaves_out_what_would_use_up_a_key() -> None:
    who = Attribution.of(
        {"tenant_id": "acme", "workflow_id": "wf-1", "user_id": "u", "session_id": "s", "Plan": "gold"}
    )
    told = route("vertex")
    told.headers(who)
    assert told.body(who, "generateContent", {"labels": {"own": "x"}})["labels"] == {
        "own": "x",
        "tenant_id": "acme",
        "plan": "gold",
    }
    assert set(told.left_out) == {"workflow_id", "user_id", "session_id"}
    named = route("vertex", fields=["workflow_id"])
    assert named.body(who, "generateContent", {})["labels"] == {"workflow_id": "wf-1"}


def test_vertex_buckets() -> None:
    told = route("vertex", buckets={"tenant_id": 10})
    labels = {
        told.body(Attribution.of({"tenant_id": f"t{n}"}), "generateContent", {})["labels"]["tenant_id"]
        for n in range(200)
    }
    assert labels == {f"bucket-{n}" for n in range(10)}


def test_openai_sixteen_pairs_with_the_users_first() -> None:
    told = route("openai")
    own = {f"own_{n}": "x" for n in range(12)} | {"tenant_id": "theirs", "workflow": None}
    metadata = told.body(MANY, "responses", {"metadata": own})["metadata"]
    assert list(metadata.items())[:14] == list(own.items())
    assert list(metadata)[14:] == ["workflow_id", "feature"]
    assert "environment" in told.left_out and "feature" not in told.left_out
    full = {f"own_{n}": "x" for n in range(16)}
    assert told.body(Attribution.of({"tenant_id": "a"}), "responses", {"metadata": full}) == {}
    long = told.body(Attribution.of({"note": "x" * 1000}), "runs", {})["metadata"]
    assert long["note"] == shortened("x" * 1000, 512)


@pytest.mark.parametrize(
    ("api", "body", "kept"),
    [
        ("chat", {}, False),
        ("chat", {"store": None}, False),
        ("chat", {"store": False}, False),
        ("chat", {"store": True}, True),
        ("responses", {}, True),
        ("responses", {"store": None}, True),
        ("responses", {"store": False}, False),
        ("runs", {"assistant_id": "a"}, True),
        ("runs", {"tool_outputs": []}, False),
        ("batches", {"input_file_id": "f"}, True),
        ("embeddings", {}, False),
    ],
)
def test_openai_takes_metadata_only_on_what_it_keeps(api: str, body: dict[str, Any], kept: bool) -> None:
    said = route("openai").body(Attribution.of({"tenant_id": "acme"}), api, body)
    assert said == ({"metadata": {"tenant_id": "acme"}} if kept else {})


@pytest.mark.parametrize("own", [{"safety_identifier": "mine"}, {"user": "mine"}])
def test_the_users_own_identity_stays(own: dict[str, str]) -> None:
    assert route("openai").body(Attribution.of({"user_id": "u"}), "chat", own) == {}


def test_no_personal_data_reaches_a_provider_as_an_id() -> None:
    who = Attribution.of({"tenant_id": "acme", "user_id": "zoe@acme.example"})
    openai = route("openai").body(who, "chat", {})["safety_identifier"]
    anthropic = route("anthropic").body(who, "messages", {"metadata": {}})["metadata"]["user_id"]
    other = route("openai").body(who.merged({"tenant_id": "globex"}), "chat", {})["safety_identifier"]
    assert re.fullmatch("[0-9a-f]{64}", openai) and re.fullmatch("[0-9a-f]{64}", anthropic)
    assert openai != other
    assert route("anthropic").body(who, "messages", {"metadata": {"user_id": "mine"}}) == {}


def test_what_the_user_set_in_a_shape_we_do_not_know_stays() -> None:
    who = Attribution.of({"tenant_id": "acme"})
    assert route("openai").body(who, "runs", {"metadata": "text"}) == {}
    assert route("vertex").body(who, "generateContent", {"labels": ["x"]}) == {}
    assert route("vercel").body(who, "chat", {"providerOptions": {"gateway": "x"}}) == {}
    assert route("vercel").body(who, "chat", {"providerOptions": {"gateway": {"tags": "x"}}}) == {}
    assert route("anthropic").body(who, "messages", {"metadata": []}) == {}
    assert route("openrouter").body(who, "chat", {"metadata": 1}) == {}


def test_vercel_keeps_what_the_user_set_beside_ours() -> None:
    options = {"openai": {"x": 1}, "gateway": {"order": ["azure"], "tags": ["mine", "tenant_id:acme"], "user": "me"}}
    said = route("vercel").body(
        Attribution.of({"tenant_id": "acme", "feature": "search", "user_id": "u"}), "chat", {"providerOptions": options}
    )
    assert said == {
        "providerOptions": {
            "openai": {"x": 1},
            "gateway": {"order": ["azure"], "tags": ["mine", "tenant_id:acme", "feature:search"], "user": "me"},
        }
    }
    assert route("vercel").body(Attribution.of({"user_id": "u"}), "chat", {"user": "me"}) == {}


def test_openrouter_keeps_what_the_user_set_beside_ours() -> None:
    said = route("openrouter").body(
        Attribution.of({"tenant_id": "acme", "workflow": "w", "user_id": "u"}),
        "chat",
        {"user": "me", "metadata": {"tenant_id": "mine"}, "trace": {"trace_name": "mine", "free": 1}},
    )
    assert said == {"metadata": {"tenant_id": "mine", "workflow": "w"}}


@pytest.mark.parametrize(
    ("dialect", "api", "tier", "body", "said"),
    [
        ("openai", "chat", "ultrafast", {}, {}),
        ("openai", "responses", "ultrafast", {}, {"service_tier": "ultrafast"}),
        ("openai", "chat", "standard", {}, {"service_tier": "default"}),
        ("openai", "chat", "gold", {}, {}),
        ("openai", "chat", "flex", {"service_tier": "auto"}, {}),
        ("openai", "chat", "flex", {"service_tier": None}, {"service_tier": "flex"}),
        ("openai", "embeddings", "flex", {}, {}),
        ("anthropic", "messages", "standard", {}, {"service_tier": "standard_only"}),
        ("anthropic", "messages", "flex", {}, {}),
        ("vertex", "generateContent", "flex", {}, {"service_tier": "flex"}),
        ("vertex", "generateContent", "flex", {"serviceTier": "STANDARD"}, {}),
        ("bedrock", "converse", "reserved", {}, {"serviceTier": {"type": "reserved"}}),
        ("bedrock", "converse", "flex", {"serviceTier": {"type": "default"}}, {}),
        ("tierup", "chat", "reasoning", {"model": "gpt-5"}, {"model": "tier-4"}),
        ("tierup", "chat", "Speed", {"model": "gpt-5"}, {"model": "tier-1"}),
        ("tierup", "chat", "tier-3", {"model": "tier-1"}, {"model": "tier-3"}),
        ("tierup", "chat", "tier-5", {"model": "tier-1"}, {}),
        ("tierup", "embeddings", "tier-3", {"model": "e"}, {}),
        ("portkey", "chat", "gold", {}, {}),
        ("litellm", "chat", "gold", {}, {}),
    ],
)
def test_tiers_in_each_targets_words(dialect: str, api: str, tier: str, body: Any, said: Any) -> None:
    assert route(dialect).tier(tier, api, body) == said


def test_the_apps_own_names_of_tiers() -> None:
    tiers = {"gold": "priority", "deep": "tier-4"}
    gold, deep = Attribution.of({"tier": "gold"}), "deep"
    assert route("openai", tiers=tiers).tier("gold", "chat", {}) == {"service_tier": "priority"}
    assert route("tierup", tiers=tiers).tier(deep, "chat", {}) == {"model": "tier-4"}
    assert dict(route("portkey", tiers=tiers).headers(gold))["x-portkey-metadata"] == '{"tier":"priority"}'
    assert dict(route("litellm", tiers=tiers).headers(gold))["x-litellm-tags"] == "tier:priority"
    assert dict(route("bedrock", tiers=tiers).headers(gold))["x-amzn-bedrock-service-tier"] == "priority"
