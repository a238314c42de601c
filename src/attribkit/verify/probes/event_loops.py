"""asyncio: work that is made, scheduled or iterated in one place and runs in another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from attribkit.context import attributed
from attribkit.verify.asking import answer, answer_async, async_client, warm
from attribkit.verify.lab import Lab, Tenant
from attribkit.verify.probe import Group

__all__ = ["GROUP"]

GROUP = Group(
    "asyncio",
    "asyncio",
    needs=("openai>=1.40",),
    extra="openai",
    relies=("openai",),
    remedy="bind the work where it is made: attribkit.carry(coroutine), attribkit.carry(function)",
    prepare=warm,
)


@GROUP.probe("gather inside a scope")
async def gather(lab: Lab) -> None:
    tenant = lab.tenant()
    async with async_client() as client:
        with attributed(**tenant.fields):
            await asyncio.gather(*(answer_async(client, tenant.ask()) for _ in range(4)))


@GROUP.probe("coroutine objects made in scopes, gathered outside", relies=("asyncio",))
async def gather_outside(lab: Lab) -> None:
    async with async_client() as client:
        jobs = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                jobs.append(answer_async(client, tenant.ask()))
        await asyncio.gather(*jobs)


@GROUP.probe("coroutine objects of two tenants, gathered in a third one's scope", relies=("asyncio",))
async def gather_under_another(lab: Lab) -> None:
    async with async_client() as client:
        jobs = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                jobs += [answer_async(client, tenant.ask()) for _ in range(2)]
        other = lab.tenant()
        with attributed(**other.fields):
            await asyncio.gather(*jobs, answer_async(client, other.ask()))


@GROUP.probe("coroutine objects made after an await, gathered in a third one's scope", relies=("asyncio",))
async def gather_after_awaits(lab: Lab) -> None:
    async with async_client() as client:
        jobs = []

        async def make(tenant: Tenant) -> None:
            with attributed(**tenant.fields):
                await asyncio.sleep(0)
                jobs.append(answer_async(client, tenant.ask()))
                await asyncio.sleep(0)
                jobs.append(answer_async(client, tenant.ask()))

        await asyncio.gather(*map(make, lab.tenants(2)))
        with attributed(**lab.tenant().fields):
            await asyncio.gather(*jobs)


@GROUP.probe("a batch: the last of several requests gathers what all have made", relies=("asyncio",))
async def batch(lab: Lab) -> None:
    async with async_client() as client:
        pending: list[Any] = []

        async def request(tenant: Tenant) -> None:
            with attributed(**tenant.fields):
                await asyncio.sleep(0)
                pending.append(answer_async(client, tenant.ask()))
                if len(pending) == 2:
                    await asyncio.gather(*pending)

        await asyncio.gather(*map(request, lab.tenants(2)))


@GROUP.probe("coroutine object made in a scope, awaited outside", relies=("asyncio",))
async def await_outside(lab: Lab) -> None:
    async with async_client() as client:
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                job = answer_async(client, tenant.ask())
            await job


@GROUP.probe("create_task, outlives its scope")
async def create_task(lab: Lab) -> None:
    go = asyncio.Event()

    async def later(prompt: str) -> None:
        await go.wait()
        await answer_async(client, prompt)

    async with async_client() as client:
        tasks = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                tasks.append(asyncio.create_task(later(tenant.ask())))
        go.set()
        await asyncio.gather(*tasks)


@GROUP.probe("TaskGroup")
async def task_group(lab: Lab) -> None:
    async with async_client() as client:

        async def serve(tenant: Tenant) -> None:
            with attributed(**tenant.fields):
                async with asyncio.TaskGroup() as group:
                    for _ in range(2):
                        group.create_task(answer_async(client, tenant.ask()))

        await asyncio.gather(*(serve(tenant) for tenant in lab.tenants(2)))


@GROUP.probe("TaskGroup outside, coroutine objects made in scopes", relies=("asyncio",))
async def task_group_outside(lab: Lab) -> None:
    async with async_client() as client:
        jobs = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                jobs.append(answer_async(client, tenant.ask()))
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)


@GROUP.probe("as_completed outside, coroutine objects made in scopes", relies=("asyncio",))
async def as_completed(lab: Lab) -> None:
    async with async_client() as client:
        jobs = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                jobs.append(answer_async(client, tenant.ask()))
        for done in asyncio.as_completed(jobs):
            await done


@GROUP.probe("anyio task group")
async def anyio_group(lab: Lab) -> None:
    import anyio

    async with async_client() as client:

        async def serve(tenant: Tenant) -> None:
            with attributed(**tenant.fields):
                async with anyio.create_task_group() as group:
                    for _ in range(2):
                        group.start_soon(answer_async, client, tenant.ask())

        await asyncio.gather(*(serve(tenant) for tenant in lab.tenants(2)))


@GROUP.probe("wait_for, timeout and shield")
async def wait_for(lab: Lab) -> None:
    tenant = lab.tenant()
    async with async_client() as client:
        with attributed(**tenant.fields):
            await asyncio.wait_for(answer_async(client, tenant.ask()), 8)
            async with asyncio.timeout(8):
                await asyncio.shield(answer_async(client, tenant.ask()))


@GROUP.probe("to_thread")
async def to_thread(lab: Lab) -> None:
    async def serve(tenant: Tenant) -> None:
        with attributed(**tenant.fields):
            await asyncio.to_thread(answer, tenant.ask())

    await asyncio.gather(*(serve(tenant) for tenant in lab.tenants(2)))


@GROUP.probe("run_in_executor, the loop's and one of the app's", relies=("threads",))
async def run_in_executor(lab: Lab) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:

        async def serve(tenant: Tenant) -> None:
            with attributed(**tenant.fields):
                await loop.run_in_executor(None, answer, tenant.ask())
                await loop.run_in_executor(pool, answer, tenant.ask())

        await asyncio.gather(*(serve(tenant) for tenant in lab.tenants(2)))


class _OtherLoop:
    """An event loop in a thread that is older than every scope."""

    def __enter__(self) -> asyncio.AbstractEventLoop:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self.loop

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@GROUP.probe("run_coroutine_threadsafe, into a loop in another thread")
def run_coroutine_threadsafe(lab: Lab) -> None:
    with _OtherLoop() as loop:
        client = async_client()
        jobs = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                jobs.append(asyncio.run_coroutine_threadsafe(answer_async(client, tenant.ask()), loop))
        for job in jobs:
            job.result(8)
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(8)


@GROUP.probe("run_coroutine_threadsafe outside, coroutine objects made in scopes", relies=("asyncio",))
def handed_to_another_loop(lab: Lab) -> None:
    with _OtherLoop() as loop:
        client = async_client()
        made = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                made.append(answer_async(client, tenant.ask()))
        for job in [asyncio.run_coroutine_threadsafe(coroutine, loop) for coroutine in made]:
            job.result(8)
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(8)


@GROUP.probe("call_soon_threadsafe")
def call_soon_threadsafe(lab: Lab) -> None:
    with _OtherLoop() as loop:
        client = async_client()
        done: list[Future[Any]] = []

        def start(prompt: str, seen: Future[Any]) -> None:
            task = loop.create_task(answer_async(client, prompt))
            task.add_done_callback(lambda ended: seen.set_result(ended.result()))

        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                seen: Future[Any] = Future()
                done.append(seen)
                loop.call_soon_threadsafe(start, tenant.ask(), seen)
        for one in done:
            one.result(8)
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(8)


@GROUP.probe("call_later")
async def call_later(lab: Lab) -> None:
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[Any]] = []
    fired = asyncio.Event()

    def start(prompt: str) -> None:
        tasks.append(loop.create_task(answer_async(client, prompt)))
        if len(tasks) == 2:
            fired.set()

    async with async_client() as client:
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                loop.call_later(0.01, start, tenant.ask())
        await fired.wait()
        await asyncio.gather(*tasks)


@GROUP.probe("add_done_callback")
async def done_callback(lab: Lab) -> None:
    follow_ups: list[asyncio.Task[Any]] = []

    def follow_up(prompt: str) -> Callable[[object], None]:
        return lambda _: follow_ups.append(asyncio.create_task(answer_async(client, prompt)))

    async with async_client() as client:
        firsts = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                first = asyncio.create_task(answer_async(client, tenant.ask()))
                first.add_done_callback(follow_up(tenant.ask()))
                firsts.append(first)
        await asyncio.gather(*firsts)
        await asyncio.sleep(0)
        await asyncio.gather(*follow_ups)


async def _answers(client: Any, prompts: list[str]) -> AsyncIterator[Any]:
    for prompt in prompts:
        yield await answer_async(client, prompt)


@GROUP.probe("async generator made in a scope, consumed outside", relies=("asyncio",))
async def generator_outside(lab: Lab) -> None:
    async with async_client() as client:
        made = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                made.append(_answers(client, [tenant.ask(), tenant.ask()]))
        for answers in made:
            async for _ in answers:
                pass


@GROUP.probe("async generators of two tenants, pulled in turn", relies=("asyncio",))
async def generators_interleaved(lab: Lab) -> None:
    async with async_client() as client:
        made = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                made.append(_answers(client, [tenant.ask(), tenant.ask()]))
        for _ in range(2):
            for answers in made:
                await anext(answers)
        for answers in made:
            await answers.aclose()  # type: ignore[attr-defined]


@GROUP.probe("async generators that open their own scope, pulled in turn", relies=("asyncio",))
async def generators_with_scopes(lab: Lab) -> None:
    async def serve(tenant: Tenant) -> AsyncIterator[Any]:
        with attributed(**tenant.fields):
            for _ in range(2):
                yield await answer_async(client, tenant.ask())

    async with async_client() as client:
        made = [serve(tenant) for tenant in lab.tenants(2)]
        for _ in range(2):
            for answers in made:
                await anext(answers)
        for answers in made:
            await answers.aclose()  # type: ignore[attr-defined]


@GROUP.probe("asyncio.run inside a scope")
def run(lab: Lab) -> None:
    async def serve(prompt: str) -> None:
        async with async_client() as client:
            await answer_async(client, prompt)

    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            asyncio.run(serve(tenant.ask()))
