"""Coroutine and async generator objects that run elsewhere than in the scope in which they were made."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import attribkit
from attribkit import context
from attribkit.instrumentation.hops import tasks


class On:
    """What finds out where coroutines were made. It is loaded with the first scope, or when a test asks for it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(tasks._on[0]._wake(), name)


@pytest.fixture
def on() -> On:
    attribkit.instrument(ledger=None)
    return On()


def tenant() -> str | None:
    return context.in_force().attribution.tenant_id


async def ask(steps: int = 1) -> str | None:
    before = tenant()
    for _ in range(steps):
        await asyncio.sleep(0)
        assert tenant() == before
    return before


async def answers(count: int = 3) -> AsyncIterator[str | None]:
    for _ in range(count):
        with attribkit.attributed(feature="answer"):
            here = attribkit.current()
            assert here.get("feature") == "answer"
        yield here.tenant_id
        await asyncio.sleep(0)


def run_together(threads: list[threading.Thread], switching: float) -> None:
    """Run threads to their end, with a switch between them as often as every so many seconds."""
    often = sys.getswitchinterval()
    sys.setswitchinterval(switching)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(often)


def made(work: Callable[[], Any], *names: str) -> list[Any]:
    """Make one object in the scope of each tenant."""
    found = []
    for name in names:
        with attribkit.attributed(tenant_id=name):
            found.append(work())
    return found


WHO = ("acme", "globex", "initech")


def test_gather_after_the_scopes_have_closed(on: On) -> None:
    async def main() -> None:
        assert await asyncio.gather(*made(ask, *WHO)) == list(WHO)

    asyncio.run(main())
    assert not on.made


def test_gather_under_a_third_tenant(on: On) -> None:
    async def main() -> None:
        jobs = made(ask, *WHO)
        with attribkit.attributed(tenant_id="umbrella"):
            assert await asyncio.gather(*jobs, ask()) == [*WHO, "umbrella"]

    asyncio.run(main())


def test_a_coroutine_that_is_awaited_in_another_scope(on: On) -> None:
    async def main() -> None:
        for job, name in zip(made(ask, *WHO), WHO, strict=True):
            with attribkit.attributed(tenant_id="umbrella"):
                assert await job == name
                assert tenant() == "umbrella"

    asyncio.run(main())


def test_what_such_a_coroutine_starts_is_its_own(on: On) -> None:
    async def work() -> list[str | None]:
        with attribkit.attributed(feature="inner"):
            inner = attribkit.current()
        in_thread = await asyncio.to_thread(tenant)
        in_task = await asyncio.create_task(ask())
        async with asyncio.TaskGroup() as group:
            grouped = group.create_task(ask())
        timed = await asyncio.wait_for(ask(), 5)
        return [tenant(), inner.tenant_id, in_thread, in_task, grouped.result(), timed]

    async def main() -> None:
        for job, name in zip(made(work, *WHO), WHO, strict=True):
            with attribkit.attributed(tenant_id="umbrella"):
                assert await job == [name] * 6
        assert await asyncio.gather(*made(work, *WHO)) == [[name] * 6 for name in WHO]

    asyncio.run(main())


@pytest.mark.parametrize(
    "run",
    [
        lambda job: asyncio.wait_for(job, 5),
        lambda job: asyncio.shield(job),
        lambda job: asyncio.create_task(job, name="named"),
        lambda job: asyncio.ensure_future(job),
        lambda job: asyncio.gather(asyncio.gather(job)),
        lambda job: next(asyncio.as_completed([job])),
    ],
)
def test_every_way_to_start_one(on: On, run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        (job,) = made(ask, "acme")
        with attribkit.attributed(tenant_id="umbrella"):
            result = await run(job)
        assert str(result).strip("[]'") == "acme"

    asyncio.run(main())


def test_run_is_a_way_too(on: On) -> None:
    (job,) = made(ask, "acme")
    assert asyncio.run(job) == "acme"
    (job,) = made(ask, "acme")
    with attribkit.attributed(tenant_id="umbrella"):
        assert asyncio.run(job) == "acme"


def test_another_threads_loop(on: On) -> None:
    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever)
    runner.start()
    try:
        jobs = made(ask, *WHO)
        assert [asyncio.run_coroutine_threadsafe(job, loop).result(5) for job in jobs] == list(WHO)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        runner.join()
        loop.close()


