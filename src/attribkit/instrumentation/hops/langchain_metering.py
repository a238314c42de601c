"""LangChain models whose SDK no patch sees: metered once, from the usage that the framework restates.

A chat model's call goes through the framework whatever SDK is below. Whether a patched client has seen it is asked of
the pipeline: each operation that begins tells the meters above it, which then stand back. So a model that calls a model
is counted where the request leaves, and an answer from the application's own cache, for which none leaves, is a row of
cost 0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any

from attribkit import faults
from attribkit.calls import Reply
from attribkit.context import Scope, bound, enter, in_force, leave, restored, scope
from attribkit.errors import AttributionRequired, BudgetExceeded
from attribkit.instrumentation.hops.langchain import completed
from attribkit.instrumentation.hops.langchain_kinds import Kinds
from attribkit.instrumentation.hops.langchain_replies import (
    Tally,
    call_of_llm,
    call_of_model,
    of_llm_result,
    of_result,
)
from attribkit.pipeline import Operation, Pipeline

__all__ = ["CACHED", "Metering"]

CACHED = "served from the application's cache"
"""The reason on the row of an answer for which no request left."""


class Meter:
    """One run of a model, in its scope while it lasts; knows the meters above it."""

    __slots__ = ("begun", "hit", "operation", "outer")

    def __init__(self, outer: object) -> None:
        self.outer = outer if type(outer) is Meter else None
        self.begun = False
        """Whether a client, or a model inside, has begun an operation of its own."""
        self.hit = False
        """Whether the answer came from the application's cache."""
        self.operation: Operation | None = None
        """The operation of this run itself, until one below begins."""


def _begun() -> None:
    """An operation begins: it is the call for which the meters above it stand."""
    meter = scope().operation
    while type(meter) is Meter:
        meter.begun = True
        if meter.operation is not None:
            meter.operation.withdraw()
        meter = meter.outer


