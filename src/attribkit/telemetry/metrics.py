"""Model calls as OpenTelemetry metrics, with a bounded number of tenants."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.late import Late

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from attribkit.attribution import Attribution
    from attribkit.calls import CallRecord
    from attribkit.telemetry import counts
else:
    counts = Late(f"{__package__}.counts")

__all__ = ["CallMetrics"]


class CallMetrics:
    """Counts every attempt at a model call (`sinks.Sink`): duration, tokens, cost, calls, unpriced, unattributed.

    Attributes are the operation, provider, requested model, error type and `attribkit.tenant_id`. The first
    `max_tenants` tenants seen (and 100 models) stand for themselves, the rest fold into "other". `names` chooses what
    is written: "counter" the conventions' current names (a duration histogram, token counters), "histogram" those that
    released instrumentations write (duration and token histograms), or "both". Each histogram record costs what the
    SDK makes it cost (4 to 5 µs), the counters next to nothing.

    Without a meter provider of the app's it does nothing; one that the app sets later is found.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        *,
        max_tenants: int = 200,
        names: counts.Names = "counter",
        seen_as: Callable[[Attribution], Attribution] | None = None,
    ) -> None:
        self._provider = meter_provider
        self._names = names
        self._by_name = "OTEL_PYTHON_METER_PROVIDER" in os.environ
        self._seen_as = seen_as
        self._max_tenants = max_tenants
        self._counts: counts.Counts | None = None
        self._api: Any = None

    def listening(self) -> bool:
        """Return whether there is a meter provider to count for."""
        if self._counts is not None:
            return True
        api = self._api
        if api is not None and api._METER_PROVIDER is None:
            return False  # the path of nearly all apps: the OpenTelemetry API is there, and no meter provider
        return self._find()

    def finished(self, record: CallRecord) -> None:
        """Count one attempt."""
        if not self.listening():
            return
        try:
            assert self._counts is not None
            self._counts.count(record)
        except Exception as error:
            faults.note("telemetry.metrics", error)

    def _find(self) -> bool:
        provider: Any = self._provider
        if provider is None:
            if not self._by_name:
                api = sys.modules.get("opentelemetry.metrics._internal")
                if api is None:
                    return False
                if getattr(api, "_METER_PROVIDER", api) is None:
                    self._api = api
                    return False  # what follows would say the same, at ten times the cost
            from opentelemetry import metrics

            provider = metrics.get_meter_provider()
        kind = type(provider).__name__
        if kind in ("_ProxyMeterProvider", "NoOpMeterProvider"):
            return False
        try:
            self._counts = counts.Counts(provider, self._names, self._max_tenants, self._seen_as)
        except Exception as error:
            faults.note("telemetry.metrics", error)
            return False
        return True
