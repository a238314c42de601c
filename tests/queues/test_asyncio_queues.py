"""Items of asyncio queues: each call goes out in the scope in which its item was put."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine
from queue import Queue
from typing import Any

import pytest

from attribkit import attributed

pytest.importorskip("openai")

import openai

Call = Callable[[str], Coroutine[Any, Any, str]]
TENANTS = ("acme", "globex")


def on_wire(observed: Any) -> dict[str, str | None]:
    """Return which tenant each prompt went out for."""
    found = {}
    for request in observed.requests():
        metadata = dict(request.headers).get("x-portkey-metadata", "{}")
        prompt = json.loads(request.body)["messages"][0]["content"]
        found[prompt] = json.loads(metadata).get("tenant_id")
    return found


def right(*prompts: str) -> dict[str, str | None]:
    """Return what has to be on the wire for prompts that begin with their tenant's name."""
    return {prompt: (None if prompt.startswith("none") else prompt.split()[0]) for prompt in prompts}


def serve(observed: Any, program: Callable[[Call], Coroutine[Any, Any, None]]) -> dict[str, str | None]:
    """Run a program on the loopback gateway; return which tenant each prompt went out for."""

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=observed.base_url, max_retries=0) as client:

            async def call(prompt: str) -> str:
                messages: Any = [{"role": "user", "content": prompt}]
                reply = await client.chat.completions.create(model="gpt-5-mini", messages=messages)
                return str(reply.choices[0].message.content)

            await program(call)

    asyncio.run(main())
    return on_wire(observed)


JOBS = tuple(f"{tenant} {n}" for n in range(2) for tenant in (*TENANTS, "none"))


async def put_all(queue: asyncio.Queue[Any], item: Callable[[str], Any] = lambda prompt: prompt) -> None:
    """Put each job in its tenant's scope, and wait until all are done."""
    for prompt in JOBS:
        tenant = prompt.split()[0]
        if tenant == "none":
            await queue.put(item(prompt))
        else:
            with attributed(tenant_id=tenant):
                await queue.put(item(prompt))
    await queue.join()


async def plain(queue: asyncio.Queue[Any], call: Call) -> None:
    while True:
        item = await queue.get()
        try:
            await call(item)
        finally:
            queue.task_done()


async def in_time(queue: asyncio.Queue[Any], call: Call) -> None:
    while True:
        try:
            item = await asyncio.wait_for(queue.get(), 5)
        except TimeoutError:
            continue
        await call(item)
        queue.task_done()


async def in_timeout(queue: asyncio.Queue[Any], call: Call) -> None:
    while True:
        async with asyncio.timeout(5):
            item = await queue.get()
        await call(item)
        queue.task_done()


async def task_for_each(queue: asyncio.Queue[Any], call: Call) -> None:
    async def handle(prompt: str) -> None:
        await asyncio.sleep(0.005)
        await call(prompt)
        queue.task_done()

    tasks = set()
    while True:
        item = await asyncio.wait_for(queue.get(), 5)
        task = asyncio.create_task(handle(item))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def direct(queue: asyncio.Queue[Any], call: Call) -> None:
    while True:
        await call(await queue.get())
        queue.task_done()


async def nowait_first(queue: asyncio.Queue[Any], call: Call) -> None:
    while True:
        try:
            item = queue.get_nowait()
        except asyncio.QueueEmpty:
            item = await queue.get()
        await call(item)
        queue.task_done()


async def by_generator(queue: asyncio.Queue[Any], call: Call) -> None:
    async def items() -> Any:
        while True:
            yield await queue.get()

    async for item in items():
        await call(item)
        queue.task_done()


async def by_getter_task(queue: asyncio.Queue[Any], call: Call) -> None:
    while True:
        item = await asyncio.create_task(queue.get())
        await call(item)
        queue.task_done()


