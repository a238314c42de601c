"""The memory streams of anyio: each call goes out in the scope in which its item was sent."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Any

import pytest

import attribkit
from attribkit import attributed

anyio = pytest.importorskip("anyio")
pytest.importorskip("openai")

JOBS = tuple(f"{tenant} {n}" for n in range(3) for tenant in ("acme", "globex", "none"))


def on_wire(observed: Any) -> dict[str, str | None]:
    found = {}
    for request in observed.requests():
        metadata = dict(request.headers).get("x-portkey-metadata", "{}")
        prompt = json.loads(request.body)["messages"][0]["content"]
        found[prompt] = json.loads(metadata).get("tenant_id")
    return found


RIGHT = {prompt: (None if prompt.startswith("none") else prompt.split()[0]) for prompt in JOBS}


async def by_loop(receive: Any, call: Any) -> None:
    async with receive:
        async for prompt in receive:
            await call(prompt)


async def by_receive(receive: Any, call: Any) -> None:
    async with receive:
        while True:
            try:
                prompt = await receive.receive()
            except anyio.EndOfStream:
                return
            await call(prompt)


async def in_time(receive: Any, call: Any) -> None:
    async with receive:
        while True:
            try:
                prompt = await asyncio.wait_for(receive.receive(), 0.05)
            except TimeoutError:
                continue
            except anyio.EndOfStream:
                return
            await call(prompt)


async def polling(receive: Any, call: Any) -> None:
    async with receive:
        while True:
            try:
                prompt = receive.receive_nowait()
            except anyio.WouldBlock:
                await asyncio.sleep(0.001)
            except anyio.EndOfStream:
                return
            else:
                await call(prompt)


async def in_tasks(receive: Any, call: Any) -> None:
    async with receive, anyio.create_task_group() as group:
        async for prompt in receive:
            group.start_soon(call, prompt)


@pytest.mark.parametrize("waiting", [0, 2, 100])
@pytest.mark.parametrize("consumers", [1, 3])
@pytest.mark.parametrize("consumer", [by_loop, by_receive, in_time, polling, in_tasks], ids=lambda each: each.__name__)
def test_receivers_older_than_the_scopes(observe: Any, consumer: Any, consumers: int, waiting: int) -> None:
    observed = observe()
    import openai

    client = openai.AsyncOpenAI(api_key="k", base_url=observed.base_url, max_retries=0)

    async def call(prompt: str) -> None:
        await client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": prompt}])

    async def main() -> None:
        send, receive = anyio.create_memory_object_stream(waiting)
        async with anyio.create_task_group() as group:
            for _ in range(consumers):
                group.start_soon(consumer, receive.clone(), call)
            receive.close()
            await asyncio.sleep(0)
            async with send:
                for n, prompt in enumerate(JOBS):
                    tenant = prompt.split()[0]
                    with nullcontext() if tenant == "none" else attributed(tenant_id=tenant):
                        if n % 2 or waiting < 100:
                            await send.send(prompt)
                        else:
                            send.send_nowait(prompt)
        await client.close()

    asyncio.run(main())
    assert on_wire(observed) == RIGHT


def test_an_item_that_was_not_sent_makes_no_claim(observe: Any) -> None:
    observe()

    async def main() -> list[str | None]:
        send, receive = anyio.create_memory_object_stream(0)
        item = "the same object"
        with attributed(tenant_id="acme"):
            with pytest.raises(anyio.WouldBlock):
                send.send_nowait(item)
            with anyio.move_on_after(0.01):
                await send.send(item)
        found = []

        async def work() -> None:
            async for _ in receive:
                found.append(attribkit.current().tenant_id)

        task = asyncio.create_task(work())
        await send.send(item)
        send.close()
        await task
        receive.close()
        return found

    assert asyncio.run(main()) == [None]
