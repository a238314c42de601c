"""Items of the queues of threads: each call goes out in the scope in which its item was put."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import attribkit
from attribkit import attributed

pytest.importorskip("openai")

Call = Callable[[str], Any]
JOBS = tuple(f"{tenant} {n}" for n in range(2) for tenant in ("acme", "globex", "none"))


def on_wire(observed: Any) -> dict[str, str | None]:
    """Return which tenant each prompt went out for."""
    found = {}
    for request in observed.requests():
        metadata = dict(request.headers).get("x-portkey-metadata", "{}")
        prompt = json.loads(request.body)["messages"][0]["content"]
        found[prompt] = json.loads(metadata).get("tenant_id")
    return found


def right(*prompts: str) -> dict[str, str | None]:
    return {prompt: (None if prompt.startswith("none") else prompt.split()[0]) for prompt in prompts}


def caller_of(observed: Any) -> Call:
    client = observed.client(max_retries=0)

    def call(prompt: str) -> None:
        client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": prompt}])

    return call


def put_all(into: Any, item: Callable[[str], Any] = lambda prompt: prompt) -> None:
    for prompt in JOBS:
        tenant = prompt.split()[0]
        with attributed(tenant_id=None if tenant == "none" else tenant):
            into.put(item(prompt))


def until_none(items: Any, call: Call) -> None:
    while (item := items.get()) is not None:
        call(item)


def by_iter(items: Any, call: Call) -> None:
    for item in iter(items.get, None):
        call(item)


def polling(items: Any, call: Call) -> None:
    while True:
        try:
            item = items.get(timeout=0.01)
        except queue.Empty:
            continue
        if item is None:
            return
        call(item)


def nowait(items: Any, call: Call) -> None:
    while True:
        try:
            item = items.get_nowait()
        except queue.Empty:
            threading.Event().wait(0.001)
        else:
            if item is None:
                break
            call(item)


def on_pool(items: Any, call: Call) -> None:
    with ThreadPoolExecutor(2) as pool:
        while True:
            item = items.get()
            if item is None:
                return
            pool.submit(attribkit.carry(call), item)


@pytest.mark.parametrize("kind", [queue.Queue, queue.SimpleQueue], ids=lambda each: each.__name__)
@pytest.mark.parametrize("worker", [until_none, by_iter, polling, nowait, on_pool], ids=lambda each: each.__name__)
def test_a_worker_older_than_the_scopes(observe: Any, kind: Any, worker: Any) -> None:
    observed = observe()
    call = caller_of(observed)
    items = getattr(queue, kind.__name__)()
    threads = [threading.Thread(target=worker, args=(items, call)) for _ in range(2)]
    for thread in threads:
        thread.start()
    put_all(items)
    for _ in threads:
        items.put(None)
    for thread in threads:
        thread.join()
    assert on_wire(observed) == right(*JOBS)


def test_a_worker_in_a_thread_class_and_on_a_pool(observe: Any) -> None:
    observed = observe()
    call = caller_of(observed)

    class Worker(threading.Thread):
        def run(self) -> None:
            items.join()
            while (item := items.get()) is not None:
                call(item)
                items.task_done()

    items: queue.Queue[Any] = queue.Queue()
    thread = Worker()
    thread.start()
    put_all(items)
    items.put(None)
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pooled = pool.submit(until_none, items, call)
        put_all(items, lambda prompt: f"{prompt} pooled")
        items.put(None)
        pooled.result()
        pool.submit(call, "none on the same thread").result()
    assert on_wire(observed) == right(*JOBS, *(f"{job} pooled" for job in JOBS), "none on the same thread")


def test_a_priority_queue_and_jobs_of_all_kinds(observe: Any) -> None:
    observed = observe()
    call = caller_of(observed)
    items: queue.PriorityQueue[Any] = queue.PriorityQueue()

    class Job:
        def __init__(self, prompt: str) -> None:
            self.prompt = prompt

        def __call__(self) -> None:
            call(self.prompt)

    def work() -> None:
        while True:
            _, _, job = items.get()
            if job is None:
                break
            job() if callable(job) else call(job["prompt"])

    thread = threading.Thread(target=work)
    thread.start()
    kinds = (Job, lambda prompt: {"prompt": prompt}, lambda prompt: lambda: call(prompt))
    prompts = []
    for n, kind in enumerate(kinds):
        for tenant in ("acme", "globex"):
            prompts.append(f"{tenant} {n}")
            with attributed(tenant_id=tenant):
                items.put((-n, len(prompts), kind(prompts[-1])))
    items.put((9, 9, None))
    thread.join()
    assert on_wire(observed) == right(*prompts)


def test_one_string_of_two_tenants(observe: Any) -> None:
    """The same object twice: a line keeps its order; where order is not certain, nobody's."""
    observe()
    for items, expected in ((queue.Queue(), ["acme", "globex"]), (queue.PriorityQueue(), [None, None])):
        found = []
        for tenant in ("acme", "globex"):
            with attributed(tenant_id=tenant):
                items.put("again")
        while not items.empty():
            items.get()
            found.append(attribkit.current().tenant_id)
        assert not attribkit.current()
        assert found == expected


