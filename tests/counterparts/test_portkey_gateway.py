"""Through the real Portkey gateway: what our headers make it do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

import attribkit
from attribkit.attribution import Attribution
from attribkit.gateways.base import CallIds
from attribkit.gateways.route import Gateways
from attribkit.testing import Gateway

pytestmark = pytest.mark.counterpart

Leading = Callable[[str], tuple[str, dict[str, str]]]
ROOT = Path(__file__).parent.parent.parent
ROUTING = json.loads((ROOT / "integrations/portkey/routing.json").read_text())
TIER_OF = {"acme": "priority", "globex": "flex", "initech": "reasoning", "hooli": None}
SENT = {  # what the routing makes of a tier upstream: the service tier and the model
    "priority": ("priority", "gpt-5-mini"),
    "flex": ("flex", "gpt-5-mini"),
    "reasoning": (None, "gpt-5"),
    None: (None, "gpt-5-mini"),
}


def routed(upstream: Gateway) -> dict[str, str]:
    """Return the header that gives the gateway the routing of integrations/portkey, to `upstream`."""
    targets = [{**target, "custom_host": upstream.base_url, "api_key": "sk-test"} for target in ROUTING["targets"]]
    return {"x-portkey-config": json.dumps({**ROUTING, "targets": targets})}


def newest(gateway: Gateway, since: int) -> list[Any]:
    return [request for request in gateway.requests(since=since) if request.method == "POST"]


def mark(gateway: Gateway) -> int:
    requests = gateway.requests()
    return requests[-1].seq if requests else 0


def metadata_of(request: Any) -> dict[str, str]:
    return json.loads(request.header("x-portkey-metadata") or "{}")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_our_metadata_picks_the_tier_of_each_tenant(portkey_gateway: Leading, gateway: Gateway, stream: bool) -> None:
    url, _ = portkey_gateway(gateway.base_url)
    route = Gateways({url: "portkey"}).match(f"{url}/v1")
    assert route is not None
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", default_headers=routed(gateway), max_retries=0)
    for tenant, tier in TIER_OF.items():
        since = mark(gateway)
        who = Attribution.of({"tenant_id": tenant, "workflow": "Zürich 東京", "tier": tier})
        ids = CallIds(f"call-{tenant}", "operation", "a" * 32, "b" * 16, f"00-{'a' * 32}-{'b' * 16}-01")
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-5-mini",
            messages=[{"role": "user", "content": "hello"}],
            stream=stream,
            extra_headers=dict(route.headers(who) + route.call_headers(ids)),
        )
        answer = raw.parse()
        if stream:
            assert list(answer)
        assert route.gateway_request_id(raw.headers) == "a" * 32
        (request,) = newest(gateway, since)
        service_tier, model = SENT[tier]
        assert (request.json.get("service_tier"), request.json["model"]) == (service_tier, model)
        assert metadata_of(request) == {
            key: value for key, value in (("tenant_id", tenant), ("workflow", "Zürich 東京"), ("tier", tier)) if value
        }
        assert request.header("traceparent") == f"00-{'a' * 32}-{'b' * 16}-01"
    client.close()


def test_a_condition_on_text_outside_ascii_holds(portkey_gateway: Leading, gateway: Gateway) -> None:
    """Raw UTF-8 in the header would be decoded wrongly there; escapes are not."""
    url, _ = portkey_gateway(gateway.base_url)
    target = {"provider": "openai", "custom_host": gateway.base_url, "api_key": "sk-test"}
    config = {
        "strategy": {
            "mode": "conditional",
            "conditions": [{"query": {"metadata.workflow": {"$eq": "Zürich 東京"}}, "then": "found"}],
            "default": "other",
        },
        "targets": [
            {"name": "other", **target, "override_params": {"service_tier": "flex"}},
            {"name": "found", **target, "override_params": {"service_tier": "priority"}},
        ],
    }
    route = Gateways({url: "portkey"}).match(url)
    assert route is not None
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0)
    since = mark(gateway)
    client.chat.completions.create(
        model="gpt-5-mini",
        messages=[{"role": "user", "content": "hello"}],
        extra_headers={
            "x-portkey-config": json.dumps(config),
            **dict(route.headers(Attribution.of({"workflow": "Zürich 東京", "user_id": "a\nb\x7f🦊" * 60}))),
        },
    )
    client.close()
    (request,) = newest(gateway, since)
    assert request.json["service_tier"] == "priority"


def test_the_largest_headers_pass(portkey_gateway: Leading, gateway: Gateway) -> None:
    url, to_upstream = portkey_gateway(gateway.base_url)
    route = Gateways({url: "portkey"}).match(url)
    assert route is not None
    who = Attribution.of({f"dim_{number:02}": "東" * 1000 for number in range(64)})
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", default_headers=to_upstream, max_retries=0)
    since = mark(gateway)
    client.chat.completions.create(
        model="gpt-5-mini",
        messages=[{"role": "user", "content": "hello"}],
        extra_headers={**dict(route.headers(who)), "x-portkey-forward-headers": "x-portkey-metadata"},
    )
    client.close()
    (request,) = newest(gateway, since)
    assert metadata_of(request) == json.loads(dict(route.headers(who))["x-portkey-metadata"])
    assert len(metadata_of(request)) + len(route.left_out) == 64


def test_instrumented_calls_of_interleaved_tenants_get_the_tier_meant_for_each(
    portkey_gateway: Leading, gateway: Gateway, observe: Any
) -> None:
    url, _ = portkey_gateway(gateway.base_url)
    rules = [{"when": {"tenant_id": tenant}, "tier": tier} for tenant, tier in TIER_OF.items() if tier]
    observed = observe(gateways={url: "portkey"}, tiers=rules)
    since = mark(gateway)

    async def ask(client: Any, tenant: str, number: int) -> None:
        with attribkit.attributed(tenant_id=tenant, workflow=f"w-{number}"):
            await asyncio.sleep(0)
            if number % 2:
                async for _ in await client.chat.completions.create(
                    model="gpt-5-mini", messages=[{"role": "user", "content": f"{tenant} {number}"}], stream=True
                ):
                    pass
            else:
                await client.chat.completions.create(
                    model="gpt-5-mini", messages=[{"role": "user", "content": f"{tenant} {number}"}]
                )

    async def all_at_once() -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="sk-test", default_headers=routed(gateway), max_retries=0
        ) as client:
            await asyncio.gather(*(ask(client, tenant, number) for number in range(10) for tenant in TIER_OF))

    asyncio.run(all_at_once())
    requests = newest(gateway, since)
    assert len(requests) == 40
    for request in requests:
        tenant, number = request.json["messages"][0]["content"].split()
        told = metadata_of(request)
        assert (told["tenant_id"], told["workflow"], told.get("tier")) == (tenant, f"w-{number}", TIER_OF[tenant])
        assert (request.json.get("service_tier"), request.json["model"]) == SENT[TIER_OF[tenant]]
    assert len(observed.records) == 40
    assert sum(request.cost_usd is not None for request in requests) == 30
    by_response = {request.response_id: request for request in requests}
    for record in observed.records:
        request = by_response[record.response_id]
        tenant = request.json["messages"][0]["content"].split()[0]
        assert record.attribution.tenant_id == tenant
        assert record.gateway == "portkey" and record.status == "ok"
        assert request.header("traceparent").split("-")[1:3] == [record.trace_id, record.span_id]
        assert record.served_model == request.model and record.served_tier == request.tier
        if request.cost_usd is not None:  # the loopback gateway's own list knows gpt-5-mini only
            assert record.usd == request.cost_usd
