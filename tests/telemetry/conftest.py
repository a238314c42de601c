"""A tracer provider whose spans can be read, and records of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from attribkit.attribution import Attribution
from attribkit.calls import CallRecord
from attribkit.cost import Cost, CostLine
from attribkit.usage.model import Usage

ACME = Attribution.of({"tenant_id": "acme", "workflow": "onboarding", "workflow_id": "wf-1", "user_id": "u-1"})


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
def record() -> Callable[..., CallRecord]:
    def make(**changes: Any) -> CallRecord:
        return CallRecord(
            call_id="c-1",
            operation_id="o-1",
            attempt=0,
            started_ns=1_000_000_000,
            duration_ns=250_000_000,
            first_chunk_ns=None,
            client="openai",
            provider="openai",
            gateway="portkey",
            host="llm.local",
            api="chat",
            requested_model="gpt-4o-mini",
            served_model="gpt-4o-mini-2024-07-18",
            requested_tier="auto",
            served_tier="default",
            region=None,
            batch=False,
            stream=False,
            status="ok",
            http_status=200,
            error=None,
            response_id="chatcmpl-1",
            gateway_request_id=None,
            trace_id=None,
            span_id=None,
            usage=Usage((("input", 176), ("cache_read", 1024), ("output", 85)), reasoning_tokens=20),
            cost=Cost(
                Decimal("0.0001542"),
                "priced",
                (CostLine("input", 176, Decimal("1e-7"), Decimal("0.0000176")),),
                "2026-11-01",
            ),
            attribution=ACME,
            hop="inherited",
        )._replace(**changes)

    return make
