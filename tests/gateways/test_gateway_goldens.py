"""One golden for each dialect: the same attribution, ids and bodies, and what each target is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.gateways.base import CallIds
from attribkit.gateways.route import Gateways, Route
from attribkit.gateways.table import DIALECTS

WHO = Attribution.of(
    {
        "tenant_id": "acme",
        "workflow": "onboarding",
        "workflow_id": "wf-1",
        "feature": "doc, summary",
        "user_id": "zoë@acme.example",
        "session_id": "s-77",
        "agent": "planner",
        "tier": "priority",
        "plan": "gold",
    }
)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
IDS = CallIds("call-1", "operation-1", TRACE, "b7ad6b7169203331", PARENT)
BARE_IDS = CallIds("call-1", "operation-1")
USER_HASH = "d5c169a019d550da223fe855fd1ec8f0f49b969397980ad7ef35378b3891dbc3"

METADATA = {
    "tenant_id": "acme",
    "workflow": "onboarding",
    "workflow_id": "wf-1",
    "feature": "doc, summary",
    "user_id": "zoë@acme.example",
    "session_id": "s-77",
    "agent": "planner",
    "tier": "priority",
    "plan": "gold",
}
PORTKEY = {
    "tenant_id": "acme",
    "workflow": "onboarding",
    "workflow_id": "wf-1",
    "feature": "doc, summary",
    "_user": "zoë@acme.example",
    "user_id": "zoë@acme.example",
    "session_id": "s-77",
    "agent": "planner",
    "tier": "priority",
    "plan": "gold",
}


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def route(dialect: Any) -> Route:
    found = Gateways({"http://gateway.internal": dialect}).match("http://gateway.internal/v1")
    assert found is not None
    return found


HEADERS: dict[str, dict[str, str]] = {
    "portkey": {"x-portkey-metadata": compact(PORTKEY)},
    "litellm": {
        "x-litellm-tags": "tenant_id:acme,workflow:onboarding,workflow_id:wf-1,feature:doc%2C summary,"
        "user_id:zo%C3%AB@acme.example,session_id:s-77,agent:planner,tier:priority,plan:gold",
        "x-litellm-spend-logs-metadata": compact(METADATA),
        "x-litellm-customer-id": "zo%C3%AB@acme.example",
        "x-litellm-session-id": "s-77",
    },
    "tierup": {"x-attribkit-metadata": compact(METADATA)},
    "helicone": {
        "helicone-property-tenant-id": "acme",
        "helicone-property-workflow": "onboarding",
        "helicone-property-workflow-id": "wf-1",
        "helicone-property-feature": "doc, summary",
        "helicone-user-id": "zo%C3%AB@acme.example",
        "helicone-session-id": "s-77",
        "helicone-session-name": "onboarding",
        "helicone-session-path": "/onboarding/planner",
        "helicone-property-agent": "planner",
        "helicone-property-tier": "priority",
        "helicone-property-plan": "gold",
    },
    "cloudflare": {
        "cf-aig-metadata": compact(
            {key: METADATA[key] for key in ("tenant_id", "workflow", "workflow_id", "feature", "user_id")}
        )
    },
    "openrouter": {"x-session-id": "s-77"},
    "vercel": {},
    "truefoundry": {"x-tfy-metadata": compact(METADATA)},
    "bedrock": {
        "x-amzn-bedrock-request-metadata": compact({**METADATA, "user_id": "zo=C3=AB@acme.example"}),
        "x-amzn-bedrock-service-tier": "priority",
    },
    "vertex": {},
    "openai": {},
    "anthropic": {},
    "custom": {"x-cost-tags": "acme/onboarding", "x-meta": compact(METADATA)},
}
CALL_HEADERS: dict[str, dict[str, str]] = {
    "portkey": {
        "x-portkey-trace-id": TRACE,
        "x-portkey-span-id": "call-1",
        "traceparent": PARENT,
    },
    "litellm": {"x-litellm-call-id": "call-1", "traceparent": PARENT},
    "tierup": {"x-attribkit-call-id": "call-1", "traceparent": PARENT},
    "helicone": {"helicone-request-id": "call-1"},
    "truefoundry": {"traceparent": PARENT},
    "custom": {"x-call": "operation-1/call-1", "traceparent": PARENT},
}
BARE_CALL_HEADERS: dict[str, dict[str, str]] = {
    "portkey": {"x-portkey-trace-id": "operation-1", "x-portkey-span-id": "call-1"},
    "litellm": {"x-litellm-call-id": "call-1"},
    "tierup": {"x-attribkit-call-id": "call-1"},
    "helicone": {"helicone-request-id": "call-1"},
    "custom": {"x-call": "operation-1/call-1"},
}
_OPENROUTER = {
    "metadata": {key: value for key, value in METADATA.items() if key not in ("user_id", "session_id")},
    "trace": {"trace_id": "wf-1", "trace_name": "onboarding", "span_name": "planner"},
    "user": "zoë@acme.example",
}
_VERCEL = {
    "providerOptions": {
        "gateway": {
            "tags": ["tenant_id:acme", "workflow:onboarding", "feature:doc, summary"],
            "user": "zoë@acme.example",
        }
    }
}
BODIES: dict[str, dict[str, dict[str, Any]]] = {
    "openrouter": {"chat": _OPENROUTER, "responses": _OPENROUTER},
    "vercel": {"chat": _VERCEL, "responses": _VERCEL, "messages": _VERCEL},
    "bedrock": {"converse": {"requestMetadata": {**METADATA, "user_id": "zo=C3=AB@acme.example"}}},
    "vertex": {
        "generateContent": {
            "labels": {
                "tenant_id": "acme",
                "workflow": "onboarding",
                "feature": "doc__summary-11919ea3",
                "agent": "planner",
                "tier": "priority",
                "plan": "gold",
            }
        }
    },
    "openai": {
        "chat": {"safety_identifier": USER_HASH},
        "responses": {"metadata": METADATA, "safety_identifier": USER_HASH},
        "runs": {"metadata": METADATA},
        "batches": {"metadata": METADATA},
    },
    "anthropic": {"messages": {"metadata": {"user_id": USER_HASH}}},
}
SERVICE_TIERS = {
    "chat": {"service_tier": "priority"},
    "responses": {"service_tier": "priority"},
    "messages": {"service_tier": "auto"},
    "generateContent": {"service_tier": "priority"},
}
TIERS: dict[str, dict[str, dict[str, Any]]] = {
    "helicone": SERVICE_TIERS,
    "cloudflare": SERVICE_TIERS,
    "openrouter": SERVICE_TIERS,
    "truefoundry": SERVICE_TIERS,
    "vercel": {api: {"service_tier": "priority"} for api in ("chat", "responses", "messages")},
    "bedrock": {"converse": {"serviceTier": {"type": "priority"}}},
    "vertex": {"generateContent": {"service_tier": "priority"}},
    "openai": {api: {"service_tier": "priority"} for api in ("chat", "responses")},
    "anthropic": {"messages": {"service_tier": "auto"}},
}
APIS = (
    *("chat", "completions", "responses", "embeddings", "images", "speech", "transcriptions", "moderations", "videos"),
    *("batches", "runs", "messages", "converse", "invoke_model", "generateContent"),
)
CUSTOM = {
    "dialect": "custom",
    "headers": {
        "X-Cost-Tags": "{tenant_id}/{workflow}",
        "x-meta": "{json}",
        "x-call": "{operation_id}/{call_id}",
        "traceparent": "{traceparent}",
        "x-region": "{region}",
    },
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_each_target_is_told(dialect: str) -> None:
    told = route(CUSTOM if dialect == "custom" else dialect)
    assert dict(told.headers(WHO)) == HEADERS[dialect]
    assert list(dict(told.headers(WHO))) == list(HEADERS[dialect])
    assert dict(told.call_headers(IDS)) == CALL_HEADERS.get(dialect, {})
    assert dict(told.call_headers(BARE_IDS)) == BARE_CALL_HEADERS.get(dialect, {})
    bodies = {api: dict(told.body(WHO, api, {"model": "m"})) for api in APIS}
    assert {api: body for api, body in bodies.items() if body} == BODIES.get(dialect, {})
    tiers = {api: dict(told.tier("priority", api, {"model": "m"})) for api in APIS}
    assert {api: tier for api, tier in tiers.items() if tier} == TIERS.get(dialect, {})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_to_say_is_nothing_said(dialect: str) -> None:
    told = route(CUSTOM if dialect == "custom" else dialect)
    assert told.headers(Attribution()) == ()
    assert not any(told.body(Attribution(), api, {"store": True}) for api in APIS)
    assert told.left_out == {}


def test_every_dialect_has_a_golden() -> None:
    assert set(HEADERS) == set(DIALECTS)
    assert list(METADATA) == [key for key in WELL_KNOWN if key in METADATA] + ["plan"]


@pytest.mark.parametrize(
    ("dialect", "header", "value"),
    [
        ("portkey", "x-portkey-trace-id", "trace-9"),
        ("litellm", "x-litellm-call-id", "call-9"),
        ("helicone", "helicone-id", "req-9"),
        ("cloudflare", "cf-aig-log-id", "log-9"),
        ("bedrock", "x-amzn-requestid", "aws-9"),
        ("openai", "x-request-id", "req_9"),
        ("anthropic", "request-id", "req_9"),
    ],
)
def test_the_gateways_own_id(dialect: str, header: str, value: str) -> None:
    assert route(dialect).gateway_request_id({header: value}) == value
    assert route(dialect).gateway_request_id({header: ""}) is None
    assert route(dialect).gateway_request_id({}) is None
    assert route(dialect).reads_reply is (dialect != "portkey") and not route("vertex").reads_reply


@pytest.mark.parametrize(
    ("text", "usd"),
    [
        *(("0.0003675", "0.0003675"), ("3.7e-05", "0.000037"), ("0", "0")),
        *((text, None) for text in ("None", "", "-1", "nan", "inf", "free")),
    ],
)
def test_a_stated_cost_is_a_number_or_nothing(text: str, usd: str | None) -> None:
    assert route("litellm").stated_cost({"x-litellm-response-cost": text}) == usd
    assert route("portkey").stated_cost({"x-litellm-response-cost": text}) is None
