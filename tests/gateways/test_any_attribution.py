"""Whatever the app attributes, what leaves is printable ASCII, within the limits, and reads back."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.gateways.base import CallIds
from attribkit.gateways.fitting import sendable
from attribkit.gateways.route import Gateways, Route
from attribkit.gateways.table import DIALECTS

TEXTS = st.one_of(
    st.text(st.characters(), max_size=40),  # lone surrogates and control characters too
    st.text(max_size=8).map(lambda text: text * 200),
    st.sampled_from(["x" * 5000, "🦊" * 700, "\r\nx-evil: 1", "a,b", '"}', "%2C", " lead", "trail ", "=", "~" * 300]),
)
KEYS = st.one_of(st.sampled_from(WELL_KNOWN), st.text(st.characters(), min_size=1, max_size=80), st.just("_user"))
ATTRIBUTIONS = st.dictionaries(KEYS, TEXTS, max_size=70).map(Attribution.of)
RAW = st.dictionaries(KEYS, TEXTS, max_size=12).map(lambda fields: Attribution(tuple(sorted(fields.items()))))
IDS = CallIds("c" * 36, "o" * 36, "a" * 32, "b" * 16, f"00-{'a' * 32}-{'b' * 16}-01")
TEMPLATES = {"dialect": "custom", "headers": {"x-who": "{tenant_id}/{workflow}|{feature}", "x-meta": "{json}"}}
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")


def route(dialect: Any) -> Route:
    found = Gateways({"http://gateway.internal": TEMPLATES if dialect == "custom" else dialect}).match(
        "http://gateway.internal"
    )
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@settings(deadline=None)
@given(st.one_of(ATTRIBUTIONS, RAW))
def test_headers_of_every_dialect(who: Attribution) -> None:
    for dialect in DIALECTS:
        told = route(dialect)
        headers = told.headers(who) + told.call_headers(IDS)
        names = [name for name, _ in headers]
        assert len(set(names)) == len(names)
        for name, value in headers:
            assert NAME.fullmatch(name), name
            assert value.isascii() and value.isprintable() and value == value.strip(" ") and value, (name, value)
            if "metadata" in name or name == "x-meta":
                said = json.loads(value)
                assert all(isinstance(text, str) for text in said.values())
                assert json.dumps(said, separators=(",", ":")) == value
        assert sum(len(name) + len(value) + 4 for name, value in headers) <= 8192


@settings(deadline=None)
@given(ATTRIBUTIONS)
def test_json_reads_back_what_was_said(who: Attribution) -> None:
    fields = {key: sendable(value) for key, value in who}
    for dialect, limit in (("portkey", 128), ("truefoundry", 128), ("cloudflare", 1024), ("tierup", 1024)):
        told = route(dialect)
        said = json.loads(dict(told.headers(who)).popitem()[1]) if who else {}
        assert said.keys() | told.left_out.keys() >= fields.keys()
        assert said.keys() - fields.keys() <= {"_user"}
        assert len(said) <= 5 or dialect != "cloudflare"
        for key, value in said.items():
            assert len(value.encode("utf-16-le")) // 2 <= limit
            whole = fields["user_id" if key == "_user" and "_user" not in fields else key]
            assert value == whole or re.search("~[0-9a-f]{8}$", value)
            if len(whole.encode("utf-16-le")) // 2 <= limit and len(json.dumps(whole)) <= 1024:
                assert value == whole


@settings(deadline=None)
@given(ATTRIBUTIONS)
def test_litellm_tags_read_back(who: Attribution) -> None:
    tags = dict(route("litellm").headers(who)).get("x-litellm-tags", "")
    fields = {key: sendable(value) for key, value in who}
    for tag in tags.split(",") if tags else ():
        key, _, value = tag.strip().partition(":")
        whole = fields[key]
        assert unquote(value) == whole or re.search("~[0-9a-f]{8}$", unquote(value))


USER_KEYS = st.text(max_size=70)
USER_MAPS = st.one_of(
    st.none(),
    st.dictionaries(USER_KEYS, st.one_of(st.text(max_size=20), st.integers(), st.none()), max_size=20),
    st.text(),
    st.lists(st.integers(), max_size=2),
)


@settings(deadline=None)
@given(ATTRIBUTIONS, USER_MAPS, st.booleans())
def test_bodies_keep_what_the_user_set_and_the_limits(who: Attribution, own: Any, user: bool) -> None:
    for dialect, api, field, most, max_key, max_value in (
        ("openai", "responses", "metadata", 16, 64, 512),
        ("openai", "runs", "metadata", 16, 64, 512),
        ("openrouter", "chat", "metadata", 16, 64, 512),
        ("bedrock", "converse", "requestMetadata", 16, 256, 256),
        ("vertex", "generateContent", "labels", 64, 63, 63),
        ("anthropic", "messages", "metadata", 1 << 20, 64, 64),
    ):
        body: dict[str, Any] = {field: own, "model": "m"}
        if user:
            body |= {"user": "me", "safety_identifier": "me"}
        before = json.dumps(body, default=str)
        said = route(dialect).body(who, api, body)
        assert json.dumps(body, default=str) == before
        json.dumps(said, ensure_ascii=False).encode()
        assert not (user and said.keys() & {"user", "safety_identifier"})
        if field not in said:
            continue
        theirs = own or {}
        merged = said[field]
        assert dict(list(merged.items())[: len(theirs)]) == theirs
        ours = {key: value for key, value in merged.items() if key not in theirs}
        assert ours and (len(merged) <= most)
        for key, value in ours.items():
            assert 1 <= len(key) <= max_key and len(value) <= max_value


@settings(deadline=None)
@given(ATTRIBUTIONS)
def test_characters_of_bedrock_and_vertex(who: Attribution) -> None:
    for key, value in route("bedrock").body(who, "converse", {}).get("requestMetadata", {}).items():
        assert re.fullmatch(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{1,256}", key)
        assert re.fullmatch(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}", value)
    for key, value in route("vertex").body(who, "generateContent", {}).get("labels", {}).items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key)
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value)
