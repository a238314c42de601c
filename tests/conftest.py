"""What the tests share: our own faults raise, and one loopback gateway a worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import attribkit
from attribkit import faults
from attribkit.calls import CallRecord
from attribkit.testing import CapturedRequest, Gateway

for _name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OTEL_EXPORTER_OTLP_ENDPOINT"):
    os.environ.pop(_name, None)
os.environ.update(LANGSMITH_TRACING="false", LANGCHAIN_TRACING_V2="false", OTEL_SDK_DISABLED="false")


def _log_again() -> None:
    """Undo what a framework's logging set-up has done: it turns off whom it does not know, and sets levels for all."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "attribkit"]:
        logger = logging.getLogger(name)
        logger.disabled, logger.propagate = False, True
        logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    _log_again()
    faults.strict(True)
    yield
    attribkit.uninstrument()
    faults.strict(False)
    faults.reset()


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test leaves lands in the checkout, and no settings file of it is read."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("ATTRIBKIT_") and name not in ("ATTRIBKIT_COUNTERPARTS", "ATTRIBKIT_KILLS"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


class Observed:
    """What one instrumented test can see: the wire, the spans, the rows."""

    def __init__(self, gateway: Gateway, exporter: Any, provider: Any) -> None:
        self.gateway = gateway
        self.base_url = gateway.base_url
        self.exporter = exporter
        self.provider = provider
        self.records: list[CallRecord] = []
        self.opened: list[Any] = []
        seen = gateway.requests()
        self._since = seen[-1].seq if seen else 0

    def finished(self, record: CallRecord) -> None:
        self.records.append(record)

    def client(self, **more: Any) -> Any:
        """Return an OpenAI client of the gateway; it is closed with the test."""
        import openai

        client = openai.OpenAI(**{"api_key": "k", "base_url": self.base_url, **more})
        self.opened.append(client)
        return client

    def requests(self) -> list[CapturedRequest]:
        return self.gateway.requests(since=self._since)

    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def call_spans(self) -> list[Any]:
        return [span for span in self.spans() if span.kind.name == "CLIENT"]


@pytest.fixture
def observe(gateway: Gateway) -> Iterator[Any]:
    """Return a function that instruments with settings and gives what can be seen."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    started: list[Observed] = []

    def start(**settings: Any) -> Observed:
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        observed = Observed(gateway, exporter, provider)
        defaults = {"gateways": {gateway.url: "portkey"}, "ledger": observed, "tracer_provider": provider}
        started.append(observed)
        attribkit.instrument(**{**defaults, **settings})
        return observed

    yield start
    attribkit.uninstrument()
    for observed in started:
        for client in observed.opened:
            client.close()
