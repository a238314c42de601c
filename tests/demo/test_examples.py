"""Each example runs as it stands, against the loopback gateway."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from attribkit.testing import Gateway

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, directory: Path, gateway: Gateway) -> str:
    environment = {**os.environ, "OPENAI_BASE_URL": gateway.base_url, "OPENAI_API_KEY": "none"}
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_quickstart_is_short_and_runs(tmp_path: Path) -> None:
    code = (EXAMPLES / "quickstart.py").read_text().split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) < 15
    with Gateway() as gateway:
        said = run("quickstart.py", tmp_path, gateway)
        told = [request.attribution for request in gateway.requests()]
    assert [line.split()[0] for line in said.splitlines()] == ["acme", "globex"]
    assert [(fields["tenant_id"], fields["workflow"]) for fields in told] == [
        ("acme", "support"),
        ("globex", "support"),
    ]
    assert (tmp_path / "attribkit.db").exists()


def test_support_agent_runs(tmp_path: Path) -> None:
    with Gateway() as gateway:
        said = run("support_agent.py", tmp_path, gateway)
        told = [request.attribution for request in gateway.requests()]
    assert {(fields["tenant_id"], fields["workflow"]) for fields in told} == {("acme", "support")}
    assert len(told) == 8
    assert "acme support gpt-4.1-mini-2025-04-14 1 calls 0.00" in said
