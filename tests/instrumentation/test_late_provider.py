"""An app may set its tracer provider after `instrument()`: every span in scope carries the attribution all the same."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import attribkit
report = attribkit.instrument(ledger=None)
from opentelemetry.trace import get_tracer, set_tracer_provider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
set_tracer_provider(provider)

@attribkit.entrypoint("triage", tenant_id="tenant")
def handle(tenant):
    with get_tracer("app").start_as_current_span("step"):
        pass

handle("acme")
before = provider._active_span_processor._span_processors
attribkit.uninstrument()
with attribkit.attributed(tenant_id="globex"), get_tracer("app").start_as_current_span("after"):
    pass
for span in exporter.get_finished_spans():
    print(span.name, span.attributes.get("attribkit.tenant_id"))
print(len(before), len(provider._active_span_processor._span_processors))
"""


def test_a_provider_that_is_set_later() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "step acme",
        "invoke_workflow triage acme",
        "after None",
        "2 1",
    ], done.stderr
