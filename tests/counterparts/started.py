"""Starts the real counterparts as processes of their own: found where `install.sh` put them, ready when they answer."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
INSTALLED = Path(os.environ.get("ATTRIBKIT_COUNTERPARTS") or ROOT / ".counterparts").resolve()
MASTER_KEY = "sk-of-the-counterpart-tests"


def needed(path: Path, what: str, script: str = "install.sh") -> Path:
    """Return `path`. Without it the test is skipped, but in CI it fails: there the promise is that it ran."""
    if not path.exists():
        why = f"{what} is not installed in {INSTALLED}: run tests/counterparts/{script}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: list[str],
    port: int | None,
    log: Path,
    *,
    environ: Mapping[str, str] | None = None,
    health: str | None = None,
    said: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block is left. It is ready when something listens on `port`, or answers there at the path
    `health`; without a port, when its log has what is to be `said`."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=environ,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while not (_answers(port, health) if port else said is None or said in log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{command[:3]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, health: str | None) -> bool:
    if health is not None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5):
            return True
        return False
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class LiteLLM(NamedTuple):
    """A running LiteLLM Proxy with the configuration and the callback of integrations/litellm."""

    url: str
    rows: Path
    """Where the callback writes a JSON line for each call."""


@contextlib.contextmanager
def litellm_proxy(upstream: str, folder: Path, config: Path | None = None, **environ: str) -> Iterator[LiteLLM]:
    """Start LiteLLM in front of the OpenAI-shaped `upstream`."""
    program = needed(INSTALLED / "litellm/bin/litellm", "LiteLLM Proxy", "install_large.sh")
    port, rows = free_port(), folder / "litellm-rows.jsonl"
    theirs = ("OTEL_", "PYTHON")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
    config = config or ROOT / "integrations/litellm/config.yaml"
    command = [
        str(program),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--telemetry",
        "False",
    ]
    told = {
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_BASE_URL": upstream,
        "OPENAI_API_KEY": "sk-test",
        "ATTRIBKIT_LITELLM_ROWS": str(rows),
        "PYTHONDONTWRITEBYTECODE": "1",
        **environ,
    }
    with running(command, port, folder / "litellm.log", environ={**inherited, **told}, health="/health/readiness"):
        yield LiteLLM(f"http://127.0.0.1:{port}", rows)


class ClickHouse(NamedTuple):
    """A running ClickHouse engine behind its HTTP interface."""

    url: str

    def run(self, statement: str) -> str:
        """Return what a statement answers, as text; fail with what ClickHouse says of a wrong one."""
        try:
            with urllib.request.urlopen(self.url, statement.encode(), timeout=60) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError as error:
            pytest.fail(f"{statement}\n{error.read().decode()}")

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query, numbers of any size as text."""
        form = "FORMAT JSONEachRow SETTINGS output_format_json_quote_decimals = 1"
        return [json.loads(line) for line in self.run(f"{query}\n{form}").splitlines()]

    def run_file(self, path: Path) -> list[str]:
        """Run the statements of a file and return them."""
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("--"))
        statements = [part.strip() for part in text.split(";\n") if part.strip()]
        statements = [statement.rstrip(";") for statement in statements]
        for statement in statements:
            self.run(statement)
        return statements


@contextlib.contextmanager
def clickhouse(folder: Path) -> Iterator[ClickHouse]:
    """Start the ClickHouse engine, with the tables of integrations/clickhouse."""
    python = needed(INSTALLED / "clickhouse/bin/python", "the ClickHouse engine", "install_large.sh")
    port = free_port()
    command = [str(python), str(HERE / "clickhouse_server.py"), str(folder / "clickhouse"), str(port)]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with running(command, port, folder / "clickhouse.log", environ=environ):
        engine = ClickHouse(f"http://127.0.0.1:{port}")
        engine.run_file(ROOT / "integrations/clickhouse/schema.sql")
        yield engine


@contextlib.contextmanager
def rotel_collector(folder: Path, **environ: str) -> Iterator[str]:
    """Start rotel with the settings of integrations/collector, `environ` over them, and give its OTLP/HTTP URL."""
    agent = needed(INSTALLED / "rotel/rotel/rotel-agent", "rotel")
    here = ROOT / "integrations/collector"
    lines = [line for line in (here / "rotel.env").read_text().splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines)
    settings["ROTEL_OTLP_WITH_TRACE_PROCESSOR"] = str(here / settings["ROTEL_OTLP_WITH_TRACE_PROCESSOR"])
    port = free_port()
    settings["ROTEL_OTLP_HTTP_ENDPOINT"] = f"127.0.0.1:{port}"
    settings["ROTEL_OTLP_GRPC_ENDPOINT"] = f"127.0.0.1:{free_port()}"
    told = {**os.environ, **settings, **environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with running([str(agent), "start", "--disable-batching"], port, folder / "rotel.log", environ=told):
        yield f"http://127.0.0.1:{port}"
