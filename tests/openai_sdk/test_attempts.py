"""Retries are attempts of one operation: a row each, one span; failures behave and cost as they did."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai_sdk.shapes import MODEL, user

import attribkit


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def ask(client: Any, text: str, **more: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=user(text), **more)


def test_two_429_then_an_answer(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        ask(seen.client(max_retries=3), "[[loopback status=429; count=2]] hi")
    requests, records = seen.requests(), seen.records
    assert [r.status for r in requests] == [429, 429, 200]
    assert [(r.attempt, r.status, r.http_status) for r in records] == [
        (0, "error", 429),
        (1, "error", 429),
        (2, "ok", None),
    ]
    assert len({r.operation_id for r in records}) == 1
    assert len({r.call_id for r in records}) == 3
    assert [r.cost.status for r in records] == ["free", "free", "priced"]
    assert records[0].cost.usd == Decimal(0) and "429" in records[0].cost.reason
    assert all(request.attribution["tenant_id"] == "acme" for request in requests)
    (span,) = seen.call_spans()
    assert span.attributes["attribkit.tenant_id"] == "acme"


def test_async_retries(seen: Any) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url, max_retries=2) as client:
            with attribkit.attributed(tenant_id="acme"):
                await ask(client, "[[loopback status=500; count=1]] hi")

    asyncio.run(main())
    assert [(r.attempt, r.status, r.http_status) for r in seen.records] == [(0, "error", 500), (1, "ok", None)]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, openai.BadRequestError), (401, openai.AuthenticationError), (503, openai.APIStatusError)],
)
def test_a_refused_call_raises_as_before_and_is_free(status: int, error: type[Exception], seen: Any) -> None:
    client = seen.client(max_retries=0)
    with pytest.raises(error):
        ask(client, f"[[loopback status={status}; count=1]] hi")
    (record,) = seen.records
    assert (record.status, record.http_status, record.cost.status) == ("error", status, "free")
    (span,) = seen.call_spans()
    assert span.status.status_code.name == "ERROR"


def test_a_time_out_may_have_been_billed(seen: Any) -> None:
    client = seen.client(max_retries=1, timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        ask(client, "[[loopback hang=20]] hi")
    assert [(r.attempt, r.status, r.cost.status) for r in seen.records] == [
        (0, "error", "unpriced"),
        (1, "error", "unpriced"),
    ]
    assert seen.records[0].error == "ReadTimeout"


def test_a_refused_connection_is_free(seen: Any) -> None:
    client = seen.client(base_url="http://127.0.0.1:9/v1", max_retries=1)
    with pytest.raises(openai.APIConnectionError):
        ask(client, "hi")
    assert [(r.status, r.cost.status) for r in seen.records] == [("error", "free"), ("error", "free")]


def test_a_cancelled_call(seen: Any) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ask(client, "[[loopback hang=20]] hi"), 0.3)

    asyncio.run(main())
    (record,) = seen.records
    assert (record.status, record.cost.status) == ("cancelled", "unpriced")


def test_requests_that_are_no_model_calls_get_headers_and_no_row(seen: Any) -> None:
    client = seen.client()
    with attribkit.attributed(tenant_id="acme"):
        client.models.list()
        client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert [request.attribution.get("tenant_id") for request in seen.requests()] == ["acme", "acme"]
    assert seen.records == [] and seen.call_spans() == []


def test_a_client_built_before_instrument_and_the_module_client(observe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    import openai as module

    seen = None
    early = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1", default_headers={"x-service": "billing"})
    seen = observe()
    seen.opened += [early]
    with attribkit.attributed(tenant_id="acme"):
        ask(early.with_options(base_url=seen.base_url), "hi")
        monkeypatch.setattr(module, "base_url", seen.base_url + "/")
        monkeypatch.setattr(module, "api_key", "k")
        monkeypatch.setattr(module, "_client", None, raising=False)
        module.chat.completions.create(model=MODEL, messages=user("hi"))
    seen.opened += [module._client]
    requests = seen.requests()
    assert [request.attribution["tenant_id"] for request in requests] == ["acme", "acme"]
    assert requests[0].header("x-service") == "billing"


def test_azure(seen: Any) -> None:
    client = openai.AzureOpenAI(
        api_key="k", api_version="2025-01-01-preview", azure_endpoint=seen.gateway.url, max_retries=0
    )
    seen.opened.append(client)
    with attribkit.attributed(tenant_id="acme"):
        ask(client, "hi")
        list(ask(client, "hi", stream=True))
    assert all("/openai/deployments/" in request.path for request in seen.requests())
    assert [request.attribution["tenant_id"] for request in seen.requests()] == ["acme", "acme"]
    assert [record.provider for record in seen.records] == ["azure", "azure"]


def test_a_users_header_is_not_overwritten(seen: Any) -> None:
    client = seen.client()
    with attribkit.attributed(tenant_id="acme"):
        ask(client, "hi", extra_headers={"X-Portkey-Metadata": '{"mine":"1"}'})
    (request,) = seen.requests()
    assert request.header_values("x-portkey-metadata") == ['{"mine":"1"}']


class _OwnHeaders(openai.OpenAI):
    @property
    def default_headers(self) -> dict[str, Any]:
        return {**super().default_headers, "X-Portkey-Span-Id": "mine"}


def test_headers_of_the_user_stay_beside_calls_without_any(seen: Any) -> None:
    """Requests that look alike are looked at once; one with headers of the user's does not look like the others."""
    mine = {"X-Portkey-Metadata": '{"mine":"1"}'}
    plain, with_own = seen.client(), seen.client(default_headers={"x-portkey-trace-id": "mine"})
    subclass = _OwnHeaders(api_key="k", base_url=seen.base_url)
    seen.opened.append(subclass)
    for tenant in ("acme", "globex", "acme"):
        with attribkit.attributed(tenant_id=tenant):
            for _ in range(2):
                for client in (plain, with_own, subclass, plain.with_options(default_headers={"x-other": "1"})):
                    ask(client, "hi")
                    client.chat.completions.with_raw_response.create(model=MODEL, messages=user("hi"))
                ask(plain, "hi", extra_headers=mine)
    requests = seen.requests()
    names = ("x-portkey-metadata", "x-portkey-trace-id", "x-portkey-span-id")
    said = [[request.header_values(name) for name in names] for request in requests]
    assert all(len(values) == 1 for each in said for values in each)
    per_round = [("", "", "")] * 2 + [("", "mine", "")] * 2 + [("", "", "mine")] * 2 + [("", "", "")] * 2
    expected = [*per_round, (mine["X-Portkey-Metadata"], "", "")] * 6
    assert len(said) == len(expected)
    for each, wanted in zip(said, expected, strict=True):
        assert [value for (value,), own in zip(each, wanted, strict=True) if own] == [own for own in wanted if own]
        assert "mine" not in "".join(value for (value,), own in zip(each, wanted, strict=True) if not own)
    assert [record.attribution.tenant_id for record in seen.records] == ["acme"] * 18 + ["globex"] * 18 + ["acme"] * 18