def test_async_generators_that_are_iterated_elsewhere_and_interleaved(on: On) -> None:
    async def main() -> None:
        streams = made(answers, *WHO)
        with attribkit.attributed(tenant_id="umbrella"):
            for _ in range(3):
                assert [await anext(stream) for stream in streams] == list(WHO)
                assert tenant() == "umbrella"
            for stream in streams:
                await stream.aclose()

    asyncio.run(main())


def test_fields_that_are_carried_win_over_where_it_was_made(on: On) -> None:
    async def main() -> None:
        (job,) = made(ask, "acme")
        with attribkit.attributed(tenant_id="globex"):
            job = attribkit.carry(job)
        assert await job == "globex"

    asyncio.run(main())


def test_a_scope_within_the_one_in_which_it_was_made(on: On) -> None:
    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            job, other, stream, own = ask(), ask(), answers(), ask()
            with attribkit.attributed(tenant_id="globex"):
                task = asyncio.create_task(job)
                assert await other == "acme"
                assert await anext(stream) == "acme"
                assert await ask() == "globex"
            assert await own == "acme"
        assert await task == "acme"
        await stream.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("task", [False, True])
def test_scopes_that_its_body_opens_are_its_own(on: On, task: bool, suspended: bool) -> None:
    async def body() -> list[str | None]:
        seen = [tenant()]
        with attribkit.attributed(tenant_id="inner"):
            seen.append(tenant())
            await asyncio.sleep(0)
            seen.append(await ask())
            with attribkit.attributed(feature="x"):
                seen.append(tenant())
        return [*seen, tenant()]

    async def other() -> None:
        with attribkit.attributed(tenant_id="globex"):
            await asyncio.sleep(0.01)

    async def main() -> None:
        nobodys = body()
        elsewhere = asyncio.create_task(other())
        await asyncio.sleep(0)
        with attribkit.attributed(tenant_id="acme"):
            if suspended:
                await asyncio.sleep(0)
            mine = body()
            with attribkit.attributed(feature="y"):
                pass
            got = await (asyncio.create_task(mine) if task else mine)
            assert got == ["acme", "inner", "inner", "inner", "acme"]
        got = await (asyncio.create_task(nobodys) if task else nobodys)
        assert got == [None, "inner", "inner", "inner", None]
        await elsewhere

    asyncio.run(main())


def test_a_task_keeps_the_scope_in_which_it_was_created(on: On) -> None:
    async def main() -> None:
        job = ask()
        with attribkit.attributed(tenant_id="globex"):
            task = asyncio.create_task(job)
        assert await task == "globex"

    asyncio.run(main())


@pytest.mark.parametrize("awaited_before", [False, True])
@pytest.mark.parametrize("collected", [False, True])
@pytest.mark.parametrize("work", [ask, answers])
def test_one_that_is_handed_on_while_its_scope_is_open(
    on: On, work: Callable[[], Any], collected: bool, awaited_before: bool
) -> None:
    """The scope in which it is started was opened later: it never runs for that one."""
    handed: list[Any] = []
    done = asyncio.Event()

    async def maker() -> None:
        with attribkit.attributed(tenant_id="acme"):
            if awaited_before:
                await asyncio.sleep(0)
            handed.append(work())
            if collected:
                gc.collect(0)
            await done.wait()

    async def taker() -> None:
        while not handed:
            await asyncio.sleep(0)
        with attribkit.attributed(tenant_id="globex"):
            job = handed.pop()
            assert await (job if asyncio.iscoroutine(job) else anext(job)) in ("acme", None)
            assert tenant() == "globex"
        done.set()

    async def main() -> None:
        await asyncio.gather(maker(), taker())

    asyncio.run(main())


async def nothing_else() -> None:
    """Nobody else opens a scope meanwhile."""


async def others() -> None:
    while True:
        with attribkit.attributed(tenant_id="initech"):
            await asyncio.sleep(0)
        await asyncio.sleep(0)


