"""What is counted of model calls for one meter provider: its instruments, and the sums that it reads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from attribkit.attribution import Attribution
from attribkit.calls import CallRecord
from attribkit.money import to_pico
from attribkit.telemetry import names
from attribkit.telemetry.attributes import text
from attribkit.usage.model import INPUT_METERS, OUTPUT_METERS

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

__all__ = ["OTHER", "Counts", "Names"]

OTHER = "other"
"""What tenants and models beyond the bound are counted under."""

Names = Literal["histogram", "counter", "both"]
_MAX_MODELS = 100
_MAX_SERIES = 8192
_MAX_AMOUNT = 10**15  # one absurd count would make the sum more than an exporter can carry
_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""Bucket boundaries that the conventions advise."""

_CALLS, _UNPRICED, _UNATTRIBUTED, _COST, _INPUT, _OUTPUT, _CACHE_READ, _CACHE_WRITE, _REASONING = range(9)
_OWN: tuple[tuple[str, str, str, int], ...] = (
    ("attribkit.calls", "{call}", "Attempts at model calls", _CALLS),
    ("attribkit.calls.unpriced", "{call}", "Attempts whose cost is not known", _UNPRICED),
    ("attribkit.calls.unattributed", "{call}", "Attempts that no tenant owns", _UNATTRIBUTED),
    ("attribkit.cost", "USD", "Cost of model calls", _COST),
)
_USAGE: tuple[tuple[str, str, str, int], ...] = (
    ("gen_ai.client.inference.usage.input_tokens", "{token}", "Input tokens, cached ones included", _INPUT),
    ("gen_ai.client.inference.usage.output_tokens", "{token}", "Output tokens, reasoning included", _OUTPUT),
    ("gen_ai.client.inference.usage.cache_read.input_tokens", "{token}", "Input read from a cache", _CACHE_READ),
    ("gen_ai.client.inference.usage.cache_write.input_tokens", "{token}", "Input written to a cache", _CACHE_WRITE),
    ("gen_ai.client.inference.usage.reasoning.output_tokens", "{token}", "Output spent on reasoning", _REASONING),
)
_INPUT_METERS, _OUTPUT_METERS = frozenset(INPUT_METERS), frozenset(OUTPUT_METERS)
_CACHE_READS = frozenset({"cache_read", "audio_cache_read", "image_cache_read"})
_CACHE_WRITES = frozenset({"cache_write_5m", "cache_write_1h"})

_Key = tuple[str | None, str | None, str, str, str | None]


class _Series:
    __slots__ = ("attributes", "sums")

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.sums = [0] * 9