def test_a_redirect_to_another_host_carries_nothing_of_ours(seen: Any, gateway: Any) -> None:
    from attribkit.testing import Gateway

    with Gateway() as other:
        client = seen.client(max_retries=0)
        with attribkit.attributed(tenant_id="acme"):
            seen.gateway.behave(contains="elsewhere", count=1, redirect=f"{other.url}{{path}}")
            ask(client, "elsewhere", extra_headers={"x-mine": "1"})
        (there,) = other.requests()
        assert there.header("x-mine") == "1"
        text = repr(there.headers)
        assert "acme" not in text and "portkey" not in text and there.header("traceparent") is None
        assert "acme" in seen.requests()[0].header("x-portkey-metadata")


def test_required_fields(observe: Any) -> None:
    seen = observe(require=("tenant_id", "workflow_id"), on_missing="reject")
    client = seen.client()
    with attribkit.attributed(tenant_id="acme"), pytest.raises(attribkit.AttributionRequired, match="workflow_id"):
        ask(client, "hi")
    assert seen.requests() == []
    (record,) = seen.records
    assert (record.status, record.cost.status, record.error) == ("rejected", "free", "AttributionRequired")
    assert seen.call_spans()[0].attributes["attribkit.tenant_id"] == "acme"


def test_a_budget_without_room_keeps_the_call_from_the_wire(observe: Any) -> None:
    budget = attribkit.Budget("acme-day", limit="1.00", window="day", match={"tenant_id": "acme"})
    seen = observe(budgets=[budget], budget_store=None)
    client = seen.client()
    with attribkit.attributed(tenant_id="acme"):
        ask(client, "hi")
        with pytest.raises(attribkit.BudgetExceeded) as refusal:
            ask(client, "hi", max_tokens=10**7)
        ask(client, "hi")
    with attribkit.attributed(tenant_id="globex"):
        ask(client, "hi", max_tokens=10**7)
    assert refusal.value.budget == "acme-day" and refusal.value.spent == seen.records[0].usd
    assert refusal.value.operation_id == seen.records[1].operation_id
    assert refusal.value.to_dict()["error"]["type"] == "budget_exceeded"
    assert len(seen.requests()) == 3
    assert [record.status for record in seen.records] == ["ok", "rejected", "ok", "ok"]
    assert seen.records[1].usd == 0


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_gateway_states_in_its_reply_is_kept_beside_ours(stream: bool, observe: Any, gateway: Any) -> None:
    seen = observe(gateways={gateway.url: "litellm"})
    reply = ask(seen.client(), "hi", stream=stream)
    if stream:
        list(reply)
    (record,), (request,) = seen.records, seen.requests()
    assert record.gateway_request_id == record.call_id == request.header("x-litellm-call-id")
    assert record.cost.usd is not None
    if not stream:
        assert record.cost.stated_usd == request.cost_usd == record.cost.usd


