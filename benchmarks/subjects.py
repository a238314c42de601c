"""Who is measured: nothing at all, attribkit in several settings, and other instrumentors where they are installed.

No subject captures content. Spans go through a BatchSpanProcessor to an exporter that drops them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple


class Subject:
    """What a workload and the meter need of whoever is measured."""

    def openai(self) -> Any:
        """Return the module with the OpenAI client classes."""
        return importlib.import_module("openai")

    def langchain_config(self) -> Any:
        """Return what goes into `invoke(config=...)`."""
        return None

    def scope(self, workflow_id: str = "0197-8d2e") -> AbstractContextManager[Any]:
        """Return what stands around every block."""
        return nullcontext()

    def settle(self) -> None:
        """Finish what was put off: exports, rows on their way into the ledger."""

    def written(self) -> int | None:
        """Return how many ledger rows there are, None without a ledger."""
        return None


class Exported:
    """Counts the spans that would have left the process."""

    def __init__(self) -> None:
        self.spans = 0


EXPORTED = Exported()


def span_processor() -> Any:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Drop(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            EXPORTED.spans += len(spans)
            return SpanExportResult.SUCCESS

    return BatchSpanProcessor(Drop(), max_queue_size=100_000, max_export_batch_size=512, schedule_delay_millis=5_000)


def tracer_provider() -> Any:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    provider.add_span_processor(span_processor())
    trace.set_tracer_provider(provider)
    return provider


def meter_provider() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    return MeterProvider([InMemoryMetricReader()])


class Attribkit(Subject):
    def __init__(self, **settings: Any) -> None:
        import attribkit
        from attribkit import runtime

        self._attribkit, self._runtime = attribkit, runtime
        self.provider = settings.get("tracer_provider")
        attribkit.instrument(**settings)

    def scope(self, workflow_id: str = "0197-8d2e") -> AbstractContextManager[Any]:
        return self._attribkit.attributed(
            tenant_id="acme", workflow="onboarding", workflow_id=workflow_id, cost_center="R42"
        )

    def settle(self) -> None:
        if self.provider is not None:
            self.provider.force_flush()
        self._runtime.active().settle()

    def written(self) -> int | None:
        ledger = self._runtime.active().ledger
        return None if ledger is None else ledger.stats().written


def _ledger() -> str:
    return f"sqlite:///{tempfile.mkdtemp(prefix='attribkit-bench-')}/attribkit.db"


def attribkit_full() -> Subject:
    return Attribkit(gateways=GATEWAYS, ledger=_ledger(), tracer_provider=tracer_provider())


def attribkit_no_span() -> Subject:
    return Attribkit(gateways=GATEWAYS, ledger=_ledger(), tracer_provider=tracer_provider(), spans=False)


def attribkit_metrics() -> Subject:
    return Attribkit(
        gateways=GATEWAYS, ledger=_ledger(), tracer_provider=tracer_provider(), meter_provider=meter_provider()
    )


GATEWAYS = {"http://llm.local": "portkey"}


class Traced(Subject):
    """Another instrumentor on a tracer provider of ours."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider

    def settle(self) -> None:
        self.provider.force_flush()


def _otel(openai: str, langchain: str | None) -> Callable[[], Subject]:
    def start() -> Subject:
        provider = tracer_provider()
        importlib.import_module(openai).OpenAIInstrumentor().instrument(tracer_provider=provider)
        if langchain is not None:
            importlib.import_module(langchain).LangChainInstrumentor().instrument(tracer_provider=provider)
        return Traced(provider)

    return start


def openinference() -> Subject:
    from openinference.instrumentation import TraceConfig

    provider = tracer_provider()
    quiet = {"tracer_provider": provider, "config": TraceConfig(hide_inputs=True, hide_outputs=True)}
    importlib.import_module("openinference.instrumentation.openai").OpenAIInstrumentor().instrument(**quiet)
    importlib.import_module("openinference.instrumentation.langchain").LangChainInstrumentor().instrument(**quiet)
    return Traced(provider)


def traceloop() -> Subject:
    provider = tracer_provider()
    importlib.import_module("opentelemetry.instrumentation.openai").OpenAIInstrumentor().instrument(
        tracer_provider=provider
    )
    importlib.import_module("opentelemetry.instrumentation.langchain").LangchainInstrumentor().instrument(
        tracer_provider=provider
    )
    return Traced(provider)


class Langfused(Subject):
    def __init__(self) -> None:
        langfuse = importlib.import_module("langfuse")
        self.provider = tracer_provider()
        langfuse.Langfuse(
            public_key="pk-lf-none",
            secret_key="sk-lf-none",
            host="http://127.0.0.1:9",
            tracer_provider=self.provider,
            mask=lambda **_: "",
        )
        self._config = {"callbacks": [importlib.import_module("langfuse.langchain").CallbackHandler()]}

    def openai(self) -> Any:
        return importlib.import_module("langfuse.openai")

    def langchain_config(self) -> Any:
        return self._config


class Entry(NamedTuple):
    title: str
    start: Callable[[], Subject]
    needs: tuple[str, ...]
    """Modules; where one is not installed, the subject is left out."""


_SDK = "opentelemetry.sdk.trace"
_OTEL_INSTRUMENTATION = "opentelemetry.instrumentation"

SUBJECTS = {
    "bare": Entry("nothing", Subject, ()),
    "attribkit": Entry("attribkit: headers, span, cost, ledger", attribkit_full, ("attribkit", _SDK)),
    "attribkit-no-span": Entry("the same, own span off", attribkit_no_span, ("attribkit", _SDK)),
    "attribkit-metrics": Entry("the same, span and metrics", attribkit_metrics, ("attribkit", _SDK)),
    "otel-openai-v2": Entry(
        "OTel openai-v2",
        _otel(f"{_OTEL_INSTRUMENTATION}.openai_v2", None),
        (_SDK, f"{_OTEL_INSTRUMENTATION}.openai_v2"),
    ),
    "otel-genai": Entry(
        "OTel genai",
        _otel(f"{_OTEL_INSTRUMENTATION}.genai.openai", f"{_OTEL_INSTRUMENTATION}.genai.langchain"),
        (_SDK, f"{_OTEL_INSTRUMENTATION}.genai.openai", f"{_OTEL_INSTRUMENTATION}.genai.langchain"),
    ),
    "openinference": Entry(
        "OpenInference",
        openinference,
        (_SDK, "openinference.instrumentation.openai", "openinference.instrumentation.langchain"),
    ),
    "traceloop": Entry(
        "Traceloop",
        traceloop,
        (_SDK, f"{_OTEL_INSTRUMENTATION}.openai", f"{_OTEL_INSTRUMENTATION}.langchain"),
    ),
    "langfuse": Entry("Langfuse", Langfused, (_SDK, "langfuse")),
}

os.environ.setdefault("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "false")
os.environ.setdefault("TRACELOOP_TRACE_CONTENT", "false")


def installed(name: str) -> bool:
    """True when everything that a subject needs can be imported."""
    for module in SUBJECTS[name].needs:
        try:
            if importlib.util.find_spec(module) is None:
                return False
        except ModuleNotFoundError:
            return False
    return True
