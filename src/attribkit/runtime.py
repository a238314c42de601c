"""Starting and stopping attribkit: reads the settings, builds the parts, hands them down, applies the patches."""

from __future__ import annotations

import atexit
import functools
import json
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import wrapt

from attribkit import context, faults
from attribkit import settings as _settings
from attribkit.budgets.open import budget_url, place_of, read_budgets
from attribkit.calls import CallKind
from attribkit.cost import Cost
from attribkit.errors import ConfigurationError
from attribkit.gateways.route import Gateways
from attribkit.instrumentation import catalog
from attribkit.instrumentation.hops.messages import Messages
from attribkit.instrumentation.patching import Patch, Patches, PatchState
from attribkit.pipeline import Pipeline
from attribkit.settings import Settings
from attribkit.usage.model import Usage

if TYPE_CHECKING:
    from attribkit.budgets.guard import BudgetGuard
    from attribkit.budgets.notices import Notice
    from attribkit.instrumentation.hops.peers import Peers
    from attribkit.pipeline.ports import Tiers
    from attribkit.pricing.engine import PriceEngine, Rate
    from attribkit.pricing.source import PriceSource, Refresher
    from attribkit.sinks import Sink

__all__ = ["Report", "Runtime", "active", "instrument", "uninstrument"]

_log = logging.getLogger("attribkit")
_lock = threading.RLock()
_active: Runtime | None = None


class Report:
    """What `instrument()` did: each patch with its state, the gateways, and where rows go."""

    def __init__(self, patches: Callable[[], tuple[PatchState, ...]], gateways: Mapping[str, str], ledger: str | None):
        self._patches = patches
        self.gateways = gateways
        """URL prefix -> dialect, as configured."""
        self.ledger = ledger

    @functools.cached_property
    def patches(self) -> tuple[PatchState, ...]:
        """Each patch as it stood then."""
        return self._patches()

    def of(self, status: str) -> tuple[PatchState, ...]:
        """Return the patches in one state: applied, waiting, missing, unsupported or off."""
        return tuple(patch for patch in self.patches if patch.status == status)

    def __str__(self) -> str:
        lines = [f"attribkit: {len(self.of('applied'))} patches applied, {len(self.of('waiting'))} waiting"]
        for patch in self.patches:
            version = f" {patch.version}" if patch.version else ""
            reason = f" ({patch.reason})" if patch.reason else ""
            lines.append(f"  {patch.status:<11} {patch.target} [{patch.group}{version}]{reason}")
        return "\n".join(lines)


