"""Exporters and span processors that fail are not the app's problem."""

from __future__ import annotations

import logging
from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import attribkit
from attribkit import faults


class BrokenExporter(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        raise RuntimeError("no collector")


class BrokenAtStart(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("start")


class BrokenAtEnd(SpanProcessor):
    def on_end(self, span: Any) -> None:
        raise RuntimeError("end")


@pytest.mark.parametrize("broken", [SimpleSpanProcessor(BrokenExporter()), BrokenAtStart(), BrokenAtEnd()])
def test_the_call_goes_through_and_is_recorded(observe: Any, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("opentelemetry.sdk.trace.export"), "disabled", True)
    observed = observe()
    observed.provider.add_span_processor(broken)
    faults.strict(False)

    @attribkit.entrypoint("support", tenant_id="tenant")
    def answer(tenant: str) -> str | None:
        client = openai.OpenAI(base_url=observed.base_url, api_key="none")
        reply = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
        return reply.choices[0].message.content

    assert answer("acme")
    (record,) = observed.records
    assert record.status == "ok"
    assert record.attribution.tenant_id == "acme"