@pytest.mark.parametrize("beside", [nothing_else, others])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("start", [lambda job: job, asyncio.create_task])
@pytest.mark.parametrize("taker", ["globex", None])
@pytest.mark.parametrize("work", [ask, lambda steps: first(answers(), steps)])
def test_one_that_is_started_in_a_scope_that_was_open_all_the_time(
    on: On, work: Any, taker: str | None, start: Any, steps: int, beside: Any
) -> None:
    """Neither the maker's scope nor the taker's opens or closes between making and starting it."""
    handed: list[Any] = []

    async def main() -> None:
        ready, done, opened = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def make() -> None:
            await opened.wait()
            with attribkit.attributed(tenant_id="acme"):
                await asyncio.sleep(0)
                handed.append(work(steps))
                ready.set()
                await done.wait()

        async def take() -> None:
            with attribkit.attributed(tenant_id=taker):
                opened.set()
                await ready.wait()
                assert await start(handed.pop()) == "acme"
                assert tenant() == taker
            done.set()

        noise = asyncio.create_task(beside())
        await asyncio.wait_for(asyncio.gather(take(), make()), 10)
        noise.cancel()

    asyncio.run(main())


async def first(items: AsyncIterator[Any], steps: int) -> Any:
    for _ in range(steps):
        await asyncio.sleep(0)
    found = [item async for item in items]
    assert len(set(found)) == 1
    return found[0]


def test_a_body_in_its_own_scope_may_put_others_in_force(on: On) -> None:
    """That it was made in the first scope takes nothing from those that are opened or restored later."""
    with attribkit.attributed(tenant_id="umbrella"):
        captured = context.scope()

    async def body() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
            assert await ask() == "acme"
            with attribkit.attributed(tenant_id="globex"):
                await asyncio.sleep(0)
                assert tenant() == "globex"
                assert await ask() == "globex"
            with context.restored(captured):
                await asyncio.sleep(0)
                assert tenant() == "umbrella"
                assert await ask() == "umbrella"
            assert tenant() == "acme"
            with attribkit.attributed(user_id="ada"):
                await asyncio.sleep(0)
                assert context.in_force().attribution.user_id == "ada"

    async def main() -> None:
        noise = asyncio.create_task(others())
        with attribkit.attributed(tenant_id="acme"):
            await body()
        noise.cancel()

    asyncio.run(main())


