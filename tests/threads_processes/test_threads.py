"""Threads and thread pools: two tenants and nobody, side by side, on the wire."""

from __future__ import annotations

import _thread
import asyncio
import multiprocessing.dummy
import multiprocessing.pool
import sched
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

import pytest
from threads_processes.owners import TENANTS, ask, asked, fail, owned, scope

import attribkit

Ask = Callable[[str], str]


def started(thread: threading.Thread) -> threading.Thread:
    thread.start()
    return thread


def thread(call: Ask) -> list[str]:
    threads = []
    for tenant in TENANTS:
        with scope(tenant):
            threads.append(started(threading.Thread(target=call, args=(f"{tenant}: q",))))
    threads.append(started(threading.Thread(target=call, args=("nobody: q",))))
    for each in threads:
        each.join()
    return ["acme: q", "globex: q", "nobody: q"]


def subclass_with_its_own_run(call: Ask) -> list[str]:
    class Worker(threading.Thread):
        def __init__(self, prompt: str) -> None:
            super().__init__(daemon=True)
            self.prompt = prompt

        def run(self) -> None:
            call(self.prompt)

    threads = []
    for tenant in TENANTS:
        with scope(tenant):
            threads.append(started(Worker(f"{tenant}: q")))
    for each in threads:
        each.join()
    return ["acme: q", "globex: q"]


def outlives_its_scope(call: Ask) -> list[str]:
    go = threading.Event()
    threads = []

    def work(prompt: str) -> None:
        go.wait()
        call(prompt)

    for tenant in TENANTS:
        with scope(tenant):
            threads.append(started(threading.Thread(target=work, args=(f"{tenant}: q",))))
    go.set()
    for each in threads:
        each.join()
    return ["acme: q", "globex: q"]


def made_in_scope_and_started_outside(call: Ask) -> list[str]:
    threads = []
    for tenant in TENANTS:
        with scope(tenant):
            threads.append(threading.Thread(target=call, args=(f"{tenant}: q",)))
    for each in threads:
        started(each).join()
    return ["acme: q", "globex: q"]


def started_in_a_thread(call: Ask) -> list[str]:
    def outer(tenant: str) -> None:
        started(threading.Thread(target=call, args=(f"{tenant}: inner",))).join()

    for tenant in TENANTS:
        with scope(tenant):
            started(threading.Thread(target=outer, args=(tenant,))).join()
    return ["acme: inner", "globex: inner"]


def timer(call: Ask) -> list[str]:
    timers = []
    for tenant in TENANTS:
        with scope(tenant):
            timers.append(threading.Timer(0.01, call, [f"{tenant}: q"]))
            timers[-1].start()
    for each in timers:
        each.join()
    return ["acme: q", "globex: q"]


def low_level_thread(call: Ask) -> list[str]:
    done = threading.Semaphore(0)

    def work(prompt: str) -> None:
        call(prompt)
        done.release()

    for tenant in TENANTS:
        with scope(tenant):
            _thread.start_new_thread(work, (f"{tenant}: q",))
    _thread.start_new_thread(work, ("nobody: q",))
    for _ in range(3):
        assert done.acquire(timeout=20)
    return ["acme: q", "globex: q", "nobody: q"]


def scheduler(call: Ask) -> list[str]:
    """What an event starts is for whom it was entered for, and no later event's."""
    events = sched.scheduler()
    for tenant in TENANTS:
        with scope(tenant):
            events.enter(0.01, 1, call, (f"{tenant}: q",))
            events.enterabs(0, 1, action=call, kwargs={"prompt": f"{tenant}: p"})
            events.cancel(events.enter(9, 1, call))
            assert repr(events.queue[-1].action) == repr(call)
    events.enter(0.005, 1, call, ("nobody: q",))
    events.run()
    return ["acme: q", "acme: p", "globex: q", "globex: p", "nobody: q"]


def dummy_process(call: Ask) -> list[str]:
    for tenant in TENANTS:
        with scope(tenant):
            process = multiprocessing.dummy.Process(target=call, args=(f"{tenant}: q",))
            process.start()
        process.join()
    return ["acme: q", "globex: q"]


def shared_pool(call: Ask) -> list[str]:
    """The threads are brought to life by the first tenant; what nobody gives them afterwards is nobody's."""
    futures = []
    with ThreadPoolExecutor(2) as pool:
        for number in range(3):
            for tenant in TENANTS:
                with scope(tenant):
                    futures.append(pool.submit(call, f"{tenant}: {number}"))
            futures.append(pool.submit(call, f"nobody: {number}"))
        assert not wait(futures).not_done
        assert all(future.result() for future in as_completed(futures, timeout=20))
    return [f"{owner}: {number}" for owner in (*TENANTS, "nobody") for number in range(3)]


def one_thread_serves_all_in_turn(call: Ask) -> list[str]:
    with ThreadPoolExecutor(1) as pool:
        for tenant in TENANTS:
            with scope(tenant):
                pool.submit(call, f"{tenant}: q").result()
            pool.submit(call, f"nobody: after {tenant}").result()
            assert not pool.submit(attribkit.current).result()
    return ["acme: q", "nobody: after acme", "globex: q", "nobody: after globex"]


