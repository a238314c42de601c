"""Queues: a worker that is older than every scope does each item for the tenant who put it there."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import threading
from typing import Any

from attribkit.context import attributed
from attribkit.verify.asking import MODEL, answer, answer_async, async_client, message, warm
from attribkit.verify.lab import Lab, NotHere
from attribkit.verify.probe import Group

__all__ = ["GROUP"]

GROUP = Group(
    "queues",
    "queues",
    needs=("openai>=1.40",),
    extra="openai",
    relies=("openai",),
    remedy="put attribkit.carry(function) on the queue, and let the worker call it",
    prepare=warm,
)


async def _serve(waiting: asyncio.Queue[Any], lab: Lab, workers: int) -> None:
    """Let workers that are started first take prompts that two tenants put."""
    async with async_client() as client:

        async def work() -> None:
            while True:
                item = await waiting.get()
                try:
                    await answer_async(client, item if isinstance(item, str) else item[-1])
                finally:
                    waiting.task_done()

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        await asyncio.sleep(0)
        for number, tenant in enumerate(lab.tenants(2)):
            with attributed(**tenant.fields):
                for _ in range(2):
                    prompt = tenant.ask()
                    await waiting.put((-number, prompt) if isinstance(waiting, asyncio.PriorityQueue) else prompt)
        await waiting.join()
        for task in tasks:
            task.cancel()


@GROUP.probe("asyncio.Queue, one worker", relies=("queues",))
async def asyncio_queue(lab: Lab) -> None:
    await _serve(asyncio.Queue(), lab, 1)


@GROUP.probe("asyncio.Queue, bounded, three workers", relies=("queues",))
async def asyncio_queue_bounded(lab: Lab) -> None:
    await _serve(asyncio.Queue(1), lab, 3)


@GROUP.probe("asyncio.PriorityQueue", relies=("queues",))
async def asyncio_priority_queue(lab: Lab) -> None:
    await _serve(asyncio.PriorityQueue(), lab, 1)


@GROUP.probe("asyncio.Queue, put_nowait and get_nowait of a batch", relies=("queues",))
async def asyncio_batch(lab: Lab) -> None:
    waiting: asyncio.Queue[str] = asyncio.Queue()
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            waiting.put_nowait(tenant.ask())
    async with async_client() as client:
        while not waiting.empty():
            await answer_async(client, waiting.get_nowait())


@GROUP.probe("anyio memory stream, one receiver", relies=("queues",))
async def memory_stream(lab: Lab) -> None:
    import anyio

    send: Any
    send, receive = anyio.create_memory_object_stream(0)

    async def work() -> None:
        async with async_client() as client, receive:
            async for prompt in receive:
                await answer_async(client, prompt)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            for _ in range(2):
                await send.send(tenant.ask())
    send.close()
    await task


@GROUP.probe("asyncio.Queue, a batch of two tenants' items, a call for each", relies=("queues",))
async def batch_of_two_tenants(lab: Lab) -> None:
    waiting: asyncio.Queue[str] = asyncio.Queue()
    async with async_client() as client:

        async def work() -> None:
            batch = [await waiting.get()]
            while len(batch) < 4:
                batch.append(await waiting.get())
            await asyncio.gather(*(answer_async(client, prompt) for prompt in batch[:2]))
            for prompt in batch[2:]:
                await answer_async(client, prompt)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        first, second = lab.tenants(2)
        for tenant in (first, second, first, second):
            with attributed(**tenant.fields):
                waiting.put_nowait(tenant.ask())
        await task


def _serve_thread(waiting: Any, lab: Lab) -> None:
    """Let a thread that is started first take prompts that two tenants put; then one that is for nobody."""
    done = []

    def work() -> None:
        while True:
            item = waiting.get()
            prompt = item[-1] if isinstance(item, tuple) else item
            if not prompt:
                return
            done.append(answer(prompt))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    ordered = isinstance(waiting, queue.PriorityQueue)
    for number, tenant in enumerate(lab.tenants(2)):
        with attributed(**tenant.fields):
            for _ in range(2):
                prompt = tenant.ask()
                waiting.put((-number, prompt) if ordered else prompt)
    lab.until(lambda: len(done) == 4)
    prompt = lab.nobody().ask()
    waiting.put((9, prompt) if ordered else prompt)
    lab.until(lambda: len(done) == 5)
    waiting.put((9, "") if ordered else "")
    worker.join()


@GROUP.probe("queue.Queue, a worker thread", relies=("queues",))
def thread_queue(lab: Lab) -> None:
    _serve_thread(queue.Queue(), lab)


@GROUP.probe("queue.SimpleQueue, a worker thread", relies=("queues",))
def simple_queue(lab: Lab) -> None:
    _serve_thread(queue.SimpleQueue(), lab)


@GROUP.probe("queue.PriorityQueue, a worker thread", relies=("queues",))
def priority_queue(lab: Lab) -> None:
    _serve_thread(queue.PriorityQueue(), lab)


def _work(waiting: Any, done: Any) -> None:
    """What an app's worker process does: an answer for each prompt."""
    while (prompt := waiting.recv() if hasattr(waiting, "recv") else waiting.get()) is not None:
        done.put(answer(prompt))


def _serve_process(method: Any, waiting: Any, lab: Lab) -> None:
    """Let a process that is forked first take prompts that two tenants put."""
    ends = waiting if isinstance(waiting, tuple) else (waiting, waiting)
    put = getattr(ends[0], "send", None) or ends[0].put
    done = method.SimpleQueue()
    worker = method.Process(target=_work, args=(ends[1], done))
    worker.start()
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            for _ in range(2):
                put(tenant.ask())
                done.get()
    put(None)
    worker.join()


def _forking() -> Any:
    if "fork" not in multiprocessing.get_all_start_methods():
        raise NotHere("this system has no start method fork")
    return multiprocessing.get_context("fork")


@GROUP.probe("multiprocessing.Queue, a worker process", relies=("queues",), soak=False)
def process_queue(lab: Lab) -> None:
    _serve_process(_forking(), _forking().Queue(), lab)


@GROUP.probe("multiprocessing.Manager().Queue(), a worker process", relies=("queues",), soak=False)
def managed_queue(lab: Lab) -> None:
    with _forking().Manager() as manager:
        _serve_process(_forking(), manager.Queue(), lab)


@GROUP.probe("multiprocessing.Pipe, a worker process", relies=("queues",), soak=False)
def pipe(lab: Lab) -> None:
    _serve_process(_forking(), _forking().Pipe(), lab)


@GROUP.probe("a queue that is a pool of clients: who put one back is not who takes it next")
def pool_of_clients(lab: Lab) -> None:
    import openai

    idle: queue.LifoQueue[Any] = queue.LifoQueue()
    idle.put(openai.OpenAI())
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            client = idle.get()
            client.chat.completions.create(model=MODEL, messages=message(tenant.ask()))
            idle.put(client)
    client = idle.get()
    client.chat.completions.create(model=MODEL, messages=message(lab.nobody().ask()))
    client.close()
