"""The one order of a call: require, tier, reserve, headers, span, [wire], usage, cost, record, sinks, settle."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.calls import CallStatus, Hop, LLMCall, Reply
from attribkit.errors import AttributionRequired, BudgetExceeded
from attribkit.pipeline.operation import Attempt, Operation, Target

if TYPE_CHECKING:
    from attribkit.pipeline.ports import Guard, Matcher, Prices, Route, Tiers
    from attribkit.sinks import JobRegister, PlainSink, Sink, SpanSource

__all__ = ["Pipeline"]

_MAX_TARGETS = 1024


class Pipeline:
    """Takes model calls from client patches through the one order. Knows no library, no database and no ContextVar."""

    def __init__(
        self,
        *,
        gateways: Matcher,
        prices: Prices,
        spans: SpanSource | None = None,
        sinks: tuple[Sink, ...] = (),
        guard: Guard | None = None,
        tiers: Tiers | None = None,
        require: tuple[str, ...] = (),
        on_missing: Literal["record", "reject"] = "record",
    ) -> None:
        self.gateways = gateways
        self.prices = prices
        self.spans = spans
        self.sinks = sinks
        self._plain, self._listening = _takers(sinks)
        """The one sink, if it needs no cost at once, and what tells whether others that do would look at the call."""
        self._keepers = tuple(sink for sink in sinks if getattr(sink, "jobs", None) is not None)
        self.jobs: JobRegister | None = self._keepers[0].jobs if self._keepers else None  # type: ignore[attr-defined]
        """Where processes that share a ledger tell each other of jobs, None where they share none."""
        self.guard = guard
        self.tiers = tiers
        self.require = require
        self.on_missing = on_missing
        self.missing = 0
        """Calls that lacked a required field."""
        self.begun: Callable[[], None] | None = None
        """Told of each model call that begins inside something else, before it is held against anything: a framework's
        patch asks by it whether a client's own patch has seen the call."""
        self._permits = bool(require) or guard is not None
        self._targets: dict[str, Target] = {}
        self._untiered: Attribution | None = None
        """The latest attribution that asks for no tier: calls of one scope come in a row."""
        self._open: weakref.WeakSet[Operation] = weakref.WeakSet()
        self._lock = threading.RLock()  # a garbage collection inside it may close another operation

    def target(self, url: str) -> Target:
        """Return where `url` leads; remembered for each base URL."""
        found = self._targets.get(url)
        if found is None:
            route = self.gateways.match(url)
            found = Target(route, route.host if route is not None else urlsplit(url).hostname or "")
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[url] = found
        return found

    def begin(
        self, call: LLMCall, attribution: Attribution, hop: Hop, wait: bool = True, outer: object = ...
    ) -> Operation:
        """Start an operation: all that is decided before the wire. `outer` is what is under way where the call is made,
        where the caller knows that.

        Raises AttributionRequired (with `on_missing="reject"`) and BudgetExceeded; both are recorded as rejected.
        With `wait=False` nothing blocks: where a budget's answer has to be waited for, the operation `waits`, and its
        caller awaits `admitted()` before anything else.
        """
        if self.tiers is not None:
            attribution = self.tiers.applied(attribution, call.model, wait=wait)
        operation = Operation(self, call, attribution, hop, self._targets.get(call[3]) or self.target(call.url))
        if not call[2]:
            return operation
        if outer is not None and self.begun is not None:
            self.begun()
        if self._permits:
            self._permit(operation, wait)
            if operation.waits:
                return operation
            attribution = operation.attribution
        route = operation.target[0]
        if (
            route is not None
            and call[6] is not None
            and (attribution is not self._untiered or call[5] or call[2] in route.body_apis)
        ):
            self._shape(operation, route, call[6], attribution)
        return operation

    def served(self, call: LLMCall, attribution: Attribution, hop: Hop) -> Operation:
        """Return the operation of a call that has been made already: it is counted, and nothing can refuse it."""
        if self.tiers is not None:
            attribution = self.tiers.applied(attribution, call.model, wait=False)
        operation = Operation(self, call, attribution, hop, self.target(call.url))
        if self.begun is not None:
            self.begun()
        operation.spent = True
        return operation

    def _shape(self, operation: Operation, route: Route, body: Mapping[str, Any], attribution: Attribution) -> None:
        """Find what the body has to say."""
        call, tier = operation.call, attribution.get("tier")
        if tier is None:
            self._untiered = attribution
        if tier is not None or call.stream or call.api in route.body_apis:
            changes = self._body(route, call, body, attribution, tier)
            if changes is not None:
                operation.body = changes if operation.body is None else {**changes, **operation.body}

    def _permit(self, operation: Operation, wait: bool) -> None:
        """Hold a call against what it must carry and what may be spent. Raises, with the call recorded as rejected."""
        call, attribution = operation.call, operation.attribution
        missing = [name for name in self.require if attribution.get(name) is None]
        if missing:
            self.missing += 1
            if self.on_missing == "reject":
                lacking = AttributionRequired(missing, model=call.model)
                operation.reject(lacking)
                raise lacking
        if self.guard is not None:
            try:
                found = self.guard.reserve(call, attribution, operation.operation_id, wait=wait)
            except BudgetExceeded as refusal:
                operation.reject(refusal)
                raise
            except Exception as fault:  # of ours: the call goes on as if there were no budgets
                faults.note("budgets.reserve", fault)
                return
            if found is not None:
                operation.reserved(found)

    def _body(
        self, route: Route, call: LLMCall, body: Mapping[str, Any], attribution: Attribution, tier: str | None
    ) -> dict[str, Any] | None:
        """Return the fields to set in the body: attribution and tier where the dialect says them there."""
        changes = dict(route.body(attribution, call.api, body))
        if tier is not None:
            changes.update(route.tier(tier, call.api, body))
        if call.stream and call.api == "chat" and route.stream_usage:
            options = body.get("stream_options")
            if not isinstance(options, Mapping) or options.get("include_usage") is None:
                changes["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
        return changes or None

    def charge(
        self,
        call: LLMCall,
        attribution: Attribution,
        hop: Hop,
        reply: Reply,
        *,
        call_id: str,
        operation_id: str,
        started_ns: int,
        duration_ns: int | None = None,
        status: CallStatus = "ok",
        error: str | None = None,
        later: str | None = None,
        counted: bool | None = None,
    ) -> None:
        """Write the row of work whose end was seen apart from the request that started it.

        `call_id` says which work it is: the same work has the same one in every process, so that it is charged once.
        There is no span. Metrics and budgets count what it cost in the process that claims it first, or that `counted`
        says has. `later` is why it costs nothing, where it does.
        """
        if counted is None:
            counted = self.claim(call_id)
        operation = Operation(self, call, attribution, hop, self.target(call.url))
        operation.operation_id, operation.later, operation.spent = operation_id, later, counted
        begun = perf_counter_ns() - (duration_ns or 0)
        operation.attempt = Attempt(call_id, 0, started_ns, begun)
        if not operation._close():
            return
        try:
            usage, cost = operation._priced(reply)
            operation._end(status, reply, usage, cost, error, self.sinks if counted else self._keepers)
        except Exception as fault:
            faults.note("pipeline.charge", fault)

    def claim(self, charge: str) -> bool:
        """Return True in the one process that is to count a charge beside the ledger."""
        try:
            return self.jobs is None or self.jobs.claim(charge)
        except Exception as fault:
            faults.note("pipeline.claim", fault)
            return True

    def open_operations(self) -> tuple[Operation, ...]:
        """Return the streams that are still under way."""
        with self._lock:
            return tuple(self._open)

    def close(self) -> None:
        """End every stream that is still under way as abandoned, so that its row is written."""
        for operation in self.open_operations():
            operation.abandon(operation.seen())


def _takers(sinks: tuple[Sink, ...]) -> tuple[PlainSink | None, Callable[[], bool]]:
    """Return the sink that takes calls before their cost is worked out, None where there is none or not all the others
    can say that they do not listen; and what tells whether one of those listens."""
    plain = [sink for sink in sinks if hasattr(sink, "plain")]
    others = [getattr(sink, "listening", None) for sink in sinks if sink not in plain]
    asked = [each for each in others if each is not None]
    if len(plain) != 1 or len(asked) < len(others):
        return None, bool
    return cast("PlainSink", plain[0]), asked[0] if len(asked) == 1 else lambda: any(each() for each in asked)
