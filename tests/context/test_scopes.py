"""Scopes open, nest, end exactly, and serve the four kinds of callable wherever these run."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import pickle
import threading
from types import SimpleNamespace

import pytest

from attribkit.attribution import Attribution
from attribkit.context import attributed, carry, current, entrypoint, in_force, scope
from attribkit.errors import ConfigurationError


def tenant() -> str | None:
    return current().tenant_id


def test_no_scope_is_empty_not_none() -> None:
    assert current() == Attribution()
    assert not current()
    assert scope().hop == "none"


def test_inner_fields_win_and_exit_restores_exactly() -> None:
    with attributed(tenant_id="a", feature="f") as outer:
        with attributed(tenant_id="b", cost_center=None, team=""):
            assert current().as_dict() == {"tenant_id": "b", "feature": "f"}
        assert current() is outer
    assert current() == Attribution()


def test_exit_restores_when_the_body_raises() -> None:
    with pytest.raises(KeyError), attributed(tenant_id="a"):
        raise KeyError
    assert tenant() is None


def test_async_with() -> None:
    async def main() -> None:
        async with attributed(tenant_id="a") as here:
            await asyncio.sleep(0)
            assert here.tenant_id == tenant() == "a"
        assert tenant() is None

    asyncio.run(main())


@attributed(tenant_id="deco")
def plain(x: int) -> tuple[int, str | None]:
    return x, tenant()


@attributed(tenant_id="deco")
async def coroutine(x: int) -> tuple[int, str | None]:
    await asyncio.sleep(0)
    return x, tenant()


@attributed(tenant_id="deco")
def generator(n: int):  # type: ignore[no-untyped-def]
    """Documented."""
    for _ in range(n):
        yield tenant()
    return "done"


@attributed(tenant_id="deco")
async def async_generator(n: int):  # type: ignore[no-untyped-def]
    for _ in range(n):
        await asyncio.sleep(0)
        yield tenant()


def test_decorated_plain() -> None:
    assert plain(1) == (1, "deco")
    assert tenant() is None


def test_decorated_coroutine() -> None:
    assert asyncio.run(coroutine(2)) == (2, "deco")


def test_decorated_generator_keeps_the_scope_between_pulls_and_off_the_consumer() -> None:
    found = generator(2)
    with attributed(tenant_id="consumer"):
        assert next(found) == "deco"
        assert tenant() == "consumer"
        assert next(found) == "deco"
    with pytest.raises(StopIteration) as stop:
        next(found)
    assert stop.value.value == "done"


def test_decorated_async_generator() -> None:
    async def main() -> list[str | None]:
        seen = []
        async for item in async_generator(2):
            seen += [item, tenant()]
        return seen

    assert asyncio.run(main()) == ["deco", None, "deco", None]


def test_inspection_sees_the_decorated_kind() -> None:
    assert inspect.iscoroutinefunction(coroutine) and asyncio.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert not inspect.iscoroutinefunction(plain)
    for function in (plain, coroutine, generator, async_generator):
        assert list(inspect.signature(function).parameters) in (["x"], ["n"])
        assert pickle.loads(pickle.dumps(function)) is function
    assert generator.__doc__ == "Documented." and generator.__name__ == "generator"
    assert inspect.iscoroutinefunction(functools.partial(coroutine, 1))


def test_methods_and_static_and_class_methods() -> None:
    class Agent:
        @attributed(tenant_id="m")
        async def run(self) -> tuple[object, str | None]:
            return self, tenant()

        @attributed(tenant_id="s")
        @staticmethod
        def static() -> str | None:
            return tenant()

        @classmethod
        @attributed(tenant_id="c")
        def made(cls) -> tuple[type, str | None]:
            return cls, tenant()

    agent = Agent()
    assert inspect.iscoroutinefunction(agent.run)
    assert asyncio.run(agent.run()) == (agent, "m")
    assert Agent.static() == "s"
    assert Agent.made() == (Agent, "c")


def test_scopes_opened_inside_interleaved_generators_do_not_mix() -> None:
    @attributed(feature="g")
    def work(name: str):  # type: ignore[no-untyped-def]
        with attributed(tenant_id=name):
            yield tenant()
            yield tenant()
        yield tenant()

    a, b = work("a"), work("b")
    seen = []
    for _ in range(3):
        for each in (a, b):
            seen.append(next(each))
            assert tenant() is None
    assert seen == ["a", "b", "a", "b", None, None]


def test_generator_send_throw_and_close_reach_the_body() -> None:
    log = []

    @attributed(tenant_id="t")
    def echo():  # type: ignore[no-untyped-def]
        got = None
        try:
            while True:
                try:
                    got = yield got
                except LookupError:
                    got = ("caught", tenant())
        finally:
            log.append(tenant())

    found = echo()
    assert next(found) is None
    assert found.send(5) == 5
    assert found.throw(LookupError()) == ("caught", "t")
    found.close()
    assert log == ["t"]


def test_async_generator_abandoned_in_another_context_raises_nothing() -> None:
    closed = []

    @attributed(tenant_id="t")
    async def stream():  # type: ignore[no-untyped-def]
        try:
            yield 1
            yield 2
        finally:
            closed.append(tenant())

    async def main() -> None:
        async def first() -> None:
            async for _ in stream():
                break

        await asyncio.create_task(first())
        gc.collect()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert closed == ["t"]


def test_coroutine_made_in_a_scope_and_awaited_elsewhere() -> None:
    @attributed(feature="f")
    async def job() -> str | None:
        return tenant()

    async def main() -> list[str | None]:
        with attributed(tenant_id="a"):
            one = job()
        with attributed(tenant_id="b"):
            two = job()
        with attributed(tenant_id="c"):
            return list(await asyncio.gather(one, two))

    assert asyncio.run(main()) == ["a", "b"]


def test_reset_in_a_foreign_context_is_silent() -> None:
    opened = attributed(tenant_id="x")
    contextvars.copy_context().run(opened.__enter__)
    opened.__exit__(None, None, None)
    assert tenant() is None


# -- carry ------------------------------------------------------------------------------------------------------------


def test_carry_a_function_into_a_thread() -> None:
    seen = []
    with attributed(tenant_id="a"):
        work = carry(lambda: seen.append((tenant(), scope().hop)))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [("a", "carried")]


def test_carry_coroutines_generators_partials_and_instances() -> None:
    async def coro() -> str | None:
        await asyncio.sleep(0)
        return tenant()

    def gen():  # type: ignore[no-untyped-def]
        yield tenant()

    class Callme:
        def __call__(self) -> str | None:
            return tenant()

    def two(x: int) -> tuple[int, str | None]:
        return x, tenant()

    with attributed(tenant_id="a"):
        carried = carry(coro()), carry(gen()), carry(functools.partial(two, 1)), carry(Callme()), carry(coro)
    assert asyncio.run(carried[0]) == "a"
    assert list(carried[1]) == ["a"]
    assert carried[2]() == (1, "a")
    assert carried[3]() == "a"
    assert asyncio.run(carried[4]()) == "a"
    with pytest.raises(ConfigurationError, match="carry"):
        carry(5)  # type: ignore[call-overload]


# -- entrypoint -------------------------------------------------------------------------------------------------------


def test_entrypoint_resolves_paths_and_mints_a_workflow_id() -> None:
    @entrypoint("onboarding", tenant_id="customer.tenant_id", user_id="request.user.id", feature="doc-summary")
    def onboard(customer: object, request: dict[str, object], *, question: str = "") -> Attribution:
        return current()

    got = onboard(SimpleNamespace(tenant_id="acme"), {"user": {"id": 7}})
    assert got.as_dict() | {"workflow_id": ""} == {
        "tenant_id": "acme",
        "user_id": "7",
        "feature": "doc-summary",
        "workflow": "onboarding",
        "workflow_id": "",
    }
    other = onboard(SimpleNamespace(tenant_id="acme"), {"user": {}})
    assert other.user_id is None
    assert got.workflow_id < other.workflow_id


def test_entrypoint_inherits_a_workflow_id_and_nests() -> None:
    @entrypoint("inner")
    def inner() -> Attribution:
        return current()

    @entrypoint("outer", workflow_id="run_id")
    def outer(run_id: str) -> Attribution:
        return inner()

    got = outer("wf-1")
    assert (got.workflow, got.workflow_id) == ("inner", "wf-1")


def test_entrypoint_takes_a_callable_and_survives_its_fault() -> None:
    @entrypoint("w", tenant_id=lambda customer: customer["t"], team=lambda customer: 1 / 0)
    async def run(customer: dict[str, str]) -> Attribution:
        return current()

    got = asyncio.run(run({"t": "acme"}))
    assert got.tenant_id == "acme" and got.team is None


def test_entrypoint_with_a_wrong_path_says_so_where_it_stands() -> None:
    with pytest.raises(ConfigurationError, match=r"custmer.*customer"):

        @entrypoint("w", tenant_id="custmer.id")
        def run(customer: object) -> None: ...


def test_entrypoint_on_four_kinds() -> None:
    @entrypoint("w", tenant_id="t")
    def plain_(t: str) -> str | None:
        return tenant()

    @entrypoint("w", tenant_id="t")
    async def coro(t: str) -> str | None:
        return tenant()

    @entrypoint("w", tenant_id="t")
    def gen(t: str):  # type: ignore[no-untyped-def]
        yield tenant()

    @entrypoint("w", tenant_id="t")
    async def agen(t: str):  # type: ignore[no-untyped-def]
        yield tenant()

    async def pulled() -> list[str | None]:
        return [x async for x in agen("d")]

    assert plain_("a") == "a"
    assert asyncio.run(coro("b")) == "b"
    assert list(gen(t="c")) == ["c"]
    assert asyncio.run(pulled()) == ["d"]
    with pytest.raises(TypeError):
        plain_()  # type: ignore[call-arg]


def test_a_plain_function_that_returns_a_coroutine_keeps_the_scope_for_it() -> None:
    async def body() -> str | None:
        await asyncio.sleep(0)
        return tenant()

    @entrypoint("w", tenant_id="t")
    def handler(t: str):  # type: ignore[no-untyped-def]
        return body()

    assert asyncio.run(handler("a")) == "a"


def test_values_are_cleaned_never_refused() -> None:
    class Weird:
        def __str__(self) -> str:
            return "w"

    with attributed(tenant_id=Weird(), **{"bad key!": 3, "long": "x" * 5000}):  # type: ignore[arg-type]
        got = current()
    assert got.tenant_id == "w"
    assert got.get("bad_key_") == "3"
    assert len(got.get("long") or "") == 1024
    assert in_force().attribution == Attribution()