def test_a_stream_that_is_left_keeps_the_gateways_own_id_too(observe: Any, gateway: Any) -> None:
    seen = observe(gateways={gateway.url: "litellm"})
    with ask(seen.client(), "hi", stream=True) as stream:
        next(stream)
    (record,) = seen.records
    assert record.status == "abandoned"
    assert record.gateway_request_id == record.call_id


def _older(original: Any) -> Any:
    """A `request` with the parameters that it had before 1.60."""

    def request(
        self: Any, cast_to: Any, options: Any, remaining_retries: Any = None, *, stream: Any = False, **more: Any
    ) -> Any:
        return original(self, cast_to, options, stream=stream, **more)

    return request


def _any(original: Any) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    return method


@pytest.mark.parametrize("other", [_older, _any])
@pytest.mark.parametrize("call", ["whole", "stream", "async"])
def test_methods_with_other_parameters_are_wrapped_too(
    observe: Any, monkeypatch: pytest.MonkeyPatch, other: Any, call: str
) -> None:
    from openai import _base_client as base

    for cls in (base.SyncAPIClient, base.AsyncAPIClient):
        monkeypatch.setattr(cls, "request", other(cls.request))
    monkeypatch.setattr(base.BaseClient, "_build_request", _any(base.BaseClient._build_request))
    seen = observe()

    async def asked() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:
            await ask(client, "hi")

    with attribkit.attributed(tenant_id="acme"):
        if call == "async":
            asyncio.run(asked())
        elif call == "stream":
            list(ask(seen.client(), "hi", stream=True))
        else:
            ask(seen.client(), "hi")
    (record,), (request,) = seen.records, seen.requests()
    assert record.status == "ok" and record.cost.usd and record.attribution.tenant_id == "acme"
    assert request.attribution["tenant_id"] == "acme"
    attribkit.uninstrument()