def mapped(call: Ask) -> list[str]:
    with ThreadPoolExecutor(3) as pool:
        results = []
        for tenant in TENANTS:
            with scope(tenant):
                results.append(pool.map(call, [f"{tenant}: {n}" for n in range(3)], timeout=20))
        assert all(len(list(each)) == 3 for each in results)
    return [f"{tenant}: {n}" for tenant in TENANTS for n in range(3)]


def nested_pools(call: Ask) -> list[str]:
    with ThreadPoolExecutor(2) as outer, ThreadPoolExecutor(2) as inner:

        def work(tenant: str) -> list[str]:
            return list(inner.map(call, [f"{tenant}: {n}" for n in range(2)]))

        futures = []
        for tenant in TENANTS:
            with scope(tenant):
                futures.append(outer.submit(work, tenant))
        for future in futures:
            future.result()
    return [f"{tenant}: {n}" for tenant in TENANTS for n in range(2)]


def initializer(call: Ask) -> list[str]:
    """It belongs to where the pool is made, the tasks to where they are given."""
    with scope("acme"):
        pool = ThreadPoolExecutor(1, initializer=call, initargs=("acme: warm up",))
    with pool:
        with scope("globex"):
            pool.submit(call, "globex: q").result()
        pool.submit(call, "nobody: q").result()
    return ["acme: warm up", "globex: q", "nobody: q"]


def scopes_opened_in_the_work(call: Ask) -> list[str]:
    def work(tenant: str) -> None:
        with scope(tenant):
            call(f"{tenant}: q")

    with ThreadPoolExecutor(1) as pool:
        for tenant in TENANTS:
            pool.submit(work, tenant).result()
            assert not pool.submit(attribkit.current).result()
    return ["acme: q", "globex: q"]


def thread_pool_of_multiprocessing(call: Ask) -> list[str]:
    with scope("acme"):
        pool = multiprocessing.pool.ThreadPool(1, call, ("acme: started",))
        pool.apply_async(lambda: None).get()
    with pool:
        results = []
        for tenant in TENANTS:
            with scope(tenant):
                pool.apply(call, (f"{tenant}: apply",))
                results += [
                    pool.apply_async(call, (f"{tenant}: async",), callback=lambda _, t=tenant: call(f"{t}: called")),
                    pool.map_async(call, [f"{tenant}: m{n}" for n in range(2)]),
                    pool.imap(call, iter([f"{tenant}: i{n}" for n in range(2)])),
                    pool.imap_unordered(call, (f"{tenant}: u{n}" for n in range(2)), chunksize=2),
                ]
                pool.starmap(call, [(f"{tenant}: star",)])
        pool.apply(call, ("nobody: apply",))
        for result in results:
            assert result.get() if hasattr(result, "get") else list(result)
        assert pool.map(lambda _: attribkit.current().tenant_id, range(4)) == [None] * 4
        pool.close()
        pool.join()
    kinds = ("apply", "async", "called", "m0", "m1", "i0", "i1", "u0", "u1", "star")
    return ["acme: started", "nobody: apply", *(f"{tenant}: {kind}" for tenant in TENANTS for kind in kinds)]


def callbacks(call: Ask) -> list[str]:
    """One belongs to where it was added, whoever's work sets it off."""
    go = threading.Event()

    def work(prompt: str) -> None:
        go.wait()
        call(prompt)

    with ThreadPoolExecutor(1) as pool:
        with scope("acme"):
            future = pool.submit(work, "acme: q")
            future.add_done_callback(lambda _: call("acme: done"))
        with scope("globex"):
            future.add_done_callback(lambda _: call("globex: done"))
        future.add_done_callback(lambda _: call("nobody: done"))
        go.set()
    return ["acme: q", "acme: done", "globex: done", "nobody: done"]


def run_in_executor(call: Ask) -> list[str]:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        work = []
        for tenant in TENANTS:
            with scope(tenant):
                work += [
                    loop.run_in_executor(None, call, f"{tenant}: executor"),
                    asyncio.create_task(asyncio.to_thread(call, f"{tenant}: to_thread")),
                ]
        await asyncio.gather(*work, loop.run_in_executor(None, call, "nobody: executor"))

    asyncio.run(main())
    return ["nobody: executor", *(f"{t}: {kind}" for t in TENANTS for kind in ("executor", "to_thread"))]


def one_tenants_work_fails(call: Ask) -> list[str]:
    def failing(prompt: str) -> None:
        call(prompt)
        raise LookupError(prompt)

    with ThreadPoolExecutor(1) as pool:
        with scope("acme"):
            bad = pool.submit(failing, "acme: bad")
        with scope("globex"):
            good = pool.submit(call, "globex: good")
        with pytest.raises(LookupError, match="acme: bad"):
            bad.result()
        good.result()
        pool.submit(call, "nobody: after").result()
    return ["acme: bad", "globex: good", "nobody: after"]


