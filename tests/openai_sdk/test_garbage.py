"""Whatever a provider answers, the app's call behaves as without us, and the row says what is known."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai_sdk.shapes import MODEL, user

import attribkit

USAGES = {
    "null": None,
    "empty": {},
    "a string": "many",
    "a list": [1, 2],
    "a number": 7,
    "strings in it": {"prompt_tokens": "12", "completion_tokens": "3"},
    "negative": {"prompt_tokens": -5, "completion_tokens": 3},
    "parts over the whole": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}},
    "2**70": {"prompt_tokens": 2**70, "completion_tokens": 3},
    "nulls in it": {"prompt_tokens": None, "completion_tokens": None, "prompt_tokens_details": None},
    "floats": {"prompt_tokens": 1.5, "completion_tokens": 2.5},
    "details of another kind": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": "none"},
    "nested deep": {"prompt_tokens": {"a": {"b": [{}]}}, "completion_tokens": []},
}


def outcome(client: Any, **more: Any) -> Any:
    """Return what the app gets: the reply as JSON, or the type of the exception."""
    try:
        reply = client.chat.completions.create(model=MODEL, messages=user("garbage, please"), **more)
        if more.get("stream"):
            return [chunk.choices[0].delta.content for chunk in reply if chunk.choices]
        return reply if isinstance(reply, str) else reply.choices[0].message.content
    except Exception as error:
        return type(error).__name__


def compare(observe: Any, gateway: Any, behaviour: dict[str, Any], **more: Any) -> Any:
    """Return the record of a call that behaves the same with attribkit and without."""
    with openai.OpenAI(api_key="k", base_url=gateway.base_url, max_retries=0) as client:
        try:
            gateway.behave(contains="garbage, please", **behaviour)
            without = outcome(client, **more)
            seen = observe()
            with attribkit.attributed(tenant_id="acme"):
                assert outcome(client, **more) == without
        finally:
            gateway.reset()
    (record,) = seen.records
    assert record.attribution.tenant_id == "acme"
    return record


@pytest.mark.parametrize("name", USAGES)
@pytest.mark.parametrize("stream", [False, True])
def test_garbage_usage(name: str, stream: bool, observe: Any, gateway: Any) -> None:
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    record = compare(observe, gateway, {"usage": USAGES[name]}, **more)
    if record.cost.usd is None:
        assert record.cost.status == "unpriced" and record.cost.reason
    else:
        assert record.cost.usd >= 0
    assert all(quantity >= 0 for _, quantity in record.usage.meters)
    assert record.cost.status != "free"


@pytest.mark.parametrize("status", [200, 502])
def test_html_in_the_place_of_json(status: int, observe: Any, gateway: Any) -> None:
    record = compare(observe, gateway, {"html": status})
    assert record.cost.status == ("unpriced" if status == 200 else "free")
    assert record.cost.reason


def test_a_body_that_is_cut(observe: Any, gateway: Any) -> None:
    record = compare(observe, gateway, {"drop": 0})
    assert record.status == "error"


HEADER_VALUES = {
    "newlines": "acme\r\nx-evil: 1",
    "control characters": "a\x00b\x07c\x7f",
    "emoji": "acme \N{PARTY POPPER} Zürich 東京",
    "10 KB": "x" * 10_000,
    "lone surrogate": "a\udc80b",
    "quotes and braces": '{"a": "b"}, \\',
}


@pytest.mark.parametrize("dialect", ["portkey", "litellm", "helicone", "cloudflare", "openrouter", "tierup", "vertex"])
@pytest.mark.parametrize("name", HEADER_VALUES)
def test_any_value_is_sent_safely(name: str, dialect: str, observe: Any, gateway: Any) -> None:
    seen = observe(gateways={gateway.url: dialect})
    client = seen.client(max_retries=0)
    fields = {"tenant_id": HEADER_VALUES[name], "workflow": "w", "free_dimension": HEADER_VALUES[name]}
    with attribkit.attributed(**fields):
        client.chat.completions.create(model=MODEL, messages=user("hi"))
        list(client.chat.completions.create(model=MODEL, messages=user("hi"), stream=True))
    requests = seen.requests()
    assert len(requests) == 2
    for request in requests:
        assert request.header("x-evil") is None
        assert all(value.isascii() and value.isprintable() for _, value in request.headers)
        assert sum(len(name) + len(value) for name, value in request.headers) < 8192 + 2048
    assert [record.status for record in seen.records] == ["ok", "ok"]
    assert len(seen.call_spans()) == 2
