"""Queues and pipes between processes, as a program of its own: `queued.py METHOD PROGRAM ...`; prints the prompts.

Children that start from scratch import this file anew, and instrument themselves as it says at the top.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import sys
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

from owners import TENANTS, post, scope  # beside this file

import attribkit

URL = os.environ["POOLED_BASE_URL"]
if os.environ.get("QUEUED_BARE") != "yes":
    attribkit.instrument(gateways={URL: "portkey"}, ledger=None)
OWNERS = (*TENANTS, "nobody")


def jobs_of(program: str, owners: tuple[str, ...] = OWNERS) -> list[str]:
    return [f"{owner}: {program} {n}" for n in range(3) for owner in owners]


def call(prompt: str) -> str:
    return post(URL, prompt)


def work(items: Any, done: Any) -> None:
    while (item := items.get()) is not None:
        call(item)
        done.put(item)


def poll(items: Any, done: Any) -> None:
    while True:
        try:
            item = items.get(timeout=0.01)
        except queue.Empty:
            continue
        if item is None:
            return
        call(item)
        done.put(item)


def take_turns(items: Any, done: Any) -> None:
    while True:
        item = items.get()
        try:
            if item is None:
                return
            call(item)
            done.put(item)
        finally:
            items.task_done()


def once(items: Any, done: Any) -> None:
    done.put(call(items.get()))


def reply(end: Any) -> None:
    while (item := end.recv()) is not None:
        end.send(call(item))


def echo(items: Any, done: Any) -> None:
    done.put(attribkit.current().tenant_id)
    while (item := items.get()) is not None:
        done.put((item, attribkit.current().tenant_id))


def started(context: BaseContext, target: Callable[..., None], *args: Any) -> Any:
    process = context.Process(target=target, args=args)  # type: ignore[attr-defined]
    process.start()
    return process


def put_all(jobs: list[str], put: Callable[[Any], object]) -> None:
    for prompt in jobs:
        tenant = prompt.partition(":")[0]
        with scope(None if tenant == "nobody" else tenant):
            put(prompt)


def serve(context: BaseContext, program: str, items: Any, done: Any, *workers: Callable[..., None]) -> list[str]:
    """The first worker is older than the scopes, a second is brought to life in one."""
    processes = [started(context, workers[0], items, done)]
    if len(workers) > 1:
        with scope("globex"):
            processes.append(started(context, workers[1], items, done))
    jobs = jobs_of(program, TENANTS if len(workers) > 1 else OWNERS)
    put_all(jobs, items.put)
    for _ in jobs:
        done.get()
    for _ in processes:
        items.put(None)
    for process in processes:
        process.join()
    assert not attribkit.current()
    return jobs


def queues(context: BaseContext) -> list[str]:
    return serve(context, "queue", context.Queue(), context.Queue(), work)


def two_workers(context: BaseContext) -> list[str]:
    return serve(context, "two", context.Queue(2), context.Queue(), poll, work)


def joinable(context: BaseContext) -> list[str]:
    items = context.JoinableQueue()
    jobs = serve(context, "joinable", items, context.SimpleQueue(), take_turns)
    items.join()
    return jobs


def simple(context: BaseContext) -> list[str]:
    return serve(context, "simple", context.SimpleQueue(), context.SimpleQueue(), work)


def managed(context: BaseContext) -> list[str]:
    with context.Manager() as manager:
        return serve(context, "managed", manager.Queue(), manager.Queue(), work)


def one_item(context: BaseContext) -> list[str]:
    items, done = context.Queue(), context.Queue()
    process = started(context, once, items, done)
    with scope("acme"):
        items.put("acme: only")
    done.get()
    process.join()
    return ["acme: only"]


def pipe(context: BaseContext) -> list[str]:
    here, there = context.Pipe()
    process = started(context, reply, there)

    def ask(prompt: str) -> None:
        here.send(prompt)
        here.recv()
        owner = prompt.partition(":")[0]
        assert attribkit.current().tenant_id == (None if owner == "nobody" else owner)

    put_all(jobs_of("pipe"), ask)
    here.send(None)
    process.join()
    return jobs_of("pipe")


def as_they_were(context: BaseContext) -> list[str]:
    """What arrives is what it would be without attribkit, turned on at the other end or not."""
    sent = [0, True, "text", b"bytes", {"prompt": "x"}, ("a", 1), [None], 10**9, Prompt("x")]
    items, done = context.Queue(), context.Queue()
    process = started(context, echo, items, done)
    assert done.get(timeout=60) is None
    for item in sent:
        with scope("acme"):
            items.put(item)
    with scope("acme"):
        items.put(lambda: None)  # cannot be pickled: it is dropped, and told on stderr
        items.put(None)
    found = [done.get(timeout=60) for _ in sent]
    assert [item for item, _ in found] == sent
    assert [type(item) for item, _ in found] == [type(item) for item in sent]
    on = os.environ.get("QUEUED_BARE") != "yes"
    claims = {str(item): tenant for item, tenant in found}
    assert claims["0"] is None and claims["text"] == ("acme" if on else None), claims
    process.join()
    pipe = context.SimpleQueue()
    with scope("acme"):
        said = ""
        try:
            pipe.put(lambda: None)
        except (pickle.PicklingError, AttributeError) as error:
            said = str(error)
        assert "lambda" in said
    full = context.Queue(1)
    with scope("acme"):
        full.put("a")
        try:
            full.put("b", block=False)
        except queue.Full:
            pass
        else:
            raise AssertionError("it was put")
        assert full.get(timeout=60) == "a"
    return []


class Prompt:
    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompt) and other.text == self.text

    __hash__ = None  # type: ignore[assignment]


def unaware(context: BaseContext) -> list[str]:
    """The children do not turn attribkit on."""
    os.environ["QUEUED_BARE"] = "yes"
    return as_they_were(context)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        for prompt in globals()[name](multiprocessing.get_context(sys.argv[1])):
            print(prompt)
