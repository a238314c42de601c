"""Celery with real workers: prefork, threads and solo pools behind a broker of files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from services.serving import KEY, wait_for

import attribkit

celery = pytest.importorskip("celery")
HERE = Path(__file__).parent


@contextlib.contextmanager
def worker(root: Path, gateway: Any, pool: str, key: str | None = KEY) -> Iterator[None]:
    environ = {
        **os.environ,
        "BROKER_ROOT": str(root),
        "GATEWAY_URL": gateway.url,
        "LEDGER": f"sqlite:///{root}/ledger.db",
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
    }
    if key is not None:
        environ["KEY"] = key
    command = [sys.executable, "-m", "celery", "-A", "celery_program", "worker", "-P", pool, "-c", "2", "-l", "warning"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"],
            cwd=root,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    except BaseException:
        print((root / "log").read_text())
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_way_of_sending_a_task(pool: str, tmp_path: Path, observe: Any) -> None:
    from services.file_broker import configured

    app = configured("producer", str(tmp_path))
    observed = observe(carrier_key=KEY)

    def task(name: str, *args: Any) -> Any:
        return app.signature(name, args=args)

    expected: dict[str, int] = {}
    with worker(tmp_path, observed.gateway, pool):
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant, workflow_id=f"w-{tenant}"):
                task("ask", tenant).delay()
                app.send_task("ask", [tenant], headers={"theirs": "1"})
                task("ask", tenant).apply_async(countdown=0.2)
                task("retried", tenant).delay()
                task("failing", tenant).apply_async(link_error=app.signature("ask", args=[tenant], immutable=True))
                celery.chain(task("ask", tenant), task("ask_after", tenant), task("ask_after", tenant))()
                celery.group(task("ask", tenant), task("ask", tenant))()
                celery.chord([task("ask", tenant), task("ask", tenant)])(task("ask_after", tenant))
                task("spreading", tenant).delay()
            expected[tenant] = 1 + 1 + 1 + 3 + 2 + 3 + 2 + 3 + 1
            expected[f"{tenant}-inner"] = 1
        task("ask", "nobody").delay()
        expected["nobody"] = 1
        wait_for(lambda: len(observed.requests()) >= sum(expected.values()), 60)
    told: dict[str, int] = {}
    for request in observed.requests():
        question = request.json["messages"][-1]["content"]
        tenant = request.attribution.get("tenant_id", "nobody")
        assert tenant == ("inner" if question.endswith("-inner") else question)
        assert request.attribution.get("workflow_id") == (
            None if tenant == "nobody" else f"w-{question.removesuffix('-inner')}"
        )
        told[question] = told.get(question, 0) + 1
    assert told == expected
    assert rows(tmp_path) == {"acme": 17, "globex": 17, "inner": 2, None: 1}


def rows(root: Path) -> dict[str | None, int]:
    from attribkit.ledger import Question, open_ledger

    ledger = open_ledger(f"sqlite:///{root}/ledger.db")
    try:
        return {group.key[0]: group.calls for group in ledger.query(Question(by=("tenant_id",)))}
    finally:
        ledger.close()


# -- in one process ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def thread_worker(app: Any) -> Iterator[None]:
    from celery.contrib.testing.worker import start_worker

    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=10):
        yield


def memory_app() -> Any:
    app = celery.Celery("memory", broker="memory://", backend="cache+memory://")
    app.conf.update(
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"polling_interval": 0.02},
    )
    return app


def test_a_worker_started_in_a_scope_does_not_lend_it_to_tasks() -> None:
    attribkit.instrument(ledger=None, carrier_key=KEY)
    app, seen = memory_app(), []

    @app.task(name="look", shared=False)
    def look(label: str) -> None:
        seen.append((label, attribkit.current().as_dict()))

    @app.task(name="nested", shared=False)
    def nested() -> None:
        look.apply(args=["eager"])

    @app.task(name="relaying", shared=False, bind=True)
    def relaying(self: Any) -> None:
        Context().run(look.apply_async, ["a carrier of another task"], headers=dict(self.request.headers))

    with attribkit.attributed(tenant_id="whoever started it"):
        with thread_worker(app):
            Context().run(look.delay, "nobody")
            with attribkit.attributed(tenant_id="acme"):
                look.delay("acme")
                nested.delay()
                relaying.delay()
            Context().run(look.apply_async, ["forged"], headers={"attribkit": "attribkit.tenant_id=evil"})
            Context().run(look.delay, "after")
            wait_for(lambda: len(seen) == 6)
    assert dict(seen) == {
        "nobody": {},
        "acme": {"tenant_id": "acme"},
        "eager": {"tenant_id": "acme"},
        "forged": {},
        "a carrier of another task": {},
        "after": {},
    }


def test_eager_mode_runs_in_the_callers_scope() -> None:
    attribkit.instrument(ledger=None)
    app = memory_app()
    app.conf.task_always_eager = True

    @app.task(name="look", shared=False)
    def look() -> dict[str, str]:
        return attribkit.current().as_dict()

    with attribkit.attributed(tenant_id="acme"):
        assert look.delay().get() == {"tenant_id": "acme"}
        assert look() == {"tenant_id": "acme"}
    assert look.delay().get() == {}


def test_off_with_its_group() -> None:
    report = attribkit.instrument(ledger=None, hops={"celery": False})
    assert "celery" in {patch.group for patch in report.of("off")}
    app = memory_app()
    seen = []

    @app.task(name="look", shared=False)
    def look() -> None:
        seen.append(attribkit.current().as_dict())

    with thread_worker(app):
        with attribkit.attributed(tenant_id="acme"):
            look.delay()
        wait_for(lambda: len(seen) == 1)
    assert seen == [{}]
