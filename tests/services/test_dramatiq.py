"""Dramatiq with a real worker's threads over its in-memory broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import Context
from typing import Any

import pytest
from services.serving import KEY, wait_for

import attribkit

dramatiq = pytest.importorskip("dramatiq")


@pytest.fixture
def broker() -> Iterator[Any]:
    from dramatiq.brokers.stub import StubBroker
    from dramatiq.middleware import AsyncIO

    broker = StubBroker(middleware=[AsyncIO(), *(each() for each in dramatiq.middleware.default_middleware[3:])])
    broker.emit_after("process_boot")
    yield broker
    broker.flush_all()
    broker.close()


@contextlib.contextmanager
def working(broker: Any) -> Iterator[None]:
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=2)
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def drained(broker: Any) -> None:
    broker.join("default", timeout=20_000)


def test_messages_retries_pipelines_and_groups(broker: Any) -> None:
    attribkit.instrument(ledger=None, carrier_key=KEY)
    seen: list[tuple[str, str | None]] = []
    failed: list[str] = []

    @dramatiq.actor(broker=broker)
    def look(label: str, *_: Any) -> str:
        seen.append((label, attribkit.current().tenant_id))
        return label

    @dramatiq.actor(broker=broker)
    async def look_async(label: str) -> None:
        seen.append((label, attribkit.current().tenant_id))

    @dramatiq.actor(broker=broker, max_retries=2, min_backoff=1, max_backoff=5)
    def failing(label: str) -> None:
        seen.append((label, attribkit.current().tenant_id))
        failed.append(label)
        if failed.count(label) < 3:
            raise ValueError("as it was told")

    @dramatiq.actor(broker=broker)
    def spreading(label: str) -> None:
        look.send(label)

    with attribkit.attributed(tenant_id="whoever started it"), working(broker):
        for tenant in ("acme", "globex"):
            with attribkit.attributed(tenant_id=tenant):
                look.send(tenant)
                look.send_with_options(args=(tenant,), delay=10)
                look_async.send(tenant)
                failing.send(tenant)
                spreading.send(tenant)
                dramatiq.pipeline([look.message(tenant), look.message()], broker=broker).run()
                dramatiq.group([look.message(tenant), look.message(tenant)], broker=broker).run()
        Context().run(look.send, "nobody")
        Context().run(look.send_with_options, args=("forged",), attribkit="attribkit.tenant_id=evil")
        wait_for(lambda: len(seen) >= 24)
        drained(broker)
    counts = {each: seen.count(each) for each in seen}
    assert counts == {("acme", "acme"): 11, ("globex", "globex"): 11, ("nobody", None): 1, ("forged", None): 1}


def test_off_with_its_group(broker: Any) -> None:
    attribkit.instrument(ledger=None, hops={"dramatiq": False})
    seen = []

    @dramatiq.actor(broker=broker)
    def look() -> None:
        seen.append(attribkit.current().as_dict())

    with working(broker):
        with attribkit.attributed(tenant_id="acme"):
            look.send()
        drained(broker)
    assert seen == [{}]
