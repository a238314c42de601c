"""Through a real OpenTelemetry collector: spans come out as they went in."""

from __future__ import annotations

from typing import Any

import pytest

import attribkit
from attribkit.testing import Gateway

pytestmark = pytest.mark.counterpart
TENANTS = ("acme", "globex", "Zürich 東京")


def test_who_a_call_is_for_and_what_it_cost_arrive_behind_the_collector(rotel: Any, gateway: Gateway) -> None:
    import openai
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{rotel.http_url}/v1/traces")))
    records: list[Any] = []

    class Ledger:
        def finished(self, record: Any) -> None:
            records.append(record)

    attribkit.instrument(gateways={gateway.url: "portkey"}, ledger=Ledger(), tracer_provider=provider)
    client = openai.OpenAI(base_url=gateway.base_url, api_key="sk-test", max_retries=0)
    for tenant in TENANTS:

        @attribkit.entrypoint("onboarding", tenant_id="tenant")
        def answer(tenant: str) -> None:
            client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": tenant}])

        answer(tenant)
    provider.shutdown()
    client.close()

    spans = rotel.spans(2 * len(TENANTS))
    assert len(spans) == 2 * len(TENANTS)
    by_id = {span["span_id"]: span for span in spans}
    assert [record.attribution.tenant_id for record in records] == list(TENANTS)
    for record in records:
        span = by_id[record.span_id]
        values = {str(value) for value in span["attributes"].values()}
        assert span["trace_id"] == record.trace_id
        assert {record.attribution.tenant_id, "onboarding", record.attribution.workflow_id, "gpt-5-mini"} <= values
        assert record.response_id in values
        assert record.usd is not None
        cost = [value for key, value in span["attributes"].items() if "cost" in key or "usd" in key]
        assert any(abs(float(value) - float(record.usd)) < 1e-12 for value in cost), span["attributes"]


def test_a_gateways_span_gets_the_tenant_and_content_goes_no_further(rotel: Any) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{rotel.http_url}/v1/traces")))
    tracer = provider.get_tracer("litellm")
    who = {"tenant_id": 'a\'cme "q" Zürich', "workflow": "onboarding"}
    written = {
        "metadata.spend_logs_metadata": repr(who),
        "gen_ai.input.messages": '[{"role": "user"}]',
        "llm.openai.choices": "[]",
        "metadata.requester_custom_headers": "{}",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    tracer.start_span("litellm_request", attributes=written).end()
    tracer.start_span("garbled", attributes={"metadata.spend_logs_metadata": "{'tenant_id': "}).end()
    tracer.start_span("theirs", attributes={**written, "attribkit.tenant_id": "globex"}).end()
    spans = {span["name"]: span["attributes"] for span in rotel.spans(3)}
    provider.shutdown()
    assert spans["litellm_request"] == {
        "metadata.spend_logs_metadata": repr(who),
        "attribkit.tenant_id": who["tenant_id"],
        "attribkit.workflow": "onboarding",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    assert spans["garbled"] == {"metadata.spend_logs_metadata": "{'tenant_id': "}
    assert spans["theirs"]["attribkit.tenant_id"] == "globex"
