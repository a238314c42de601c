"""Each example runs as it stands, against the loopback gateway."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from attribkit.testing import Gateway

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, directory: Path, gateway: Gateway, *, warnings: str = "error") -> str:
    environment = {**os.environ, "OPENAI_BASE_URL": gateway.base_url, "OPENAI_API_KEY": "none"}
    ended = subprocess.run(
        [sys.executable, "-W", warnings, str(EXAMPLES / name)],
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


def test_openai_agents_runs(tmp_path: Path) -> None:
    pytest.importorskip("agents")
    with Gateway() as gateway:
        said = run("openai_agents.py", tmp_path, gateway, warnings="ignore")
        told = [request.attribution for request in gateway.requests()]
    assert [line.split()[0] for line in said.splitlines()] == ["acme", "globex"]
    assert sorted(fields["tenant_id"] for fields in told) == ["acme", "acme", "globex", "globex"]


def test_portkey_tiers_runs(tmp_path: Path) -> None:
    with Gateway() as gateway:
        run("portkey_tiers.py", tmp_path, gateway)
        told = [(fields["tenant_id"], fields["tier"]) for fields in (one.attribution for one in gateway.requests())]
    assert told == [("acme", "gold"), ("globex", "standard")]


def test_assistants_to_responses_compares_costs(tmp_path: Path) -> None:
    with Gateway() as gateway:
        said = run("assistants_to_responses.py", tmp_path, gateway)
        spent = sum(row.cost_usd for row in gateway.spend(["feature"]))
    rows = [line.split() for line in said.splitlines()]
    assert [row[:3] for row in rows] == [["assistants", "2", "calls"], ["responses", "2", "calls"]]
    assert abs(sum(Decimal(row[3]) for row in rows) - spent) < Decimal("0.000002")


def test_langgraph_litellm_runs(tmp_path: Path) -> None:
    with Gateway() as gateway:
        run("langgraph_litellm.py", tmp_path, gateway, warnings="default")
        requests = gateway.requests()
    assert sorted(one.header("x-litellm-customer-id") for one in requests) == ["ann", "ann", "bob", "bob"]
    for one in requests:
        assert f"tenant_id:{one.attribution['tenant_id']}" in one.header("x-litellm-tags")
        assert one.header("x-litellm-call-id")


def test_fastapi_and_celery_run(tmp_path: Path) -> None:
    with Gateway() as gateway:
        said = run("fastapi_celery_agent.py", tmp_path, gateway)
        told = [request.attribution for request in gateway.requests()]
    assert sorted(fields["tenant_id"] for fields in told) == ["acme", "acme", "globex", "globex"]
    lines = said.splitlines()
    assert len(lines) == 4 and all(" ticket " in line and "1 calls 0.0" in line for line in lines)