PROGRAMS = [
    thread,
    low_level_thread,
    scheduler,
    subclass_with_its_own_run,
    outlives_its_scope,
    made_in_scope_and_started_outside,
    started_in_a_thread,
    timer,
    dummy_process,
    shared_pool,
    one_thread_serves_all_in_turn,
    mapped,
    nested_pools,
    initializer,
    scopes_opened_in_the_work,
    thread_pool_of_multiprocessing,
    callbacks,
    run_in_executor,
    one_tenants_work_fails,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_every_request_has_its_owner(program: Any, observe: Any) -> None:
    seen = observe()
    prompts = program(lambda prompt: ask(seen.base_url, prompt))
    assert asked(seen.requests()) == owned(*prompts)
    rows = {(row.attribution.tenant_id, row.hop) for row in seen.records}
    assert rows <= {(tenant, hop) for tenant in TENANTS for hop in ("carried", "inherited")} | {(None, "none")}
    stamped = sorted(str(span.attributes.get("tenant.id")) for span in seen.call_spans())
    assert stamped == sorted(str(tenant) for tenant, _ in owned(*prompts).values())


def test_two_tenants_name_one_thread(observe: Any) -> None:
    seen = observe()
    with scope("acme"):
        made = threading.Thread(target=ask, args=(seen.base_url, "nobody: q"))
    with scope("globex"):
        started(made).join()
    ((tenant, _),) = asked(seen.requests()).values()
    assert tenant is None


def test_what_work_raises_has_the_traceback_it_had(observe: Any) -> None:
    def places(future: Future[Any]) -> list[str]:
        return [frame.name for frame in traceback.extract_tb(future.exception().__traceback__)]

    with ThreadPoolExecutor(1) as pool:
        bare = places(pool.submit(int, "x"))
        observe()
        with scope("acme"):
            assert places(pool.submit(int, "x")) == bare
        printed = []
        before, threading.excepthook = threading.excepthook, printed.append
        try:
            with scope("acme"):
                started(threading.Thread(target=int, args=("x",))).join()
        finally:
            threading.excepthook = before
    (raised,) = printed
    assert [frame.name for frame in traceback.extract_tb(raised.exc_traceback)] == ["_bootstrap_inner", "run"]


def test_nothing_is_kept_alive_and_nothing_is_left_on_a_thread(observe: Any) -> None:
    observe()

    class Big:
        pass

    with scope("acme"), ThreadPoolExecutor(1) as pool:
        argument = Big()
        gone = weakref.ref(argument)
        future = pool.submit(id, argument)
        del argument
        future.result()
        pool.submit(int).result()  # the worker has let go of the one before
        assert gone() is None
        worker = threading.Thread(target=int)
        before = set(vars(worker))
        worker.start()
        worker.join()
        assert set(vars(worker)) <= before


def test_a_cancelled_future_does_not_run(observe: Any) -> None:
    seen = observe()
    go = threading.Event()
    with scope("acme"), ThreadPoolExecutor(1) as pool:
        pool.submit(go.wait)
        waiting = pool.submit(ask, seen.base_url, "acme: never")
        assert waiting.cancel()
        go.set()
    assert not seen.requests()


def test_work_that_was_submitted_before_the_end_runs_after_it(observe: Any) -> None:
    observe()
    go, held = threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(go.wait)
        with scope("acme"):
            future = pool.submit(attribkit.current)
            future.add_done_callback(lambda _: held.append(attribkit.current().tenant_id))
        attribkit.uninstrument()
        with scope("globex"):
            later = pool.submit(attribkit.current)
        go.set()
        assert future.result().tenant_id == "acme"
        assert not later.result()
    assert held == ["acme"]


def test_turned_off(observe: Any) -> None:
    seen = observe(hops={"threads": False})
    with scope("acme"), ThreadPoolExecutor(1) as pool:
        pool.submit(ask, seen.base_url, "nobody: q").result()
        started(threading.Thread(target=ask, args=(seen.base_url, "nobody: thread"))).join()
    assert asked(seen.requests()) == owned("nobody: q", "nobody: thread")


def test_wrong_calls_raise_what_they_raised(observe: Any) -> None:
    wrong: list[Callable[[Any], Any]] = [
        lambda pool: pool.submit(),
        lambda pool: pool.submit("not callable").result(),
        lambda pool: Future().add_done_callback(),
        lambda pool: threading.Thread(target=int).start(1),
        lambda pool: ThreadPoolExecutor(1, initializer="not callable"),
        lambda pool: multiprocessing.pool.ThreadPool(0),
    ]

    def told(call: Callable[[Any], Any]) -> str:
        with ThreadPoolExecutor(1) as pool:
            try:
                call(pool)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        return "nothing"

    bare = [told(call) for call in wrong]
    observe()
    with scope("acme"):
        assert [told(call) for call in wrong] == bare


def test_an_executor_of_the_apps_own(observe: Any) -> None:
    seen = observe()

    class Counting(ThreadPoolExecutor):
        submitted = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            Counting.submitted += 1
            return super().submit(fn, *args, **kwargs)

    with Counting(1) as pool, scope("acme"):
        with pytest.raises(LookupError):
            pool.submit(fail, seen.base_url, prompt="acme: q").result()
    assert (Counting.submitted, asked(seen.requests())) == (1, owned("acme: q"))
