"""Two tenants interleaved over every shape of an OpenAI call: right on the wire, on the span and on the row."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from typing import Any

import openai
import pytest
from openai_sdk.shapes import ASYNC, SYNC

import attribkit

TENANT = re.compile(rb"\[tenant=(\w+)\]")


def prompt(tenant: str, n: object = 0) -> str:
    return f"[tenant={tenant}] question {n}: what is late?"


def check(seen: Any, expected: Counter[str]) -> None:
    """Every request, row and span says the tenant that the prompt was made for; none is missing, none too many."""
    requests = seen.requests()
    on_wire = Counter()
    by_response: dict[str, str] = {}
    for request in requests:
        tenant = TENANT.search(request.body)[1].decode()
        assert request.attribution.get("tenant_id") == tenant
        assert request.attribution.get("workflow_id") == f"wf-{tenant}"
        on_wire[tenant] += 1
        if request.response_id:
            by_response[request.response_id] = tenant
    assert on_wire == expected
    assert Counter(record.attribution.tenant_id for record in seen.records) == expected
    assert Counter(span.attributes["attribkit.tenant_id"] for span in seen.call_spans()) == expected
    assert len({record.call_id for record in seen.records}) == len(seen.records)
    assert {record.span_id for record in seen.records} == {f"{span.context.span_id:016x}" for span in seen.call_spans()}
    for record in seen.records:
        assert record.status == "ok", record
        assert record.attribution.workflow_id == f"wf-{record.attribution.tenant_id}"
        if record.response_id in by_response:
            assert by_response[record.response_id] == record.attribution.tenant_id


@pytest.mark.parametrize("name", SYNC)
def test_two_tenants_in_threads(name: str, observe: Any) -> None:
    seen = observe()
    client = seen.client()
    if name.startswith("responses") and not hasattr(client, "responses"):
        pytest.skip("this SDK has no Responses API")
    ready = threading.Barrier(2)
    faults: list[BaseException] = []

    def work(tenant: str) -> None:
        try:
            with attribkit.attributed(tenant_id=tenant, workflow_id=f"wf-{tenant}"):
                for n in range(3):
                    ready.wait(20)
                    SYNC[name](client, prompt(tenant, n))
        except BaseException as error:
            faults.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=(tenant,)) for tenant in ("acme", "globex")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    check(seen, Counter(acme=3, globex=3))


@pytest.mark.parametrize("name", ASYNC)
def test_two_tenants_in_tasks(name: str, observe: Any) -> None:
    seen = observe()

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as client:

            async def work(tenant: str) -> None:
                with attribkit.attributed(tenant_id=tenant, workflow_id=f"wf-{tenant}"):
                    for n in range(3):
                        await ASYNC[name](client, prompt(tenant, n))

            if name.startswith("async_responses") and not hasattr(client, "responses"):
                pytest.skip("this SDK has no Responses API")
            await asyncio.gather(work("acme"), work("globex"))

    asyncio.run(main())
    check(seen, Counter(acme=3, globex=3))


def test_a_thousand_concurrent_async_calls_of_two_tenants(observe: Any) -> None:
    seen = observe()

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url, max_retries=0, timeout=120) as client:

            async def one(n: int) -> None:
                tenant = ("acme", "globex")[n % 2]
                with attribkit.attributed(tenant_id=tenant, workflow_id=f"wf-{tenant}"):
                    shape = ASYNC["async_chat_stream" if n % 5 == 0 else "async_chat"]
                    await shape(client, prompt(tenant, n))

            await asyncio.gather(*[one(n) for n in range(1000)])

    asyncio.run(main())
    check(seen, Counter(acme=500, globex=500))
    assert all(record.cost.status == "priced" for record in seen.records)


def test_rows_say_what_was_served_and_cost(observe: Any) -> None:
    seen = observe()
    client = seen.client()
    with attribkit.attributed(tenant_id="acme"):
        client.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}], service_tier="priority"
        )
    (record,), (request,) = seen.records, seen.requests()
    assert (record.api, record.requested_model, record.requested_tier) == ("chat", "gpt-5-mini", "priority")
    assert record.served_tier == request.tier
    assert record.served_model == request.model
    assert record.response_id == request.response_id
    assert record.gateway == "portkey" and record.host == "127.0.0.1"
    assert record.usage.input_tokens == request.usage["prompt_tokens"]
    assert record.usage.output_tokens == request.usage["completion_tokens"]
    assert record.cost.status == "priced" and record.cost.usd == request.cost_usd
    assert sum(line.usd for line in record.cost.lines) == record.cost.usd
    assert record.duration_ns and record.duration_ns > 0
    assert record.hop == "inherited"
