"""Model calls as metrics."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from attribkit.attribution import Attribution
from attribkit.cost import Cost
from attribkit.telemetry.counts import OTHER
from attribkit.telemetry.metrics import CallMetrics
from attribkit.usage.model import NO_USAGE, Usage


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def meters(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data: Any = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if scope.scope.name == "attribkit"
    }


def total(reader: InMemoryMetricReader, name: str) -> float:
    return sum(point.value for point in points(reader).get(name, ()))


def test_counters(meters: MeterProvider, reader: InMemoryMetricReader, record: Any) -> None:
    metrics = CallMetrics(meters)
    metrics.finished(record())
    metrics.finished(record(cost=Cost(Decimal("0.1"), "priced")))
    metrics.finished(record(cost=Cost.unknown("x"), usage=NO_USAGE, status="error", error="APIError"))
    metrics.finished(record(attribution=Attribution(), cost=Cost.free("x")))
    found = points(reader)
    assert {name: sum(point.value for point in found[name]) for name in found if "duration" not in name} == {
        "attribkit.calls": 4,
        "attribkit.calls.unpriced": 1,
        "attribkit.calls.unattributed": 1,
        "attribkit.cost": pytest.approx(0.1001542),
        "gen_ai.client.inference.usage.input_tokens": 3600,
        "gen_ai.client.inference.usage.output_tokens": 255,
        "gen_ai.client.inference.usage.cache_read.input_tokens": 3072,
        "gen_ai.client.inference.usage.reasoning.output_tokens": 60,
    }
    durations = found["gen_ai.client.inference.duration"]
    assert sum(point.count for point in durations) == 4
    assert {tuple(sorted(point.attributes.items())) for point in durations} == {
        tuple(sorted(attributes.items()))
        for attributes in (
            {**COMMON, "attribkit.tenant_id": "acme"},
            {**COMMON, "attribkit.tenant_id": "acme", "error.type": "APIError"},
            COMMON,
        )
    }


COMMON = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
}


@pytest.mark.parametrize(
    ("names", "there", "not_there"),
    [
        ("histogram", {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}, "inference"),
        ("counter", {"gen_ai.client.inference.duration", "gen_ai.client.inference.usage.input_tokens"}, "operation"),
        ("both", {"gen_ai.client.operation.duration", "gen_ai.client.inference.duration"}, "none"),
    ],
)
def test_one_switch_chooses_the_names(
    meters: MeterProvider, reader: InMemoryMetricReader, record: Any, names: Any, there: set[str], not_there: str
) -> None:
    CallMetrics(meters, names=names).finished(record())
    found = points(reader)
    assert there <= set(found)
    assert not [name for name in found if not_there in name]
    if names == "histogram":
        assert {p.attributes["gen_ai.token.type"]: p.sum for p in found["gen_ai.client.token.usage"]} == {
            "input": 1200,
            "output": 85,
        }


def test_tenants_and_models_are_bounded(meters: MeterProvider, reader: InMemoryMetricReader, record: Any) -> None:
    metrics = CallMetrics(meters, max_tenants=3)
    for number in range(1000):
        metrics.finished(
            record(
                attribution=Attribution.of({"tenant_id": f"t{number % 10}"}),
                requested_model=f"m{number}",
                duration_ns=None,
            )
        )
    calls = points(reader)["attribkit.calls"]
    assert {point.attributes["attribkit.tenant_id"] for point in calls} == {"t0", "t1", "t2", OTHER}
    assert len({point.attributes["gen_ai.request.model"] for point in calls}) == 101
    assert sum(point.value for point in calls) == 1000


def test_off_and_on_again_goes_on_counting(
    meters: MeterProvider, reader: InMemoryMetricReader, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    CallMetrics(meters).finished(record())
    CallMetrics(meters).finished(record())
    assert total(reader, "attribkit.calls") == 2
    assert not caplog.records


def test_exact_over_many_calls(meters: MeterProvider, reader: InMemoryMetricReader, record: Any) -> None:
    metrics = CallMetrics(meters)
    one = record(cost=Cost(Decimal("0.000000000001"), "priced"), duration_ns=None)
    threads = [threading.Thread(target=lambda: [metrics.finished(one) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(reader, "attribkit.cost") == 2000 / 1e12
    assert total(reader, "attribkit.calls") == 2000


def test_garbage_does_not_spoil_the_sums(meters: MeterProvider, reader: InMemoryMetricReader, record: Any) -> None:
    metrics = CallMetrics(meters, names="both")
    metrics.finished(record(usage=Usage((("input", 2**70), ("output", 3)))))
    metrics.finished(record(requested_model="\ud800", error="\ud800", status="error"))
    assert total(reader, "gen_ai.client.inference.usage.input_tokens") == 1200
    for found in points(reader).values():
        for point in found:
            for value in point.attributes.values():
                value.encode()


def test_nothing_without_a_provider(record: Any) -> None:
    CallMetrics().finished(record())
    CallMetrics(api.NoOpMeterProvider()).finished(record())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_counts_from_nothing(meters: MeterProvider, reader: InMemoryMetricReader, record: Any) -> None:
    metrics = CallMetrics(meters)
    metrics.finished(record())
    child = os.fork()
    if child == 0:
        try:
            metrics.finished(record())
            os._exit(0 if total(reader, "attribkit.calls") == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert total(reader, "attribkit.calls") == 1
