"""Calls a model with another GenAI instrumentor beside attribkit, and prints what both saw.

    python with_another.py NAME before|after first|last

NAME is instrumented before or after attribkit, and is taken off first or last; a call is made in each state.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import attribkit
from attribkit import faults
from attribkit.testing import Gateway

INSTRUMENTORS = {
    "otel-genai": "opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor",
    "otel-openai-v2": "opentelemetry.instrumentation.openai_v2:OpenAIInstrumentor",
    "openinference": "openinference.instrumentation.openai:OpenAIInstrumentor",
    "openllmetry": "opentelemetry.instrumentation.openai:OpenAIInstrumentor",
}


class Rows:
    def __init__(self) -> None:
        self.rows: list[Any] = []

    def finished(self, record: Any) -> None:
        self.rows.append(record)


def other(name: str, provider: Any, exporter: Any) -> tuple[Any, Any]:
    """Return what puts the other one on, and what takes it off."""
    if name == "logfire":
        import logfire

        logfire.configure(
            send_to_logfire=False,
            console=False,
            metrics=False,
            additional_span_processors=[SimpleSpanProcessor(exporter)],
        )
        taken: list[Any] = []

        def on() -> None:
            taken.append(logfire.instrument_openai())
            taken[-1].__enter__()

        def off() -> None:
            taken.pop().__exit__(None, None, None)

        return on, off
    if name == "langfuse":
        from langfuse import Langfuse

        client = Langfuse(
            public_key="pk", secret_key="sk", host="http://127.0.0.1:9", tracer_provider=provider, flush_at=512
        )
        importlib.import_module("langfuse.openai")  # patches the SDK for good

        return (lambda: None), client.shutdown
    if name == "openlit":
        return _openlit, lambda: None  # takes nothing off again (1.45)
    module, _, found = INSTRUMENTORS[name].partition(":")
    instrumentor = getattr(importlib.import_module(module), found)()
    return (lambda: instrumentor.instrument(tracer_provider=provider)), instrumentor.uninstrument


def _openlit() -> None:
    """Put OpenLIT on for the OpenAI SDK alone, with a price list of this machine's: it would fetch one."""
    import openlit
    from openlit._instrumentors import MODULE_NAME_MAP

    with tempfile.NamedTemporaryFile("w", suffix=".json") as prices:
        prices.write("{}")
        prices.flush()
        openlit.init(
            pricing_json=prices.name,
            disable_metrics=True,
            capture_message_content=False,
            disabled_instrumentors=[known for known in MODULE_NAME_MAP if known != "openai"],
        )


def main(name: str, order: str, undo: str) -> None:
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    faults.strict(True)
    exporter, provider, rows = InMemorySpanExporter(), TracerProvider(), Rows()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    on, off = other(name, provider, exporter)
    import openai

    steps = []
    with Gateway() as gateway:
        client = openai.OpenAI(base_url=gateway.base_url, api_key="k")
        ask = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hi"}]}

        def calls(step: str) -> None:
            exporter.clear()
            rows.rows.clear()
            since = len(gateway.requests())
            with attribkit.attributed(tenant_id="acme"):
                client.chat.completions.create(**ask)
                for _ in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask):
                    pass
            spans = [
                {"name": span.name, "scope": span.instrumentation_scope.name, "attributes": dict(span.attributes or {})}
                for span in exporter.get_finished_spans()
            ]
            tenants = [request.attribution.get("tenant_id") for request in gateway.requests()[since:]]
            priced = [[row.attribution.tenant_id, row.cost.status, row.cost.reason, row.status] for row in rows.rows]
            steps.append({"step": step, "spans": spans, "requests": tenants, "rows": priced})

        start = [on, lambda: attribkit.instrument(gateways={gateway.url: "portkey"}, ledger=rows)]
        for put_on in start if order == "before" else reversed(start):
            put_on()
        calls("both")
        (off if undo == "first" else attribkit.uninstrument)()
        calls("ours" if undo == "first" else "theirs")
        (attribkit.uninstrument if undo == "first" else off)()
        calls("none")
        client.close()
    print(json.dumps(steps, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
