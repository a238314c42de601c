"""Starts the real counterparts as processes of their own: found where `install.sh` put them, ready when they answer."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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
    command: list[str], port: int, log: Path, *, environ: Mapping[str, str] | None = None, health: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block is left. It is ready when something listens on `port`, or answers at `health`."""
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
        while not _answers(port, health):
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
def litellm_proxy(upstream: str, folder: Path, **environ: str) -> Iterator[LiteLLM]:
    """Start LiteLLM in front of the OpenAI-shaped `upstream`."""
    program = needed(INSTALLED / "litellm/bin/litellm", "LiteLLM Proxy", "install_large.sh")
    port, rows = free_port(), folder / "litellm-rows.jsonl"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    config = ROOT / "integrations/litellm/config.yaml"
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
