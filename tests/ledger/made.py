"""Records as a client patch would make them, for the tests of ledger and reports."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from attribkit.attribution import Attribution
from attribkit.calls import CallRecord
from attribkit.cost import Cost, CostLine
from attribkit.ids import new_id
from attribkit.usage.model import Usage

USAGE = Usage((("input", 1200), ("cache_read", 300), ("output", 250)), reasoning_tokens=40)


def cost(usd: str | Decimal = "0.0123456") -> Cost:
    usd = Decimal(usd)
    lines = (
        CostLine("input", 1200, Decimal("0.0000025"), Decimal("0.003")),
        CostLine("output", 250, Decimal("1E-5"), Decimal("0.0025")),
    )
    return Cost(usd, "priced", lines, "2026-11-01", None, usd, None, "openai/gpt-4o", "2026-01-01")


def record(fields: dict[str, object] | None = None, **changes: Any) -> CallRecord:
    made = CallRecord(
        call_id=new_id(),
        operation_id=new_id(),
        attempt=0,
        started_ns=time.time_ns(),
        duration_ns=123_456_789,
        first_chunk_ns=None,
        client="openai",
        provider="openai",
        gateway="portkey",
        host="127.0.0.1:8787",
        api="chat",
        requested_model="gpt-4o",
        served_model="gpt-4o-2024-08-06",
        requested_tier=None,
        served_tier="default",
        region=None,
        batch=False,
        stream=False,
        status="ok",
        http_status=200,
        error=None,
        response_id="chatcmpl-123",
        gateway_request_id=None,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        usage=USAGE,
        cost=cost(),
        attribution=Attribution.of({"tenant_id": "acme", "workflow": "onboarding"} if fields is None else fields),
        hop="inherited",
    )
    return made._replace(**changes)
