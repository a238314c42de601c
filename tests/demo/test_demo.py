"""The demo, end to end: what it prints, what it promises, and that it notices when the promise is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import attribkit.demo
from attribkit.ledger import Question, open_ledger
from attribkit.testing import Gateway

PROGRAM = "from attribkit.cli.main import app; app()"


def demo(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, "demo", *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def tenants_in(rows: list[dict[str, object]]) -> set[object]:
    return {row["tenant_id"] for row in rows}


class Collector(ThreadingHTTPServer):
    """Takes spans as an OTLP collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.bodies: list[bytes] = []


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_before_and_after_on_the_loopback_gateway_with_spans(tmp_path: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
    try:
        ended = demo(tmp_path, "--json", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    finally:
        collector.shutdown()
        collector.server_close()
        thread.join()
    assert ended.returncode == 0, ended.stderr + ended.stdout
    told = json.loads(ended.stdout)
    assert told["problems"] == [] and told["gateway"] == "loopback" and told["gateway_log_agrees"] is True
    before, after = told["before"], told["after"]
    assert 0.3 < float(before["unowned_share"]) < 0.6 and tenants_in(before["rows"]) == {
        "acme",
        "globex",
        "initech",
        None,
    }
    assert float(after["unowned_share"]) == 0 and tenants_in(after["rows"]) == {"acme", "globex", "initech"}
    assert before["total"] == after["total"] and Decimal(after["total"]["cost_usd"]) > 0
    assert sum(Decimal(row["cost_usd"]) for row in after["rows"]) == Decimal(after["total"]["cost_usd"])
    assert told["ledger_rows"] == after["requests"] == after["total"]["calls"] + 2, "two calls were refused once"
    added = dict(told["example"]["headers"])
    assert json.loads(added["x-portkey-metadata"])["tenant_id"] in ("acme", "globex", "initech")
    assert "traceparent" in added

    report = subprocess.run(
        [sys.executable, "-c", PROGRAM, "report", "--by", "tenant_id,workflow", "--ledger", told["ledger"], "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    reported = {(row["tenant_id"], row["workflow"]): row["cost_usd"] for row in json.loads(report.stdout)["rows"]}
    assert reported == {(row["tenant_id"], row["workflow"]): row["cost_usd"] for row in after["rows"]}

    store = open_ledger(told["ledger"].replace("sqlite:///", f"sqlite:///{tmp_path}/"), create=False)
    try:
        assert {group.key[0] for group in store.query(Question(by=("tenant_id",)))} == {"acme", "globex", "initech"}
        calls = {row.trace_id for row in store.records(Question())}
    finally:
        store.close()

    spans = [
        span
        for body in collector.bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len([span for span in spans if span.name.startswith("chat ")]) == after["total"]["calls"]
    assert len([span for span in spans if span.name.startswith("invoke_workflow ")]) == 12
    assert {span.trace_id.hex() for span in spans} == calls
    assert told["spans_to"] == endpoint


def test_another_gateway_named_by_the_environment(tmp_path: Path) -> None:
    with Gateway() as upstream:
        ended = demo(
            tmp_path,
            "--model",
            "gpt-4.1-mini",
            "--dir",
            "kept",
            OPENAI_BASE_URL=upstream.base_url,
            OPENAI_API_KEY="sk-secret",
            ATTRIBKIT_GATEWAYS=json.dumps({upstream.url: "litellm"}),
        )
        arrived = upstream.requests()
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert "\x1b" not in ended.stdout, "plain where there is no terminal"
    assert f"48 requests to {upstream.base_url}" in ended.stdout.replace("\n", " ").replace("  ", " ")
    assert "0 without an owner, 0 for the wrong tenant" in ended.stdout
    assert "x-litellm-tags: tenant_id:" in ended.stdout
    assert "sk-secret" not in ended.stdout
    assert "attribkit report --by tenant_id,workflow --ledger sqlite:///kept/attribkit-demo.db" in ended.stdout
    assert (tmp_path / "kept" / "attribkit-demo.db").exists()
    assert {request.json["model"] for request in arrived} == {"gpt-4.1-mini"}
    assert all(request.header("authorization") == "Bearer sk-secret" for request in arrived)
    assert sum(request.header("x-litellm-tags") is not None for request in arrived) == len(arrived) // 2


def test_it_fails_when_calls_are_not_seen(tmp_path: Path) -> None:
    ended = demo(tmp_path, ATTRIBKIT_HOPS='{"openai": false, "http": false, "langchain": false}')
    assert ended.returncode == 1
    assert "98 requests left, but the ledger has 0 rows of them" in ended.stdout
    assert "does not agree with the ledger" in ended.stdout


def test_a_gateway_that_does_not_answer_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attribkit.demo.run import DemoError, run

    with Gateway() as upstream:
        upstream.behave(status=401)
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        with pytest.raises(DemoError, match=r"did not answer the agent.*401.*--model"):
            run(tmp_path)


def test_missing_libraries_are_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attribkit.demo.run import DemoError, run

    monkeypatch.delattr(attribkit.demo, "agent", raising=False)
    monkeypatch.setitem(sys.modules, "attribkit.demo.agent", None)
    with pytest.raises(DemoError, match=r"pip install 'attribkit\[demo\]'"):
        run(tmp_path)