def _run_metadata(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    manager = kwargs.get("run_manager") or (args[2] if len(args) > 2 else None)
    return getattr(manager, "metadata", None)


def _failed(inner: Scope, error: BaseException) -> None:
    meter = inner.operation
    assert type(meter) is Meter
    if meter.operation is not None:
        meter.operation.fail(error)


class _InMeter:
    """Puts a run's scope in force for the length of a block; a block that raises fails the run."""

    __slots__ = ("_scope", "_token")

    def __init__(self, inner: Scope) -> None:
        self._scope = inner

    def __enter__(self) -> None:
        self._token = enter(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                _failed(self._scope, error)
        finally:
            leave(self._token, self._scope)


class Metering:
    """Puts a meter around each run of a model, and makes the row of those that no client has seen."""

    def __init__(self, pipeline: Pipeline, kinds: Kinds) -> None:
        self._pipeline = pipeline
        self._kinds = kinds
        pipeline.begun = _begun

    # -- one run ------------------------------------------------------------------------------------------------------

    def _start(self, model: Any, there: Scope, facts: Callable[[], Any], *, stream: bool, wait: bool = True) -> Scope:
        """Return the scope of a run, with its meter. Raises what refuses a call, before the call is made."""
        meter = Meter(there.operation)
        try:
            if not self._kinds.begun_below(model, stream):
                operation = self._pipeline.begin(facts(), there.attribution, there.hop, wait=wait)
                if not operation.waits:
                    operation.next_attempt()
                meter.operation = operation
        except (AttributionRequired, BudgetExceeded):
            raise
        except Exception as fault:
            faults.note("langchain.begin", fault)
        return Scope(there.attribution, there.hop, meter)

    async def _astart(self, model: Any, there: Scope, facts: Callable[[], Any], *, stream: bool) -> Scope:
        inner = self._start(model, there, facts, stream=stream, wait=False)
        meter = inner.operation
        if type(meter) is Meter and meter.operation is not None and meter.operation.waits:
            await meter.operation.admitted()
            meter.operation.next_attempt()
        return inner

    def _done(self, inner: Scope, model: Any, facts: Callable[[], Any], reply: Callable[[], Reply]) -> None:
        meter = inner.operation
        assert type(meter) is Meter
        try:
            if meter.hit:
                if meter.operation is not None:
                    meter.operation.withdraw()
                self._cached(inner, facts(), reply()._replace(usage=None))
            elif meter.begun:
                self._kinds.learn(model, False)
            else:
                operation = meter.operation
                if operation is None:
                    with restored(Scope(inner.attribution, inner.hop, meter.outer)):
                        operation = self._pipeline.served(facts(), inner.attribution, inner.hop)
                operation.finish(reply())
        except Exception as fault:
            faults.note("langchain.finish", fault)

    def _cached(self, there: Scope, call: Any, reply: Reply) -> None:
        _begun()  # a model above is answered by this
        operation = Operation(self._pipeline, call, there.attribution, there.hop, self._pipeline.target(call.url))
        operation.finish_free(CACHED, reply)

    # -- chat models --------------------------------------------------------------------------------------------------

    def generate(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.generated(wrapped, instance, args, kwargs, completed(_run_metadata(args, kwargs)))

    def generated(
        self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], there: Scope | None
    ) -> Any:
        """Run a model whose run's metadata completes the scope to `there`."""
        if self._kinds.seen_below(instance, False):
            if there is None:
                return wrapped(*args, **kwargs)
            with restored(there):
                return wrapped(*args, **kwargs)
        facts = call_of_model(instance, args, kwargs)
        inner = self._start(instance, there or in_force(), facts, stream=False)
        with _InMeter(inner):
            result = wrapped(*args, **kwargs)
        self._done(inner, instance, facts, lambda: of_result(result))
        return result

    async def agenerate(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        there = completed(_run_metadata(args, kwargs))
        if self._kinds.seen_below(instance, False):
            if there is None:
                return await wrapped(*args, **kwargs)
            with restored(there):
                return await wrapped(*args, **kwargs)
        facts = call_of_model(instance, args, kwargs)
        inner = await self._astart(instance, there or in_force(), facts, stream=False)
        with _InMeter(inner):
            result = await wrapped(*args, **kwargs)
        self._done(inner, instance, facts, lambda: of_result(result))
        return result

    # -- text models --------------------------------------------------------------------------------------------------

    def llm_generate(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        facts = call_of_llm(instance, args, kwargs)
        inner = self._start(instance, self._of_managers(args, kwargs), facts, stream=False)
        with _InMeter(inner):
            result = wrapped(*args, **kwargs)
        self._done(inner, instance, facts, lambda: of_llm_result(result))
        return result

    async def llm_agenerate(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        facts = call_of_llm(instance, args, kwargs)
        inner = await self._astart(instance, self._of_managers(args, kwargs), facts, stream=False)
        with _InMeter(inner):
            result = await wrapped(*args, **kwargs)
        self._done(inner, instance, facts, lambda: of_llm_result(result))
        return result

    def _of_managers(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope:
        managers = kwargs.get("run_managers") or (args[2] if len(args) > 2 else None)
        metadata = getattr(managers[0], "metadata", None) if isinstance(managers, list) and managers else None
        return completed(metadata) or in_force()

    def llm_lookup(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = wrapped(*args, **kwargs)
        self._hits(found, args)
        return found

    async def llm_alookup(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = await wrapped(*args, **kwargs)
        self._hits(found, args)
        return found

    def _hits(self, found: Any, args: tuple[Any, ...]) -> None:
        try:
            here, params = in_force(), args[0] if args else {}
            for _ in found[0]:
                self._cached(here, call_of_llm(params, (), {})(), Reply())
        except Exception as fault:
            faults.note("langchain.cache", fault)

    # -- streams ------------------------------------------------------------------------------------------------------

    def streamed(
        self, items: Any, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], there: Scope | None
    ) -> Any:
        """Return a model's stream, metered, in the scope `there`; None is what is in force at its first step."""
        facts = call_of_model(model, args, kwargs, stream=True)
        watch = self._awatch if hasattr(items, "__aiter__") else self._watch
        return bound(watch(items, model, facts, Tally()), there)

    def events(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A model's stream of events (v3), and an `invoke` that is streamed so for a graph's sake."""
        items = wrapped(*args, **kwargs)
        if self._kinds.seen_below(instance, True):
            return items
        facts = call_of_model(instance, args, kwargs, stream=True)
        watch = self._awatch if hasattr(items, "__aiter__") else self._watch
        return bound(watch(items, instance, facts, Tally(kwargs.get("stream"))), None)

    def _watch(self, items: Iterator[Any], model: Any, facts: Callable[[], Any], tally: Tally) -> Iterator[Any]:
        inner = self._start(model, in_force(), facts, stream=True)
        enter(inner)  # `bound` keeps it for the steps of this generator alone
        look = 0
        try:
            for item in items:
                look = look if tally.chunks else self._first(inner, tally)
                tally.take(item)
                if tally.chunks == look:
                    look = self._looked(inner, tally)
                if tally.ends():
                    self._drained(inner, model, facts, tally)
                yield item
        except GeneratorExit:
            self._cut(inner, tally)
            raise
        except BaseException as error:
            _failed(inner, error)
            raise
        if not tally.ended:
            self._drained(inner, model, facts, tally)

    async def _awatch(
        self, items: AsyncIterator[Any], model: Any, facts: Callable[[], Any], tally: Tally
    ) -> AsyncIterator[Any]:
        inner = await self._astart(model, in_force(), facts, stream=True)
        enter(inner)
        look = 0
        try:
            async for item in items:
                look = look if tally.chunks else self._first(inner, tally)
                tally.take(item)
                if tally.chunks == look:
                    look = self._looked(inner, tally)
                if tally.ends():
                    self._drained(inner, model, facts, tally)
                yield item
        except GeneratorExit:
            self._cut(inner, tally)
            await items.aclose()  # type: ignore[attr-defined]
            raise
        except BaseException as error:
            _failed(inner, error)
            raise
        if not tally.ended:
            self._drained(inner, model, facts, tally)

    def _first(self, inner: Scope, tally: Tally) -> int:
        """Note that the stream has begun; return at which chunk its size is to be looked at, 0 for never."""
        meter = inner.operation
        if type(meter) is not Meter or meter.operation is None or meter.begun:
            return 0
        meter.operation.streaming(tally.reply)
        meter.operation.first_chunk()
        return meter.operation.first_look()

    def _looked(self, inner: Scope, tally: Tally) -> int:
        meter = inner.operation
        assert type(meter) is Meter
        return meter.operation.looked(tally.reply()) if meter.operation is not None else 0

    def _cut(self, inner: Scope, tally: Tally) -> None:
        meter = inner.operation
        if type(meter) is Meter and meter.operation is not None:
            meter.operation.abandon(tally.reply())

    def _drained(self, inner: Scope, model: Any, facts: Callable[[], Any], tally: Tally) -> None:
        meter = inner.operation
        if type(meter) is Meter and meter.begun:
            self._kinds.learn(model, True)
        else:
            self._done(inner, model, facts, tally.reply)

    def hit(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """LangChain turns what it has found in its cache into an answer."""
        meter = scope().operation
        if type(meter) is Meter:
            meter.hit = True
        return wrapped(*args, **kwargs)
