"""Processes and process pools under every start method: two tenants and nobody, on the wire."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from threads_processes.owners import ask, asked, owned, owner, scope, sent

import attribkit

PROGRAMS = {
    "fork": "executor initializer process pool run_in_executor grandchildren failures",
    "spawn": "executor initializer one_task_a_child process pool",
    "forkserver": "executor process failures",
}


@pytest.mark.parametrize("method", PROGRAMS)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_request_has_its_owner(method: str, gateway: Any) -> None:
    seen = gateway.requests()
    since = seen[-1].seq if seen else 0
    environ = {**os.environ, "POOLED_BASE_URL": gateway.base_url}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("pooled.py")), method]
    ran = subprocess.run(
        [*command, *PROGRAMS[method].split()], env=environ, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    expected = [(prompt, owner(prompt)) for prompt in sorted(ran.stdout.splitlines())]
    assert sent(gateway.requests(since=since)) == expected


QUEUED = {
    "fork": "queues",
    "fork ": "two_workers joinable simple",
    "fork  ": "managed one_item pipe as_they_were",
    "spawn": "queues managed",
    "spawn ": "pipe unaware",
    "forkserver": "simple",
}


@pytest.mark.parametrize("method", QUEUED)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_item_of_a_queue_has_its_owner(method: str, gateway: Any) -> None:
    seen = gateway.requests()
    since = seen[-1].seq if seen else 0
    environ = {**os.environ, "POOLED_BASE_URL": gateway.base_url}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("queued.py")), method.strip()]
    ran = subprocess.run([*command, *QUEUED[method].split()], env=environ, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    expected = [(prompt, owner(prompt)) for prompt in sorted(ran.stdout.splitlines())]
    assert sent(gateway.requests(since=since)) == expected


def test_turned_off(observe: Any) -> None:
    seen = observe(hops={"processes": False})
    with scope("acme"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert pool.submit(_who).result() is None
    assert not seen.requests()


def _who() -> str | None:
    return attribkit.current().tenant_id


def test_a_fork_keeps_what_is_in_force(observe: Any) -> None:
    seen = observe()
    with scope("acme"):
        child = os.fork()
        if not child:
            code = 1
            try:
                ask(seen.base_url, "acme: q")
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    assert asked(seen.requests()) == owned("acme: q")


def test_a_process_is_as_it_was(observe: Any) -> None:
    observe()
    with scope("acme"):
        process = multiprocessing.get_context("fork").Process(target=int)
        process.start()
    process.join()
    assert process.exitcode == 0
    assert not [name for name in vars(process) if "attribkit" in name or name == "_bootstrap"]


def test_a_langchain_run_is_not_left_on_the_workers_either(observe: Any) -> None:
    """A fork inside a runnable inherits LangChain's own variable, which names a tenant for adoption."""
    runnables = pytest.importorskip("langchain_core.runnables")
    observe()
    pools = []

    def work(_: object) -> str | None:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        pools.append(pool)
        return pool.submit(_in_force).result()

    chain = runnables.RunnableLambda(work)
    assert chain.invoke(None, config={"metadata": {"tenant_id": "acme"}}) == "acme"
    with pools[0] as pool:
        assert pool.submit(_in_force).result() is None


def _in_force() -> str | None:
    from attribkit import context

    return context.in_force().attribution.tenant_id
