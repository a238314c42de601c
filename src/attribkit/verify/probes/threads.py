"""Threads and pools: work goes with the tenant who started or submitted it, and nothing stays behind in a thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from attribkit.context import attributed
from attribkit.verify.asking import answer, warm
from attribkit.verify.lab import Lab
from attribkit.verify.probe import Group

__all__ = ["GROUP"]

GROUP = Group(
    "threads",
    "threads",
    needs=("openai>=1.40",),
    extra="openai",
    relies=("openai",),
    remedy="hand over attribkit.carry(function): Thread(target=carry(work)), pool.submit(carry(work), ...)",
    prepare=warm,
)


@GROUP.probe("Thread, outlives its scope", relies=("threads",))
def thread(lab: Lab) -> None:
    go, started = threading.Event(), []

    def work(prompt: str) -> None:
        go.wait(8)
        answer(prompt)

    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            one = threading.Thread(target=work, args=(tenant.ask(),))
            one.start()
            started.append(one)
    go.set()
    for one in started:
        one.join()


@GROUP.probe("a subclass of Thread with its own run()", relies=("threads",))
def subclass(lab: Lab) -> None:
    class Worker(threading.Thread):
        def __init__(self, prompt: str) -> None:
            super().__init__()
            self.prompt = prompt

        def run(self) -> None:
            answer(self.prompt)

    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            worker = Worker(tenant.ask())
            worker.start()
        worker.join()


@GROUP.probe("Timer", relies=("threads",))
def timer(lab: Lab) -> None:
    started = []
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            one = threading.Timer(0.01, answer, (tenant.ask(),))
            one.start()
            started.append(one)
    for one in started:
        one.join()


@GROUP.probe("a thread that starts a thread", relies=("threads",))
def nested(lab: Lab) -> None:
    def outer(prompt: str) -> None:
        inner = threading.Thread(target=answer, args=(prompt,))
        inner.start()
        inner.join()

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        one = threading.Thread(target=outer, args=(tenant.ask(),))
        one.start()
    one.join()


@GROUP.probe("ThreadPoolExecutor.submit", relies=("threads",))
def pool_submit(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields), ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(answer, tenant.ask()) for _ in range(3)]:
            future.result()


@GROUP.probe("ThreadPoolExecutor.map", relies=("threads",))
def pool_map(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields), ThreadPoolExecutor(2) as pool:
        list(pool.map(answer, [tenant.ask() for _ in range(3)]))


@GROUP.probe("a pool that tenants share", relies=("threads",))
def pool_shared(lab: Lab) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(int).result()
        futures: list[Future[Any]] = []
        for tenant in lab.tenants(3):
            with attributed(**tenant.fields):
                futures += [pool.submit(answer, tenant.ask()) for _ in range(2)]
        wait(futures)
        for future in futures:
            future.result()


@GROUP.probe("a pool task that submits to another pool", relies=("threads",))
def pool_nested(lab: Lab) -> None:
    with ThreadPoolExecutor(1) as outer, ThreadPoolExecutor(1) as inner:
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                future = outer.submit(lambda prompt: inner.submit(answer, prompt).result(), tenant.ask())
            future.result()


@GROUP.probe("Future.add_done_callback on a pool", relies=("threads",))
def pool_callback(lab: Lab) -> None:
    asked = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        tenant = lab.tenant()
        with attributed(**tenant.fields):
            prompt = tenant.ask()
            future = pool.submit(answer, tenant.ask())

            def follow_up(_: Any) -> None:
                answer(prompt)
                asked.set()

            future.add_done_callback(follow_up)
        asked.wait(8)


@GROUP.probe("nothing sticks to a pool's thread")
def nothing_sticks(lab: Lab) -> None:
    with ThreadPoolExecutor(1) as pool:
        for tenant in lab.tenants(2):

            def serve(tenant: Any = tenant) -> None:
                with attributed(**tenant.fields):
                    answer(tenant.ask())

            pool.submit(serve).result()
            pool.submit(answer, lab.nobody().ask()).result()


@GROUP.probe("nothing sticks to a thread that a scope started", relies=("threads",))
def nothing_sticks_to_workers(lab: Lab) -> None:
    one, two = lab.tenants(2)
    with ThreadPoolExecutor(1) as pool:
        with attributed(**one.fields):
            pool.submit(answer, one.ask()).result()
        pool.submit(answer, lab.nobody().ask()).result()
        with attributed(**two.fields):
            pool.submit(answer, two.ask()).result()
