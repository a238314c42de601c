"""What the processes of one probe write down, rows and spans, as JSON lines in a directory that they share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from attribkit.calls import CallRecord

__all__ = ["Note", "Notebook", "read"]

FIELDS = ("tenant_id", "workflow_id")


class Note(NamedTuple):
    """One row or one span."""

    kind: str
    """row, cached (the row of an answer for which nothing left), or span (a span of a model call)."""
    response_id: str | None
    status: str
    tenant_id: str | None
    workflow_id: str | None


class Notebook:
    """A ledger and a span exporter in one; each process of a probe appends to a file of its own."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def _write(self, note: Note) -> None:
        path = os.path.join(self.directory, f"{os.getpid()}.jsonl")
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(note).encode() + b"\n")
        finally:
            os.close(file)

    def finished(self, record: CallRecord) -> None:
        """Take a row, as a ledger does."""
        of = record.attribution
        kind = "cached" if record.http_status is None and record.cost.status == "free" else "row"
        self._write(Note(kind, record.response_id, record.status, of.tenant_id, of.workflow_id))

    def span(self, span: Any) -> None:
        """Take a finished span; only those of model calls are written down."""
        attributes = span.attributes or {}
        if span.kind.name != "CLIENT" or "gen_ai.operation.name" not in attributes:
            return
        text = {name: value for name, value in attributes.items() if isinstance(value, str)}
        self._write(
            Note(
                "span",
                text.get("gen_ai.response.id"),
                "error" if "error.type" in attributes else "ok",
                text.get("attribkit.tenant_id"),
                text.get("attribkit.workflow_id"),
            )
        )

    def tracer_provider(self) -> Any:
        """Return a provider whose spans are taken here; None without the OpenTelemetry SDK."""
        try:
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
        except ImportError:
            return None
        notebook = self

        class Exporter(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                for span in spans:
                    notebook.span(span)
                return SpanExportResult.SUCCESS

            def shutdown(self) -> None:
                pass

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(Exporter()))
        return provider


def read(directory: Path) -> list[Note]:
    """Return everything that was written down there."""
    return [
        Note(*json.loads(line)) for path in sorted(directory.glob("*.jsonl")) for line in path.read_text().splitlines()
    ]