class _Prices:
    """The price engine, loaded by the first call that has to be priced."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: PriceEngine | None = None
        self.kinds: dict[Any, CallKind] = {}
        self._refresher: Refresher | None = None
        self._source: PriceSource | None = None
        if settings.price_source is not None:
            from attribkit.pricing.source import PriceSource

            self._source = PriceSource(settings.price_source, ttl_hours=settings.price_ttl_hours)
        if settings.prices is not None:
            self.engine()  # a wrong override is told at start-up

    def engine(self) -> PriceEngine:
        if self._engine is None:
            from attribkit.pricing.engine import PriceEngine

            engine = PriceEngine.bundled(overrides=self._settings.prices or ())
            self._take(engine if self._source is None else engine.with_catalog(self._source.catalog()))
        assert self._engine is not None
        return self._engine

    def _take(self, engine: PriceEngine) -> None:
        self._engine = engine
        self.cost = engine.cost  # type: ignore[method-assign, assignment]
        self.kinds = {}  # what was found by the engine before is of its prices

    def start(self) -> None:
        """Keep the prices of a source fresh, on a thread of its own; in a forked child too."""
        if self._source is None:
            return
        from attribkit.pricing.source import Refresher

        self._refresher = Refresher(self._source, lambda catalog: self._take(self.engine().with_catalog(catalog)))
        self._refresher.start()
        if hasattr(os, "register_at_fork"):
            weak = weakref.WeakMethod(self._start_in_child)
            os.register_at_fork(after_in_child=lambda: (found := weak()) and found())

    def _start_in_child(self) -> None:
        if self._refresher is not None:
            self._refresher.start()

    def stop(self) -> None:
        refresher, self._refresher = self._refresher, None
        if refresher is not None:
            refresher.stop()

    def cost(self, usage: Usage, **facts: Any) -> Cost:
        return self.engine().cost(usage, **facts)

    def rate(self, **facts: Any) -> Rate:
        return self.engine().rate(**facts)

    def ceiling(self, **facts: Any) -> Decimal | None:
        return self.engine().ceiling(**facts)


class _Telemetry:
    """The parts that speak OpenTelemetry, on the app's own providers or the global ones."""

    def __init__(self, settings: Settings) -> None:
        from attribkit.telemetry.attributes import AttributionAttributes
        from attribkit.telemetry.foreign import OpenSpans
        from attribkit.telemetry.names import ALIASES
        from attribkit.telemetry.spans import CallSpans
        from attribkit.telemetry.stamp import AttributionProcessor
        from attribkit.telemetry.workflows import WorkflowSpans

        provider = self._provider = settings.tracer_provider
        attributes, open_spans = AttributionAttributes({**ALIASES, **settings.aliases}), OpenSpans()
        self.spans = CallSpans(provider, attributes=attributes, open_spans=open_spans, own=settings.spans)
        self._workflows = WorkflowSpans(provider, attributes=attributes) if settings.spans else None
        self._processor = AttributionProcessor(
            lambda: context.in_force().attribution, attributes=attributes, open_spans=open_spans
        )
        self.metrics: Sink | None = None
        if settings.metrics:
            from attribkit.telemetry.metrics import CallMetrics

            self.metrics = CallMetrics(settings.meter_provider)

    def noticed(self, notice: Notice) -> None:
        """Put what a budget says on the span in force; where none is, on a span of its own."""
        tracers = self.spans.tracers
        trace = tracers.trace()
        if trace is None:
            return
        told = {**notice.as_dict(), "key": json.dumps(notice.key) if notice.key else None}
        name = f"attribkit.budget.{notice.kind}"
        facts = {f"attribkit.budget.{key}": str(value) for key, value in told.items() if value}
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(name, facts)
        elif self._workflows is not None and (tracer := tracers.tracer()) is not None:
            tracer.start_span(name, attributes=facts).end()

    def start(self, undo: list[Callable[[], None]]) -> tuple[Patch, ...]:
        """Stamp the attribution on every span: on the provider there is, or on the one that the app sets later."""
        from attribkit.telemetry import stamp

        if self._workflows is not None:
            context.observe_workflows(self._workflows.start)
            undo.append(lambda: context.observe_workflows(None))

        def install(provider: Any) -> None:
            installed = stamp.install(provider, self._processor)
            if installed is not None:
                undo.append(lambda: stamp.remove(installed))

        if self._provider is not None:
            install(self._provider)
            return ()
        if "opentelemetry.trace" in sys.modules:
            install(None)

        def set_tracer_provider(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = wrapped(*args, **kwargs)
            try:
                install(None)
            except Exception as fault:
                faults.note("telemetry.install", fault)
            return result

        return (
            Patch("opentelemetry.trace", "_set_tracer_provider", set_tracer_provider, "telemetry", "opentelemetry-api"),
        )


class Runtime:
    """One start of attribkit: all its parts."""

    def __init__(self, settings: Settings, keywords: Mapping[str, Any]) -> None:
        self.settings = settings
        self.keywords = dict(keywords)
        keys = {name: secret.get_secret_value() for name, secret in settings.pseudonym_keys.items()}
        self.gateways = Gateways(settings.gateways, hosted=settings.hosted_gateways, pseudonyms=keys)
        self.prices = _Prices(settings)
        self.carrier_key = settings.carrier_key.get_secret_value().encode() if settings.carrier_key else None
        self.peers = _peers(settings.peers, self.carrier_key, self.gateways)
        self.guard = _guard(settings, self.prices, self._noticed)
        self.ledger = _ledger(settings)
        self._undo: list[Callable[[], None]] = []
        self._on = True
        unknown = set(settings.hops) - set(catalog.GROUPS)
        if unknown:
            raise ConfigurationError(
                f"attribkit settings: hops={sorted(unknown)!r}: there is no such patch group; "
                f"the groups are {', '.join(catalog.GROUPS)}",
                name="hops",
                value=sorted(unknown),
                allowed=catalog.GROUPS,
            )
        self._off = frozenset(name for name, on in settings.hops.items() if not on)
        sinks: list[Sink] = [] if self.ledger is None else [self.ledger]
        self._telemetry = None if "telemetry" in self._off else _Telemetry(settings)
        if self._telemetry is not None and self._telemetry.metrics is not None:
            sinks.append(self._telemetry.metrics)
        self.pipeline = Pipeline(
            gateways=self.gateways,
            prices=self.prices,
            spans=self._telemetry.spans if self._telemetry is not None else None,
            sinks=tuple(sinks),
            guard=self.guard,
            tiers=_tiers(settings, self.guard),
            require=settings.require,
            on_missing=settings.on_missing,
        )
        self.patches = Patches()

    def _noticed(self, notice: Notice) -> None:
        if self._telemetry is not None:
            self._telemetry.noticed(notice)

    def start(self) -> None:
        """Put everything on."""
        read_replies = any(route.reads_reply for route in self.gateways.routes)
        parts = catalog.Parts(self.pipeline, Messages(self.carrier_key), self.peers, self.carrier_key, read_replies)
        if self._telemetry is not None:
            self.patches.apply(self._telemetry.start(self._undo))
        for room in catalog.ROOMS:
            off = room.group in self._off
            self.patches.expect(room.group, room.libraries, functools.partial(room.rows, parts), off=off)
        for group, library, begin in catalog.LISTENERS:
            if group not in self._off:
                self._listen(library, functools.partial(begin, parts))
        self.prices.start()
        atexit.register(self.settle)

    def _listen(self, library: str, begin: Callable[[], Callable[[], None]]) -> None:
        """Begin when `library` is imported."""

        def imported(module: Any) -> None:
            if self._on:
                self._undo.append(begin())

        wrapt.register_post_import_hook(imported, library)

    def report(self) -> Report:
        """Return how everything stands now."""
        names = {
            prefix: dialect if isinstance(dialect, str) else str(dialect.get("dialect"))
            for prefix, dialect in self.settings.gateways.items()
        }
        ledger = self.settings.ledger
        return Report(self.patches.report(), names, ledger if isinstance(ledger, str) else type(ledger).__name__)

    def settle(self, timeout: float = 5.0) -> None:
        """End what is still open, and bring every row into the ledger as far as `timeout` seconds allow."""
        try:
            self.pipeline.close()
            if self.guard is not None:
                self.guard.flush()
            flush = getattr(self.ledger, "flush", None)
            if flush is not None and not flush(timeout):
                _log.warning("some rows are not in the ledger yet; they are safe in its spool until the next start")
        except Exception as fault:
            faults.note("runtime.settle", fault)

    def stop(self) -> None:
        """Take everything off and flush."""
        self._on = False
        self.patches.undo()
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception as fault:
                faults.note("runtime.stop", fault)
        self._undo.clear()
        self.prices.stop()
        self.settle()
        close = getattr(self.ledger, "close", None)
        if close is not None and isinstance(self.settings.ledger, str):
            close()
        if self.guard is not None:
            self.guard.close()
        atexit.unregister(self.settle)


def _peers(prefixes: tuple[str, ...], key: bytes | None, gateways: Gateways) -> Peers | None:
    if not prefixes:
        return None
    if key is None:
        _log.warning("peers are set, and no carrier_key: they are told nothing, for they could not believe it")
    from attribkit.instrumentation.hops.peers import Peers

    peers = Peers(prefixes, key or b"", gateways.match)
    return peers if key is not None else None


def _guard(settings: Settings, prices: _Prices, also: Callable[[Notice], None]) -> BudgetGuard | None:
    budgets = read_budgets(settings.budgets) if settings.budgets else []
    place = place_of(budget_url(settings.budget_store, settings.ledger))
    asked = "budget_store" in settings.model_fields_set and settings.budget_store is not None
    if not budgets and not asked and not (place.journals and os.path.isdir(place.journals)):
        return None
    from attribkit.budgets.bounds import Bounds
    from attribkit.budgets.guard import BudgetGuard

    return BudgetGuard(budgets, store=place.open, journals=place.journals, bounds=Bounds(prices.ceiling), also=also)


def _tiers(settings: Settings, guard: BudgetGuard | None) -> Tiers | None:
    if not settings.tiers:
        return None
    from attribkit.gateways.tiers import TierPolicy

    return TierPolicy(settings.tiers, left=guard.left if guard else None)


def _ledger(settings: Settings) -> Any:
    given = settings.ledger
    if given is None:
        return None
    if isinstance(given, str):
        from attribkit.ledger.open import open_sink

        return open_sink(given, spool_dir=settings.spool_dir)
    if callable(getattr(given, "finished", None)):
        return given
    raise ConfigurationError(
        f"ledger={given!r} is no URL (sqlite:///attribkit.db), no None and no object with finished(record)",
        name="ledger",
        value=given,
    )


def instrument(keywords: Mapping[str, Any]) -> Report:
    """Start with `keywords` over the environment and files. When it runs already it stays as it is."""
    global _active
    with _lock:
        if _active is None:
            runtime = Runtime(_settings.load(keywords), keywords)
            runtime.start()
            _active = runtime
        elif keywords and dict(keywords) != _active.keywords:
            _log.warning("attribkit.instrument() was called again with other settings; the first ones stay in force")
        return _active.report()


def uninstrument() -> None:
    """Stop; nothing happens when it does not run."""
    global _active
    with _lock:
        if _active is not None:
            runtime, _active = _active, None
            runtime.stop()


def active() -> Runtime | None:
    """Return what is running, None when nothing is."""
    return _active