def test_a_queue_that_was_cleared_by_hand(observe: Any) -> None:
    observe()
    items: queue.Queue[Any] = queue.Queue()
    for round_ in range(3):
        with attributed(tenant_id="acme"):
            items.put("job")
        items.queue.clear()
        items.put("job") if round_ == 2 else None
    for _ in range(1):
        items.get()
        assert attribkit.current().tenant_id is None


def test_what_did_not_get_in_leaves_nothing(observe: Any) -> None:
    observe()
    items: queue.Queue[Any] = queue.Queue(maxsize=1)
    items.put("first")
    with attributed(tenant_id="acme"), pytest.raises(queue.Full):
        items.put("second", timeout=0.01)
    items.get()
    items.put("second")
    while not items.empty():
        items.get()
        assert attribkit.current().tenant_id is None


def test_a_bridge_to_a_loop(observe: Any) -> None:
    observed = observe()
    call = caller_of(observed)
    source: queue.Queue[Any] = queue.Queue()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sink: asyncio.Queue[Any] = asyncio.Queue()

        def pump() -> None:
            for item in iter(source.get, None):
                loop.call_soon_threadsafe(sink.put_nowait, item)
            loop.call_soon_threadsafe(sink.put_nowait, None)

        threading.Thread(target=pump).start()
        while (item := await sink.get()) is not None:
            await asyncio.to_thread(call, item)

    put_all(source)
    source.put(None)
    asyncio.run(main())
    assert on_wire(observed) == right(*JOBS)


def test_simple_queue_stays_what_it_was(observe: Any) -> None:
    before, kind = queue.SimpleQueue(), queue.SimpleQueue
    observe()
    after: Any = queue.SimpleQueue()
    assert isinstance(before, queue.SimpleQueue) and isinstance(after, kind)
    assert type(ThreadPoolExecutor(1)._work_queue) is kind
    assert (type(after).__name__, type(after).__module__) == (kind.__name__, "queue")
    with pytest.raises(queue.Empty):
        after.get(timeout=0.001)
    with pytest.raises(TypeError):
        after.put()

    class Mine(queue.SimpleQueue):  # type: ignore[misc]
        def put(self, item: Any, *more: Any) -> None:
            super().put([item], *more)

    mine = Mine()
    mine.put(1)
    assert mine.get() == [1] and isinstance(mine, kind)
    attribkit.uninstrument()
    assert queue.SimpleQueue is kind
    with attributed(tenant_id="acme"):
        after.put("x")
    assert after.get_nowait() == "x" and not attribkit.current()


def test_the_hop_can_be_turned_off(observe: Any) -> None:
    kind, get = queue.SimpleQueue, queue.Queue.get
    observe(hops={"queues": False})
    assert queue.SimpleQueue is kind and queue.Queue.get is get
    items: queue.Queue[Any] = queue.Queue()
    with attributed(tenant_id="acme"):
        items.put("x")
    items.get()
    assert not attribkit.current()
