"""RQ with real workers, forking and simple, over a real Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from budgets.servers import found, redis_server
from services.serving import KEY

import attribkit

rq = pytest.importorskip("rq")
redis = pytest.importorskip("redis")
pytestmark = pytest.mark.counterpart
HERE = Path(__file__).parent


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    if found("redis") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed: run tests/counterparts/install.sh")
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path) as url:
        yield url


@pytest.mark.parametrize("worker", ["rq.Worker", "rq.SimpleWorker"])
def test_every_way_of_enqueueing(worker: str, server: str, tmp_path: Path, observe: Any) -> None:
    observed = observe(carrier_key=KEY)
    shared = {"theirs": "1"}
    expected: dict[str, int] = {"nobody": 1, "forged": 1}
    with redis.Redis.from_url(server) as connection:
        queue = rq.Queue(connection=connection)
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant, workflow_id=f"w-{tenant}"):
                first = queue.enqueue("rq_program.ask", tenant, meta=shared)
                queue.enqueue("rq_program.ask", tenant, depends_on=first)
                queue.enqueue_call("rq_program.ask", args=(tenant,))
                queue.enqueue_many([rq.Queue.prepare_data("rq_program.ask", args=(tenant,))])
                queue.enqueue("rq_program.spread", tenant)
                queue.enqueue("rq_program.fail_once", tenant, retry=rq.Retry(max=1))
            expected[tenant] = 1 + 1 + 1 + 1 + 1 + 2
            expected[f"{tenant}-inner"] = 1
        Context().run(queue.enqueue, "rq_program.ask", "nobody")
        with attribkit.attributed(tenant_id="acme"):
            forged = {"attribkit": queue.enqueue("rq_program.spread", "acme", at_front=False).meta["attribkit"]}
        expected["acme"] += 1
        expected["acme-inner"] += 1
        Context().run(queue.enqueue, "rq_program.ask", "forged", meta=forged)  # the carrier of another function's job
        assert shared == {"theirs": "1"} and first.meta["theirs"] == "1"
        environ = {
            **os.environ,
            "GATEWAY_URL": observed.gateway.url,
            "LEDGER": f"sqlite:///{tmp_path}/ledger.db",
            "REDIS_URL": server,
            "KEY": KEY,
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
        }
        command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", server, "--worker-class", worker]
        command += ["--config", "rq_program"]  # what turns attribkit on: jobs' own modules are imported with the first
        with attribkit.attributed(tenant_id="whoever started it"):
            ran = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    told: dict[str, int] = {}
    for request in observed.requests():
        question = request.json["messages"][-1]["content"]
        tenant = request.attribution.get("tenant_id", question)
        assert tenant == ("inner" if question.endswith("-inner") else question), ran.stderr
        told[question] = told.get(question, 0) + 1
        assert ("tenant_id" in request.attribution) == (question not in ("nobody", "forged"))
    assert told == expected, ran.stderr


def test_at_once_in_the_callers_process(server: str) -> None:
    attribkit.instrument(ledger=None)
    with redis.Redis.from_url(server) as connection:
        queue = rq.Queue(connection=connection, is_async=False)
        with attribkit.attributed(tenant_id="acme"):
            assert queue.enqueue(tenant_in_force).return_value() == "acme"
        assert queue.enqueue(tenant_in_force).return_value() is None


def tenant_in_force() -> str | None:
    return attribkit.current().tenant_id
