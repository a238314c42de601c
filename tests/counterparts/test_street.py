"""The whole street of integrations/compose on loopback: two services, a worker, LiteLLM, rotel, ClickHouse.

One request goes through all of it: one trace, and every span and row with the tenant.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from budgets.servers import redis_server
from counterparts.started import (
    INSTALLED,
    MASTER_KEY,
    ROOT,
    ClickHouse,
    LiteLLM,
    clickhouse,
    free_port,
    litellm_proxy,
    needed,
    rotel_collector,
    running,
)

from attribkit.testing import Gateway

pytestmark = [pytest.mark.counterpart, pytest.mark.large]
COMPOSE = ROOT / "integrations/compose"
OWN = {"front", "orders", "jobs"}
MODEL_CALLS = 3
"""Of one question: the second service's, the first one's and the worker's."""


class Street(NamedTuple):
    url: str
    """Where customers ask."""
    litellm: LiteLLM
    store: ClickHouse
    upstream: Gateway
    ledger: str


@pytest.fixture
def street(gateway: Gateway, tmp_path: Path) -> Iterator[Street]:
    folder, ledger = tmp_path, f"sqlite:///{tmp_path}/ledger.db"
    shutil.copy(COMPOSE / "litellm.yaml", folder)
    shutil.copy(ROOT / "integrations/litellm/attribkit_rows.py", folder)
    bin_folder = needed(INSTALLED / "street/bin", "what the services stand on", "install_large.sh")
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        store = start(clickhouse(folder))
        collector = start(rotel_collector(folder, ROTEL_CLICKHOUSE_EXPORTER_ENDPOINT=store.url))
        broker = start(redis_server(folder))
        telemetry = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        config = {**telemetry, "OTEL_SERVICE_NAME": "litellm"}
        litellm = start(litellm_proxy(gateway.base_url, folder, folder / "litellm.yaml", **config))
        ports = {"front": free_port(), "orders": free_port()}
        environ = {
            key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON", "ATTRIBKIT"))
        }
        environ |= {
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{COMPOSE / 'street'}{os.pathsep}{ROOT / 'src'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENAI_BASE_URL": f"{litellm.url}/v1",
            "OPENAI_API_KEY": MASTER_KEY,
            "ORDERS_URL": f"http://127.0.0.1:{ports['orders']}",
            "BROKER_URL": broker,
            **telemetry,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "ATTRIBKIT_GATEWAYS": json.dumps({litellm.url: "litellm"}),
            "ATTRIBKIT_LEDGER": ledger,
            "ATTRIBKIT_PEERS": f"http://127.0.0.1:{ports['orders']}",
            "ATTRIBKIT_CARRIER_KEY": "a secret of 32 characters or more",
        }
        launcher = str(bin_folder / "opentelemetry-instrument")
        worker = [launcher, "celery", "-A", "jobs", "worker", "-P", "solo", "-l", "info", "--without-mingle"]
        start(
            running(worker, None, folder / "jobs.log", environ={**environ, "OTEL_SERVICE_NAME": "jobs"}, said="ready.")
        )
        for name, port in ports.items():
            command = [launcher, "uvicorn", f"{name}:app", "--port", str(port), "--log-level", "warning"]
            start(running(command, port, folder / f"{name}.log", environ={**environ, "OTEL_SERVICE_NAME": name}))
        yield Street(f"http://127.0.0.1:{ports['front']}", litellm, store, gateway, ledger)


def ask(street: Street, token: str) -> None:
    body = json.dumps({"order": "o-17", "question": "Where is my parcel?"}).encode()
    headers = {"content-type": "application/json", "x-token": token}
    with urllib.request.urlopen(urllib.request.Request(f"{street.url}/questions", body, headers), timeout=60) as reply:
        assert json.loads(reply.read())["answer"]


def until(seen: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.25)


SPANS = "SELECT TraceId, ServiceName, SpanName, TenantId, Tenant, CallId, CostUsd FROM otel.attributed_spans"


def test_one_request_through_all_of_it(street: Street, tmp_path: Path) -> None:
    asked = {"token-of-acme": "acme", "token-of-globex": "globex"}
    for token in asked:
        ask(street, token)
    calls = MODEL_CALLS * len(asked)
    until(
        lambda: street.litellm.rows.exists() and len(street.litellm.rows.read_text().splitlines()) >= calls, "LiteLLM"
    )

    def requests_of(spans: list[dict[str, Any]]) -> int:
        return sum(span["SpanName"] == "litellm_request" for span in spans)

    spans: list[dict[str, Any]] = []

    def arrived() -> bool:
        nonlocal spans
        before, spans = len(spans), street.store.rows(SPANS)
        return requests_of(spans) >= calls and len(spans) == before

    until(arrived, "the spans did not come to rest")
    health = {span["TraceId"] for span in spans if span["SpanName"] == "GET /health/readiness"}  # asked by this test
    spans = [span for span in spans if span["TraceId"] not in health]
    loader = [str(INSTALLED / "street/bin/python"), str(ROOT / "integrations/clickhouse/load.py")]
    subprocess.run([*loader, street.ledger, street.store.url], check=True, env={"PYTHONPATH": str(ROOT / "src")})
    rows = street.store.rows("SELECT *, cost_usd FROM attribkit.calls FINAL ORDER BY call_id")
    logged = {line["call_id"]: line for line in map(json.loads, street.litellm.rows.read_text().splitlines())}

    assert Counter(row["tenant_id"] for row in rows) == {"acme": MODEL_CALLS, "globex": MODEL_CALLS}
    for tenant in asked.values():
        mine = [row for row in rows if row["tenant_id"] == tenant]
        (trace,) = {row["trace_id"] for row in mine}
        of_trace = [span for span in spans if span["TraceId"] == trace]
        assert {span["ServiceName"] for span in of_trace} >= OWN | {"litellm"}
        assert {span["Tenant"] for span in of_trace} == {tenant}
        assert {span["TenantId"] for span in of_trace if span["ServiceName"] in OWN} == {tenant}
        assert {span["TenantId"] for span in of_trace if span["SpanName"] == "litellm_request"} == {tenant}
        assert requests_of(of_trace) == MODEL_CALLS
        spent = {span["CallId"]: Decimal(span["CostUsd"]) for span in of_trace if span["CallId"]}
        assert spent == {row["call_id"]: Decimal(row["cost_usd"]) for row in mine}
        for row in mine:
            line = logged[row["call_id"]]
            assert line["attribution"]["tenant_id"] == tenant and line["trace_id"] == trace
            assert abs(Decimal(repr(line["cost_usd"])) - Decimal(row["cost_usd"])) < Decimal("1e-15")
    assert {span["TraceId"] for span in spans} == {row["trace_id"] for row in rows}, "a span fell out of its trace"
    assert street.store.rows(
        "SELECT Tenant, sum(Calls) AS calls FROM otel.spend_by_tenant GROUP BY Tenant ORDER BY Tenant"
    ) == [
        {"Tenant": "acme", "calls": MODEL_CALLS},
        {"Tenant": "globex", "calls": MODEL_CALLS},
    ]
    assert "Where is my parcel" not in street.store.run("SELECT SpanAttributes FROM otel.otel_traces")
