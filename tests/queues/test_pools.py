"""Queues that are pools: what one tenant put back never makes another's work, or nobody's, its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import Any

import pytest

import attribkit
from attribkit import attributed


def tenant() -> str | None:
    return attribkit.current().tenant_id


class Client:
    def close(self) -> None: ...


class Bare:
    """A client that nothing tells from a job."""


async def use(pool: asyncio.Queue[Any], make: Any, times: int = 1) -> list[str | None]:
    """Take something from a pool that grows, use it in a loop, and put it back."""
    found = []
    for _ in range(times):
        try:
            taken = pool.get_nowait()
        except asyncio.QueueEmpty:
            taken = make()
        await asyncio.sleep(0)
        found.append(tenant())
        pool.put_nowait(taken)
    return found


async def wait_and_use(pool: asyncio.Queue[Any]) -> str | None:
    taken = await pool.get()
    try:
        await asyncio.sleep(0)
        return tenant()
    finally:
        pool.put_nowait(taken)


MAKERS = {
    "client": Client,
    "bare": Bare,
    "key": lambda: "sk-1" + "x",
    "tuple": lambda: (Client(), 1.5),
    "dict": lambda: {"url": "x"},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_pool_that_grew_in_one_tenants_scope(observe: Any, make: Any) -> None:
    observe()

    async def main() -> None:
        pool: asyncio.Queue[Any] = asyncio.Queue()
        with attributed(tenant_id="acme"):
            assert await use(pool, make, 2) == ["acme"] * 2
        assert await use(pool, make, 2) == [None] * 2
        with attributed(tenant_id="globex"):
            assert await use(pool, make, 2) == ["globex"] * 2
            inner = await asyncio.gather(use(pool, make, 2), use(pool, make, 2), wait_and_use(pool))
        assert inner[0] == inner[1] == ["globex"] * 2 and inner[2] == "globex"
        assert await asyncio.create_task(wait_and_use(pool)) is None

    asyncio.run(main())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_pool_that_was_filled_at_the_start(observe: Any, make: Any) -> None:
    observe()

    async def main() -> None:
        pool: asyncio.Queue[Any] = asyncio.Queue()
        pool.put_nowait(make())
        for name in ("acme", "globex", None, "acme"):
            with attributed(tenant_id=name):
                assert await asyncio.create_task(wait_and_use(pool)) == name
                assert await use(pool, make, 2) == [name] * 2
                assert await asyncio.gather(*[use(pool, make) for _ in range(3)]) == [[name]] * 3

    asyncio.run(main())


def test_a_pool_that_grows_by_count_and_is_never_tried(observe: Any) -> None:
    """The first who puts a client in never took one: nothing but the client tells a pool from a line of work."""
    observe()

    async def main() -> None:
        pool: asyncio.Queue[Any] = asyncio.Queue()
        for make in (Client, lambda: (Client(), 1)):
            with attributed(tenant_id="acme"):
                pool.put_nowait(make())
            with attributed(tenant_id="globex"):
                assert await asyncio.create_task(wait_and_use(pool)) == "globex"
            assert await asyncio.create_task(wait_and_use(pool)) is None
            pool.get_nowait()
        with attributed(tenant_id="acme"):
            pool.put_nowait(Bare())
        with attributed(tenant_id="globex"):
            assert await asyncio.create_task(wait_and_use(pool)) in ("globex", None)

    asyncio.run(main())


@pytest.mark.parametrize("kind", [queue.LifoQueue, asyncio.LifoQueue], ids=["threads", "asyncio"])
def test_a_stack_makes_no_claim_where_it_is_put_back(observe: Any, kind: Any) -> None:
    observe()
    pool = kind()
    with attributed(tenant_id="acme"):
        pool.put_nowait("connection")
    for _ in range(2):
        pool.put_nowait(pool.get_nowait())
        assert tenant() is None
    with attributed(tenant_id="acme"):
        pool.put_nowait("another")
    for _ in range(2):
        taken = pool.get_nowait()
        assert tenant() is None
        back = lambda taken=taken: pool.put_nowait(taken)  # noqa: E731
        back()


@pytest.mark.parametrize("kind", [queue.LifoQueue, asyncio.LifoQueue], ids=["threads", "asyncio"])
def test_a_stack_of_keys_that_others_put_back(observe: Any, kind: Any) -> None:
    """Who takes a key in a loop and who puts it back are two: what has come out before is no work."""
    observe()
    keys = kind()
    for key in ("key one", {"key": "two"}, Bare()):
        keys.put_nowait(key)
    lent: list[Any] = []

    def take() -> list[str | None]:
        found = []
        while not keys.empty():
            lent.append(keys.get_nowait())
            found.append(tenant())
        return found

    def take_each() -> list[str | None]:
        found = []
        while True:
            try:
                key = keys.get_nowait()
            except (queue.Empty, asyncio.QueueEmpty):
                return found
            found.append(tenant())
            use(key)

    def use(key: Any) -> None:
        lent.append(key)

    for _ in range(3):
        assert take() == [None] * 3
        for number in range(3):
            with attributed(tenant_id=("acme", "globex", "acme")[number]):
                keys.put_nowait(lent.pop())
        assert take_each() == [None] * 3
        with attributed(tenant_id="acme"):
            while lent:
                keys.put_nowait(lent.pop())


@pytest.mark.parametrize("kind", [queue.LifoQueue, asyncio.LifoQueue], ids=["threads", "asyncio"])
def test_a_stack_of_jobs(observe: Any, kind: Any) -> None:
    observe()
    jobs = kind()
    for owner in ("acme", "none", "globex"):
        with contextlib.nullcontext() if owner == "none" else attributed(tenant_id=owner):
            jobs.put_nowait(f"{owner} job")

    def work() -> list[str]:
        found = []
        while not jobs.empty():
            job = jobs.get_nowait()
            found.append(f"{job}: {tenant()}")
        return found

    assert work() == ["globex job: globex", "none job: None", "acme job: acme"]
    assert tenant() is None


def test_a_helper_that_takes_makes_nobody_a_consumer(observe: Any) -> None:
    observe()
    items: queue.Queue[Any] = queue.Queue()

    def acquire() -> Any:
        taken = items.get()
        return [taken]

    def work() -> None:
        with attributed(tenant_id="globex"):
            acquire()
            found.append(tenant())

    found: list[str | None] = []
    for _ in range(2):
        with attributed(tenant_id="acme"):
            items.put("something")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    acquire()
    assert [*found, tenant()] == ["globex", None]


def test_slots_and_end_marks_say_nothing(observe: Any) -> None:
    observe()
    slots: queue.Queue[Any] = queue.Queue()
    with attributed(tenant_id="acme"):
        for slot in (None, True, 3, 0.5):
            slots.put(slot)
    while not slots.empty():
        slots.get()
        assert tenant() is None


@pytest.mark.parametrize("suite", ["test.test_queue", "test.test_asyncio.test_queues"])
def test_the_queues_own_tests(observe: Any, suite: str) -> None:
    import importlib
    import unittest

    try:
        module = importlib.import_module(suite)
    except ImportError:
        pytest.skip("this Python comes without its tests")
    observe()
    slow = ("test_many_threads", "test_put_timeout", "test_get_timeout", "test_references")
    every = unittest.defaultTestLoader.loadTestsFromModule(module)
    tests = [t for case in every for t in case if not t.id().rpartition(".")[2].startswith(slow)]  # type: ignore[union-attr]
    result = unittest.TestResult()
    unittest.TestSuite(tests).run(result)
    assert result.testsRun > 20
    assert [text for _, text in (*result.errors, *result.failures)] == []
