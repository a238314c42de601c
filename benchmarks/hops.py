"""Small programs that call no model: what the hops cost where there is nothing to carry to, or nobody to carry for."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workloads import Block, Workload


def _submit(subject: Any) -> Block:
    pool = ThreadPoolExecutor(4)

    def nothing() -> int:
        return 1

    def block(units: int) -> None:
        for future in [pool.submit(nothing) for _ in range(units)]:
            future.result()

    return block


def _gather(subject: Any) -> Block:
    loop = asyncio.new_event_loop()

    async def nothing() -> int:
        return 1

    async def at_once(units: int) -> None:
        await asyncio.gather(*[nothing() for _ in range(units)])

    def block(units: int) -> None:
        loop.run_until_complete(at_once(units))

    return block


HOPS = {
    "submit": Workload("ThreadPoolExecutor.submit, no scope", "no-op", _submit, 1000, 1000, scoped=False),
    "submit-in-scope": Workload("the same in a scope", "no-op", _submit, 1000, 1000),
    "gather": Workload("asyncio.gather of 1,000, no scope", "coroutine", _gather, 1000, 1000, scoped=False),
    "gather-in-scope": Workload("the same in a scope", "coroutine", _gather, 1000, 1000),
}