class _Totals:
    """Sums of one meter provider since its process began.

    The SDK's counters cost about 80,000 instructions for each `add` (1.45); a model call would need eight. So we add up
    here, and the SDK's observable counters read the sums when a reader collects. They belong to the provider, which
    keeps its instruments for good, and not to one `instrument()`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.series: dict[_Key, _Series] = {}
        self.instruments: dict[str, Any] = {}

    def add(self, key: _Key, make: Callable[[_Key], dict[str, str]], sums: list[int]) -> _Series:
        with self.lock:
            series = self.series.get(key)
            if series is None:
                if len(self.series) >= _MAX_SERIES:
                    key = (OTHER, OTHER, key[2], key[3], key[4])
                    series = self.series.get(key)
                if series is None:
                    series = self.series[key] = _Series(make(key))
            held = series.sums
            for place, amount in enumerate(sums):
                if 0 < amount <= _MAX_AMOUNT or (place == _COST and amount > 0):
                    held[place] += amount
        return series

    def observe(self, place: int) -> Callable[[Any], Iterable[Any]]:
        """Return what an observable counter calls."""
        from opentelemetry.metrics import Observation

        def read(options: Any) -> Iterable[Any]:
            with self.lock:
                read = [(one.attributes, one.sums[place]) for one in self.series.values()]
            if place == _COST:
                return [Observation(pico / 1e12, attributes) for attributes, pico in read if pico]
            return [Observation(amount, attributes) for attributes, amount in read if amount]

        return read

    def histogram(self, meter: Meter, name: str, unit: str, description: str, buckets: Iterable[float]) -> Any:
        """Return the histogram of that name, made once: the SDK warns of a second one (1.25)."""
        made = self.instruments.get(name)
        if made is None:
            try:
                made = meter.create_histogram(
                    name, unit=unit, description=description, explicit_bucket_boundaries_advisory=list(buckets)
                )
            except TypeError:  # the API knows no advice before 1.28
                made = meter.create_histogram(name, unit=unit, description=description)
            self.instruments[name] = made
        return made

    def forked(self) -> None:
        """Start from nothing in a child process: its parent reports what was before."""
        self.lock = threading.Lock()
        for series in self.series.values():
            series.sums = [0] * 9


_totals: dict[int, tuple[weakref.ref[Any], _Totals]] = {}
"""By the identity of the meter provider, which need not be hashable (Logfire's is not)."""
_totals_lock = threading.Lock()


def _forget(gone: weakref.ref[Any]) -> None:
    for key in [key for key, (reference, _) in list(_totals.items()) if reference is gone]:
        _totals.pop(key, None)


def _after_fork() -> None:
    global _totals_lock
    _totals_lock = threading.Lock()
    for _, totals in list(_totals.values()):
        totals.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Counts:
    """Counts attempts for a meter provider of the app's."""

    def __init__(
        self, provider: Any, written: Names, max_tenants: int, seen_as: Callable[[Attribution], Attribution] | None
    ) -> None:
        self._seen_as = seen_as
        self._max_tenants = max_tenants
        self._tenants: dict[str | None, str] = {}
        self._models: dict[str | None, str] = {}
        self._lock = threading.Lock()
        self._tokens: Any = None
        meter: Meter = provider.get_meter(names.SCOPE)
        with _totals_lock:
            reference, totals = _totals.get(id(provider), (None, None))
            if totals is None or reference is None or reference() is not provider:
                totals = _Totals()
                _totals[id(provider)] = (weakref.ref(provider, _forget), totals)
        counters = _OWN + (_USAGE if written in ("counter", "both") else ())
        with totals.lock:
            for name, unit, description, place in counters:
                if name not in totals.instruments:
                    totals.instruments[name] = meter.create_observable_counter(
                        name, [totals.observe(place)], unit=unit, description=description
                    )
            durations = []
            if written in ("counter", "both"):
                durations.append("gen_ai.client.inference.duration")
            if written in ("histogram", "both"):
                durations.append("gen_ai.client.operation.duration")
                self._tokens = totals.histogram(
                    meter, "gen_ai.client.token.usage", "{token}", "Tokens of a model call", _TOKENS
                )
            self._durations: tuple[Any, ...] = tuple(
                totals.histogram(meter, name, "s", "How long a model call took", _DURATION) for name in durations
            )
        self._totals = totals
        if hasattr(os, "register_at_fork"):
            ref = weakref.ref(self)

            def renew() -> None:
                counts = ref()
                if counts is not None:
                    counts._lock = threading.Lock()

            os.register_at_fork(after_in_child=renew)

    def count(self, record: CallRecord) -> None:
        """Count one attempt."""
        totals = self._totals
        attribution = record.attribution if self._seen_as is None else self._seen_as(record.attribution)
        tenant = attribution.tenant_id
        usage, cost = record.usage, record.cost
        counted = produced = read = written = 0
        for meter, quantity in usage.meters:
            if meter == "input":
                counted += int(quantity)
            elif meter in _INPUT_METERS:
                counted += int(quantity)
                if meter in _CACHE_READS:
                    read += int(quantity)
                elif meter in _CACHE_WRITES:
                    written += int(quantity)
            elif meter in _OUTPUT_METERS:
                produced += int(quantity)
        error = None if record.status == "ok" else record.error or record.status
        key = (
            None if tenant is None else self._bounded(self._tenants, tenant, self._max_tenants),
            None
            if record.requested_model is None
            else self._bounded(self._models, record.requested_model, _MAX_MODELS),
            names.OPERATIONS.get(record.api, record.api),
            record.provider,
            error,
        )
        usd = cost.usd
        sums = [
            1,
            1 if usd is None else 0,
            1 if tenant is None else 0,
            0 if usd is None else to_pico(usd),
            counted,
            produced,
            read,
            written,
            usage.reasoning_tokens,
        ]
        attributes = totals.add(key, _attributes, sums).attributes
        if record.duration_ns is not None:
            for duration in self._durations:
                duration.record(record.duration_ns / 1e9, attributes)
        if self._tokens is not None and 0 < counted + produced <= _MAX_AMOUNT:
            self._tokens.record(counted, {**attributes, names.TOKEN_TYPE: "input"})
            if produced:
                self._tokens.record(produced, {**attributes, names.TOKEN_TYPE: "output"})

    def _bounded(self, known: dict[str | None, str], value: str, most: int) -> str:
        held = known.get(value)
        if held is None:
            with self._lock:
                if len(known) >= most:
                    return OTHER
                held = known[value] = text(value)
        return held


def _attributes(key: _Key) -> dict[str, str]:
    tenant, model, operation, provider, error = key
    attributes = {names.OPERATION: operation, names.PROVIDER: text(provider)}
    if model is not None:
        attributes[names.REQUEST_MODEL] = model
    if tenant is not None:
        attributes[names.attribute_of("tenant_id")] = tenant
    if error is not None:
        attributes[names.ERROR_TYPE] = text(error)
    return attributes