def test_other_listeners_to_garbage_collections(on: On) -> None:
    """Another's callback that is added later comes before ours, so that nothing is made unseen in between."""
    made_late: list[Any] = []

    def late(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and not made_late and tenant() == "acme":
            made_late.append(ask())

    async def main() -> None:
        gc.callbacks.append(late)
        try:
            with attribkit.attributed(tenant_id="acme"):
                gc.collect(0)
            with attribkit.attributed(tenant_id="globex"):
                assert await made_late.pop() == "acme"
        finally:
            gc.callbacks.remove(late)

    asyncio.run(main())


def test_an_async_generator_of_nobodys_runs_for_whoever_iterates_it(on: On) -> None:
    async def main() -> None:
        stream = answers()
        with attribkit.attributed(tenant_id="acme"):
            with attribkit.attributed(feature="inner"):
                pass
            assert await anext(stream) == "acme"
        await stream.aclose()

    asyncio.run(main())


def test_decorated_callables_know_it_by_themselves(on: On) -> None:
    @attribkit.attributed(feature="search")
    async def decorated() -> tuple[str | None, str | None]:
        return tenant(), context.in_force().attribution.get("feature")

    async def main() -> None:
        jobs = made(decorated, *WHO)
        with attribkit.attributed(tenant_id="umbrella"):
            assert await asyncio.gather(*jobs) == [(name, "search") for name in WHO]

    asyncio.run(main())


def test_exceptions_and_cancellation_are_what_they_were(on: On) -> None:
    async def failing() -> None:
        assert tenant() == "acme"
        await asyncio.sleep(0)
        raise LookupError("gone")

    async def endless() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        (job, ok) = (*made(failing, "acme"), *made(ask, "globex"))
        results = await asyncio.gather(job, ok, return_exceptions=True)
        assert isinstance(results[0], LookupError) and results[1] == "globex"
        (job,) = made(endless, "acme")
        task = asyncio.create_task(job)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_thousand_of_them_across_garbage_collections(on: On) -> None:
    async def main() -> None:
        jobs = []
        for name in WHO:
            with attribkit.attributed(tenant_id=name):
                jobs += [ask(0) for _ in range(1500)]
                if name == "globex":
                    gc.collect()
        with attribkit.attributed(tenant_id="umbrella"):
            got = await asyncio.gather(*jobs)
        assert got == [name for name in WHO for _ in range(1500)]

    asyncio.run(main())
    assert not on.made


def test_one_that_cannot_be_told_has_no_tenant_and_names_its_line(
    on: On, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a loop that is not asyncio's own, whose steps nobody sees."""
    monkeypatch.setattr(tasks._on[0]._wake(), "_seen", lambda: False)

    async def main() -> None:
        (job,) = made(ask, "initech")
        with attribkit.attributed(tenant_id="umbrella"):
            assert await job == "initech"  # made and found within one step
        with attribkit.attributed(tenant_id="acme"):
            await asyncio.sleep(0.001)
            job, other = ask(), ask()
            assert await other == "acme"
        with attribkit.attributed(tenant_id="globex", feature="x"):
            assert await job is None
            assert tenant() == "globex"

    with caplog.at_level(logging.WARNING, logger="attribkit"):
        asyncio.run(main())
    assert __file__ in caplog.text and "carry" in caplog.text


def test_made_after_its_scope_has_awaited(on: On) -> None:
    async def serve(name: str, jobs: list[Any]) -> None:
        with attribkit.attributed(tenant_id=name):
            for _ in range(3):
                await asyncio.sleep(0)
                jobs.append(ask())

    async def main() -> None:
        jobs: list[Any] = []
        await asyncio.gather(*(serve(name, jobs) for name in WHO))
        got = await asyncio.gather(*jobs[:3])
        with attribkit.attributed(tenant_id="umbrella"):
            got += await asyncio.gather(*jobs[3:6])
            got += [await job for job in jobs[6:]]
        assert got == [*WHO] * 3

    asyncio.run(main())
    assert not on.made


def test_the_last_of_several_starts_what_all_have_made(on: On) -> None:
    """Their scopes are open all the time, as those of requests whose calls are batched."""
    pending: list[Any] = []

    async def serve(name: str) -> list[str | None]:
        with attribkit.attributed(tenant_id=name):
            await asyncio.sleep(0.001)
            pending.append(ask())
            if len(pending) < len(WHO):
                await asyncio.sleep(0.01)
                return []
            got = await asyncio.gather(*pending, ask())
            assert tenant() == name == got.pop()
            return got

    async def main() -> None:
        got = await asyncio.gather(*map(serve, WHO))
        assert got == [[], [], [*WHO]]

    asyncio.run(main())


def test_a_scope_that_a_pool_or_a_queue_has_put_in_force(on: On) -> None:
    async def main() -> None:
        jobs = []
        for name in WHO:
            with context.restored(context.Scope(attribkit.Attribution.of({"tenant_id": name}), "carried")):
                jobs.append(ask())
        with attribkit.attributed(tenant_id="umbrella"):
            assert await asyncio.gather(*jobs, ask()) == [*WHO, "umbrella"]

    asyncio.run(main())


def test_a_task_with_a_context_of_its_own(on: On) -> None:
    async def main() -> None:
        tasks, mine = [], contextvars.Context()
        with attribkit.attributed(tenant_id="globex"):
            mine.run(context.enter, context.scope())
        for name in WHO:
            with attribkit.attributed(tenant_id=name):
                tasks.append(asyncio.create_task(ask(), context=contextvars.Context()))
                tasks.append(asyncio.create_task(ask(), context=mine))
        assert await asyncio.gather(*tasks) == ["acme", "globex", "globex", "globex", "initech", "globex"]

    asyncio.run(main())


def test_more_threads_than_their_stacks_are_high(on: On) -> None:
    """A thread's number is how many frames are recorded: those that are left without one take nobody's work."""
    together, jobs = threading.Barrier(12), []

    def serve(name: str) -> None:
        with attribkit.attributed(tenant_id=name):
            together.wait(10)
            job = ask()
            together.wait(10)
        jobs.append((name, job))

    async def main() -> None:
        with attribkit.attributed(tenant_id="umbrella"):
            threads = [threading.Thread(target=serve, args=(f"tenant-{number}",)) for number in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            got = await asyncio.gather(*(job for _, job in jobs))
        right = [mine == name for mine, (name, _) in zip(got, jobs, strict=True)]
        assert sum(right) >= 2
        assert {mine for mine, was in zip(got, right, strict=True) if not was} <= {None}

    asyncio.run(main())


def test_one_that_is_awaited_where_it_was_made_is_told(on: On) -> None:
    """Others open and close scopes meanwhile, and the loop goes on: the scope that was open all the time has it."""

    async def busy(name: str) -> None:
        for _ in range(20):
            with attribkit.attributed(tenant_id=name):
                await asyncio.sleep(0)
                jobs = [ask(), ask()]
                await asyncio.sleep(0)
                assert [await job for job in jobs] == [name, name]

    async def main() -> None:
        await asyncio.gather(*(busy(f"tenant-{number}") for number in range(20)))

    asyncio.run(main())


def test_nothing_is_recorded_once_the_scopes_are_closed(on: On) -> None:
    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            assert sys.get_coroutine_origin_tracking_depth() > 0
            await asyncio.sleep(0)
        assert sys.get_coroutine_origin_tracking_depth() == 0

    asyncio.run(main())
    with attribkit.attributed(tenant_id="acme"), attribkit.attributed(feature="x"):
        pass
    assert sys.get_coroutine_origin_tracking_depth() == 0
    attribkit.uninstrument()
    with attribkit.attributed(tenant_id="acme"):
        assert sys.get_coroutine_origin_tracking_depth() == 0


def test_debug_mode_keeps_its_own_recording(on: On) -> None:
    async def main() -> None:
        depth = sys.get_coroutine_origin_tracking_depth()
        jobs = made(ask, *WHO)
        assert sys.get_coroutine_origin_tracking_depth() == depth == 10
        assert len(jobs[0].cr_origin) > 1
        with attribkit.attributed(tenant_id="umbrella"):
            got = await asyncio.gather(*jobs)
        assert all(each in (name, None) for each, name in zip(got, WHO, strict=True))

    asyncio.run(main(), debug=True)


def test_never_a_wrong_tenant_whatever_threads_and_loops_do(on: On) -> None:
    """Threads, with loops and without, make objects in scopes that are suspended or not, and run each other's."""
    made: list[tuple[str, Any]] = []
    wrong: list[tuple[str, str | None]] = []
    right = [0]
    lock = threading.Lock()

    async def check(name: str, work: Any) -> None:
        got = await work if asyncio.iscoroutine(work) else await anext(work)
        if got == name:
            right[0] += 1
        elif got is not None:
            wrong.append((name, got))
        if not asyncio.iscoroutine(work):
            await work.aclose()

    async def run_some(rng: random.Random) -> None:
        with lock:
            mine = [made.pop(rng.randrange(len(made))) for _ in range(min(len(made), 5))]
        for name, work in mine:
            chance = rng.random()
            if chance < 0.5:
                with attribkit.attributed(tenant_id=f"runner-{rng.random()}"):
                    await check(name, work)
            elif chance < 0.7:
                with attribkit.attributed(tenant_id=f"runner-{rng.random()}"):
                    await asyncio.sleep(0)
                    with attribkit.attributed(tenant_id=f"nested-{rng.random()}"):
                        await check(name, work)
            else:
                await asyncio.gather(check(name, work))

    async def make_some(rng: random.Random) -> None:
        name = f"tenant-{rng.random()}"
        with attribkit.attributed(tenant_id=name):
            if rng.random() < 0.3:
                await asyncio.sleep(0)
            objects = [ask() if rng.random() < 0.6 else answers() for _ in range(rng.randrange(4))]
            early = rng.random() < 0.3
            if early:
                with lock:
                    made.extend((name, each) for each in objects)
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        if not early:
            with lock:
                made.extend((name, each) for each in objects)

    async def looped(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(120):
            await asyncio.gather(make_some(rng), run_some(rng), make_some(rng))

    def sync(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(120):
            name = f"tenant-{rng.random()}"
            with attribkit.attributed(tenant_id=name):
                objects = [ask() for _ in range(2)]
            with lock:
                made.extend((name, each) for each in objects)
            if rng.random() < 0.3:
                asyncio.run(run_some(rng))

    threads = [threading.Thread(target=asyncio.run, args=(looped(seed),)) for seed in range(3)]
    threads += [threading.Thread(target=sync, args=(seed,)) for seed in range(10, 12)]
    seldom = gc.get_threshold()
    gc.set_threshold(100, 3, 3)
    try:
        run_together(threads, 1e-5)
    finally:
        gc.set_threshold(*seldom)

    async def rest() -> None:
        while made:
            await run_some(random.Random(1))

    asyncio.run(rest())
    assert wrong == []
    assert right[0] > 300


def test_scopes_that_interleaved_generators_open(on: On) -> None:
    async def own(name: str) -> AsyncIterator[str | None]:
        with attribkit.attributed(tenant_id=name):
            for _ in range(3):
                await asyncio.sleep(0)
                in_task = await asyncio.create_task(ask())
                assert in_task == tenant()
                with attribkit.attributed(feature="inner"):
                    yield attribkit.current().tenant_id
                assert tenant() == in_task

    def plain(name: str) -> Iterator[str | None]:
        with attribkit.attributed(tenant_id=name):
            for _ in range(3):
                yield tenant()

    async def main() -> None:
        streams = [own(name) for name in WHO]
        for _ in range(3):
            assert [await anext(stream) for stream in streams] == list(WHO)
        for stream in streams:
            assert await anext(stream, "end") == "end"
        assert tenant() is None
        iterators = [plain(name) for name in WHO]
        for _ in range(3):
            assert [next(each) for each in iterators] == list(WHO)
        for each in reversed(iterators):
            assert next(each, "end") == "end"
        assert tenant() is None

    asyncio.run(main())
    assert tenant() is None
    assert not on.made


def test_what_is_made_beside_a_scope_that_a_generator_holds_open(on: On) -> None:
    async def holding() -> AsyncIterator[None]:
        with attribkit.attributed(tenant_id="globex"):
            yield

    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            stream = holding()
            await anext(stream)
            job = ask()
            await stream.aclose()
        with attribkit.attributed(tenant_id="umbrella"):
            assert await job in ("acme", None)

    asyncio.run(main())


def test_a_forked_child_begins_anew(on: On) -> None:
    async def elsewhere(opened: threading.Event, over: threading.Event) -> None:
        with attribkit.attributed(tenant_id="globex"):
            await asyncio.sleep(0)
            opened.set()
            await asyncio.to_thread(over.wait)

    opened, over = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: asyncio.run(elsewhere(opened, over)))
    other.start()
    opened.wait()
    on._births.asking.acquire()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12: a fork with several threads
        child = os.fork()
    if child == 0:
        (job,) = made(ask, "acme")
        os._exit(0 if asyncio.run(job) == "acme" and not on._blind else 1)
    on._births.asking.release()
    over.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_context_manager_made_of_a_generator_is_whose_it_is(on: On) -> None:
    @contextlib.contextmanager
    def scoped(name: str) -> Iterator[None]:
        with attribkit.attributed(tenant_id=name):
            yield

    async def own(name: str) -> AsyncIterator[str | None]:
        with scoped(name):
            for _ in range(2):
                yield tenant()

    async def main() -> None:
        with scoped("umbrella"):
            streams = [own(name) for name in WHO]
            for _ in range(2):
                assert [await anext(stream) for stream in streams] == list(WHO)
            for stream in reversed(streams):
                await stream.aclose()
            assert tenant() == "umbrella"

    asyncio.run(main())
    assert not on.made


@pytest.mark.parametrize("timed", [False, True])
def test_made_of_a_queues_items_and_gathered_together(on: On, timed: bool) -> None:
    """A micro-batcher: all start under the last one's item. Whether it works on one or on all is not always certain."""

    async def main() -> None:
        queue: asyncio.Queue[str | None] = asyncio.Queue()

        async def batcher() -> list[tuple[str, str | None]]:
            names, batch = [], []
            while True:
                name = await (asyncio.wait_for(queue.get(), 5) if timed else queue.get())
                if name is None:
                    return list(zip(names, await asyncio.gather(*batch), strict=True))
                names.append(name)
                batch.append(ask())

        task = asyncio.create_task(batcher())
        await asyncio.sleep(0)
        for name in WHO * 2:
            with attribkit.attributed(tenant_id=name):
                await queue.put(name)
        await queue.put(None)
        assert all(got in (name, None) for name, got in await task)

    asyncio.run(main())


def test_threads_beyond_those_that_can_be_told_apart_keep_their_own_work(on: On) -> None:
    seen: list[tuple[str, str | None]] = []

    async def serve(name: str) -> None:
        with attribkit.attributed(tenant_id=name):
            for _ in range(3):
                seen.append((name, await ask(2)))
                seen.extend([(name, each) async for each in answers()])

    async def main(number: int) -> None:
        await asyncio.gather(*(serve(f"tenant-{number}-{each}") for each in range(3)))

    threads = [threading.Thread(target=asyncio.run, args=(main(number),)) for number in range(30)]
    run_together(threads, 1e-4)
    assert len(seen) == 30 * 3 * 3 * 4
    assert [pair for pair in seen if pair[0] != pair[1]] == []


# -- the first scope of all -------------------------------------------------------------------------------------------


def test_nothing_is_looked_for_before_the_first_scope(on: On) -> None:
    before = list(gc.callbacks)
    asyncio.run(ask())
    assert tasks._awake == [] and gc.callbacks == before
    attribkit.uninstrument()
    assert context._origins is None


def test_first_scopes_of_several_threads_at_a_time(on: On) -> None:
    ready = threading.Barrier(4)
    made: dict[str, Any] = {}

    def open_one(name: str) -> None:
        ready.wait()
        with attribkit.attributed(tenant_id=name):
            made[name] = ask()

    run_together([threading.Thread(target=open_one, args=(f"t{i}",)) for i in range(4)], 1e-5)
    assert len(tasks._awake) == 1 and context._origins is tasks._awake[0]

    async def main() -> dict[str, str | None]:
        return {name: await work for name, work in made.items()}

    assert asyncio.run(main()) == {name: name for name in made}


def test_a_loop_that_runs_when_another_thread_opens_the_first_scope(on: On) -> None:
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever)
    running.start()

    async def keep() -> Any:
        with attribkit.attributed(tenant_id="inner"):
            return ask()

    async def run(work: Any) -> str | None:
        return await work

    try:
        with attribkit.attributed(tenant_id="acme"):
            made = asyncio.run_coroutine_threadsafe(keep(), loop).result()
        with attribkit.attributed(tenant_id="globex"):
            assert asyncio.run_coroutine_threadsafe(run(made), loop).result() == "inner"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        running.join()
        loop.close()
    assert loop._attribkit_thread is None


AMID_GARBAGE = """
import gc, threading, time
from attribkit.instrumentation.hops import coroutines

class Kept: pass

for _ in range(40):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
gc.set_threshold(30)
for _ in range(2000):
    kept = Kept()
    kept.itself, kept.local = kept, threading.local()
    kept.local.value = 1
    del kept
    coroutines._others()
print("done", flush=True)
import os; os._exit(0)
"""


def test_a_collection_that_frees_what_is_local_to_threads_stops_nothing() -> None:
    """Python 3.11 waits for ever where one begins while it lists the threads' frames."""
    ran = subprocess.run([sys.executable, "-c", AMID_GARBAGE], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "done\n", ran.stderr


@pytest.mark.parametrize("begins_in_scope", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("handed", ["coroutine", "callback"])
def test_scopes_that_come_from_another_thread_into_a_loop(
    handed: str, nested: bool, begins_in_scope: bool, on: On
) -> None:
    """No scope is ever opened in a loop: what one tenant's task makes there is its own where another's awaits it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    made: list[Any] = []
    if not begins_in_scope:
        thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(5)

    async def make() -> None:
        made.append(ask())

    async def use() -> str | None:
        result: str | None = await made.pop()
        return result

    with contextlib.ExitStack() as outer:
        with attribkit.attributed(tenant_id="acme"):
            if begins_in_scope:
                thread.start()
            if handed == "coroutine":
                run(make())
            else:
                loop.call_soon_threadsafe(lambda: made.append(ask()))
                run(asyncio.sleep(0))
            if nested:
                outer.enter_context(attribkit.attributed(tenant_id="globex"))
                assert run(use()) == "acme"
        if not nested:
            with attribkit.attributed(tenant_id="globex"):
                assert run(use()) == "acme"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