async def with_stop(queue: asyncio.Queue[Any], call: Call) -> None:
    stopped = asyncio.create_task(asyncio.Event().wait())
    try:
        while True:
            getter = asyncio.create_task(queue.get())
            done, _ = await asyncio.wait({getter, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if getter in done:
                await call(getter.result())
                queue.task_done()
    finally:
        stopped.cancel()


async def from_thread(queue: asyncio.Queue[Any], call: Call) -> None:
    while True:
        await asyncio.to_thread(lambda: None)
        item = await queue.get()
        await call(item)
        queue.task_done()


async def by_thread(queue: Any, call: Call) -> None:
    while True:
        item = await asyncio.to_thread(queue.get)
        await call(item)
        queue.task_done()


async def by_executor(queue: Any, call: Call) -> None:
    loop = asyncio.get_running_loop()
    while True:
        prompt = await loop.run_in_executor(None, queue.get, True, 5)
        await call(prompt)
        queue.task_done()


WORKERS = (plain, in_time, in_timeout, task_for_each, direct, nowait_first, by_generator, from_thread)


@pytest.mark.parametrize("worker", [*WORKERS, by_getter_task, with_stop], ids=lambda each: each.__name__)
@pytest.mark.parametrize("count", [1, 3])
def test_a_worker_older_than_the_scopes(observe: Any, worker: Any, count: int) -> None:
    async def program(call: Call) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        tasks = [asyncio.create_task(worker(queue, call)) for _ in range(count)]
        await asyncio.sleep(0)
        await put_all(queue)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert serve(observe(), program) == right(*JOBS)


@pytest.mark.parametrize("worker", WORKERS, ids=lambda each: each.__name__)
def test_a_worker_that_was_started_in_another_tenants_scope(observe: Any, worker: Any) -> None:
    jobs = [job for job in JOBS if not job.startswith("none")]

    async def program(call: Call) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        with attributed(tenant_id="first"):
            task = asyncio.create_task(worker(queue, call))
        await put_all(queue)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    found = serve(observe(), program)
    assert {job: found[job] for job in jobs} == right(*jobs)


class Batcher:
    """The usual micro-batcher: its worker is started by whoever comes first."""

    def __init__(self, flush: Callable[[list[str]], Coroutine[Any, Any, Any]]) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self.flush = flush

    async def ask(self, prompt: str) -> Any:
        if self.task is None:
            self.task = asyncio.create_task(self.run())
        answer = asyncio.get_running_loop().create_future()
        await self.queue.put((prompt, answer))
        return await answer

    async def run(self) -> None:
        while True:
            batch = [await self.queue.get()]
            while len(batch) < 3:
                try:
                    batch.append(await asyncio.wait_for(self.queue.get(), 0.02))
                except TimeoutError:
                    break
            reply = await self.flush([prompt for prompt, _ in batch])
            for _, answer in batch:
                answer.set_result(reply)


class Collected(Batcher):
    """One that gathers in a method of its own, and keeps prompts and answers apart."""

    async def gathered(self) -> tuple[list[str], list[Any]]:
        prompts, answers = [], []
        prompt, answer = await self.queue.get()
        prompts.append(prompt)
        answers.append(answer)
        while len(prompts) < 3 and not self.queue.empty():
            prompt, answer = self.queue.get_nowait()
            prompts.append(prompt)
            answers.append(answer)
        return prompts, answers

    async def run(self) -> None:
        while True:
            prompts, answers = await self.gathered()
            reply = await self.flush(prompts)
            for answer in answers:
                answer.set_result(reply)


class Drained(Batcher):
    """One that takes all there is."""

    async def run(self) -> None:
        while True:
            first = await self.queue.get()
            await asyncio.sleep(0.01)
            rest = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
            reply = await self.flush([prompt for prompt, _ in (first, *rest)])
            for _, answer in (first, *rest):
                answer.set_result(reply)


@pytest.mark.parametrize("kind", [Batcher, Collected, Drained], ids=lambda each: each.__name__)
def test_a_micro_batcher(observe: Any, kind: type[Batcher]) -> None:
    """What one tenant asked for is its own; what several asked for at once is nobody's."""

    async def program(call: Call) -> None:
        batcher = kind(lambda prompts: call(" + ".join(sorted(prompts))))

        async def ask(tenant: str, *prompts: str) -> None:
            with attributed(tenant_id=tenant):
                await asyncio.gather(*[batcher.ask(f"{tenant} {prompt}") for prompt in prompts])

        await ask("acme", "1", "2")
        await ask("globex", "1", "2")
        await asyncio.gather(ask("acme", "3"), ask("globex", "3"))
        await ask("globex", "4")
        await ask("acme", "4")
        assert batcher.task is not None
        batcher.task.cancel()
        await asyncio.gather(batcher.task, return_exceptions=True)

    assert serve(observe(), program) == {
        "acme 1 + acme 2": "acme",
        "globex 1 + globex 2": "globex",
        "acme 3 + globex 3": None,
        "globex 4": "globex",
        "acme 4": "acme",
    }


def test_the_methods_stay_what_they_were(observe: Any) -> None:
    observe()
    assert inspect.iscoroutinefunction(asyncio.Queue.get) and inspect.iscoroutinefunction(asyncio.Queue().get)
    assert inspect.iscoroutinefunction(asyncio.Queue.put)
    assert str(inspect.signature(Queue.get)) == "(self, block=True, timeout=None)"


def test_an_explicit_scope_of_the_consumer_wins(observe: Any) -> None:
    async def program(call: Call) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def worker() -> None:
            with attributed(tenant_id="own"):
                await plain(queue, call)

        task = asyncio.create_task(worker())
        await put_all(queue)
        task.cancel()

    assert set(serve(observe(), program).values()) == {"own"}


def test_nothing_sticks_to_the_consumer(observe: Any) -> None:
    async def program(call: Call) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        for tenant in TENANTS:
            with attributed(tenant_id=tenant):
                await queue.put(f"{tenant} job")

        async def drain() -> None:
            while not queue.empty():
                await call(queue.get_nowait())
            await call("none after the loop")

        await drain()
        await call("none after the function")

    assert serve(observe(), program) == right(
        "acme job", "globex job", "none after the loop", "none after the function"
    )


def test_a_failed_job_that_is_put_again_stays_its_tenants(observe: Any) -> None:
    async def program(call: Call) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def worker() -> None:
            while True:
                prompt, tries = await queue.get()
                try:
                    if not tries:
                        raise ConnectionError
                    await call(prompt)
                except ConnectionError:
                    await queue.put((prompt, tries + 1))
                finally:
                    queue.task_done()

        task = asyncio.create_task(worker())
        await put_all(queue, lambda prompt: (prompt, 0))
        task.cancel()

    assert serve(observe(), program) == right(*JOBS)


def test_a_priority_queue_and_a_pipeline_of_two(observe: Any) -> None:
    async def program(call: Call) -> None:
        first: asyncio.PriorityQueue[Any] = asyncio.PriorityQueue()
        second: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

        async def prepare() -> None:
            while True:
                _, prompt = await first.get()
                await second.put(prompt)
                first.task_done()

        tasks = [asyncio.create_task(prepare()), asyncio.create_task(plain(second, call))]
        await put_all(first, lambda prompt: (-int(prompt[-1]), prompt))
        await second.join()
        for task in tasks:
            task.cancel()

    assert serve(observe(), program) == right(*JOBS)


def test_items_from_other_threads(observe: Any) -> None:
    async def program(call: Call) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(plain(queue, call))

        def produce() -> None:
            for prompt in JOBS:
                tenant = prompt.split()[0]
                with attributed(tenant_id=None if tenant == "none" else tenant):
                    loop.call_soon_threadsafe(queue.put_nowait, prompt)

        await asyncio.to_thread(produce)
        await asyncio.sleep(0)
        await queue.join()
        task.cancel()

    assert serve(observe(), program) == right(*JOBS)


@pytest.mark.parametrize("worker", [by_thread, by_executor], ids=lambda each: each.__name__)
def test_a_bridge_from_a_queue_of_threads(observe: Any, worker: Any) -> None:
    async def program(call: Call) -> None:
        queue: Queue[Any] = Queue()
        task = asyncio.create_task(worker(queue, call))
        await asyncio.sleep(0)
        for prompt in (*JOBS, "none end"):
            tenant = prompt.split()[0]
            with attributed(tenant_id=None if tenant == "none" else tenant):
                queue.put(prompt)
        await asyncio.to_thread(queue.join)
        task.cancel()
        queue.put(None)
        await asyncio.gather(task, return_exceptions=True)

    assert serve(observe(), program) == right(*JOBS, "none end")


def test_a_getter_that_nobody_waits_for_gives_no_wrong_tenant(observe: Any) -> None:
    async def program(call: Call) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def prefetching() -> None:
            item = await queue.get()
            while item:
                following = asyncio.create_task(queue.get())
                await call(item)
                await asyncio.sleep(0.01)
                await call(f"{item} again")
                item = await following

        async def pairs() -> None:
            while True:
                first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
                await call(f"{await first} of two")
                await call(f"{await second} of two")

        for worker in (prefetching, pairs):
            task = asyncio.create_task(worker())
            for prompt in JOBS:
                tenant = prompt.split()[0]
                with attributed(tenant_id=None if tenant == "none" else tenant):
                    await queue.put(prompt)
            await queue.put("")
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    found = serve(observe(), program)
    assert len(found) > len(JOBS)
    assert all(tenant in (None, prompt.split()[0]) for prompt, tenant in found.items())


def test_work_of_the_consumers_own_between_items(observe: Any) -> None:
    async def program(call: Call) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def worker() -> None:
            for round_ in range(2):
                while not queue.empty():
                    item = queue.get_nowait()
                    await call(item)
                    queue.task_done()
                await call(f"none own {round_}")
                item = None
                while item is None:
                    try:
                        item = await asyncio.wait_for(queue.get(), 0.05)
                    except TimeoutError:
                        await call(f"none idle {round_}")
                        break
                else:
                    await call(item)
                    queue.task_done()

        for tenant in TENANTS:
            with attributed(tenant_id=tenant):
                await queue.put(f"{tenant} at first")
        task = asyncio.create_task(worker())
        await asyncio.sleep(0.03)
        await task

    found = serve(observe(), program)
    assert found == right(*found)
    assert "none idle 1" in found
