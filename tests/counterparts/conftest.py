"""Real counterparts: the Portkey gateway and the rotel collector, as `install.sh` puts them there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from counterparts.started import HERE, INSTALLED, free_port, needed, rotel_collector, running


@pytest.fixture(scope="session")
def _portkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    package = needed(INSTALLED / "portkey/node_modules/@portkey-ai/gateway", "the Portkey gateway")
    node = shutil.which("node")
    if node is None:
        needed(Path("/no/node"), "node, which runs the Portkey gateway,")
    port, log = free_port(), tmp_path_factory.mktemp("portkey") / "log"
    command = [str(node), "--import", str(HERE / "portkey_preload.mjs"), str(package / "build/start-server.js")]
    with running([*command, f"--port={port}", "--headless"], port, log):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def portkey_gateway(_portkey: str) -> Callable[[str], tuple[str, dict[str, str]]]:
    """Return a function: for an upstream's URL, the real Portkey gateway's URL and the headers that lead there."""

    def leading_to(upstream_url: str) -> tuple[str, dict[str, str]]:
        return _portkey, {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream_url}

    return leading_to


class Rotel:
    """A running collector, and what it has passed on."""

    def __init__(self) -> None:
        self.http_url = ""
        """OTLP over HTTP, without /v1/traces."""
        self._received: list[tuple[str, bytes]] = []
        self._arrived = threading.Condition()

    def _take(self, path: str, body: bytes) -> None:
        with self._arrived:
            self._received.append((path, body))
            self._arrived.notify_all()

    def spans(self, count: int, *, seconds: float = 20) -> list[dict[str, Any]]:
        """Return the spans that came out, waiting until there are `count`: name, attributes, trace and span id."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._spans()) >= count, seconds)
            return self._spans()

    def _spans(self) -> list[dict[str, Any]]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for path, body in self._received:
            if path != "/v1/traces":
                continue
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += [
                        {
                            "name": span.name,
                            "scope": scope.scope.name,
                            "trace_id": span.trace_id.hex(),
                            "span_id": span.span_id.hex(),
                            "attributes": {item.key: _value(item.value) for item in span.attributes},
                        }
                        for span in scope.spans
                    ]
        return found


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


@pytest.fixture
def rotel(tmp_path: Path) -> Iterator[Rotel]:
    """Start a real collector that passes on, over OTLP, all that it is sent."""
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    collector = Rotel()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            collector._take(self.path, body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    receiver.RequestHandlerClass = Receiver
    serving = threading.Thread(target=receiver.serve_forever, daemon=True)
    serving.start()
    settings = {
        "ROTEL_EXPORTER": "otlp",
        "ROTEL_OTLP_EXPORTER_PROTOCOL": "http",
        "ROTEL_OTLP_EXPORTER_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
    }
    try:
        with rotel_collector(tmp_path, **settings) as url:
            collector.http_url = url
            yield collector
    finally:
        receiver.shutdown()
        receiver.server_close()
        serving.join()
