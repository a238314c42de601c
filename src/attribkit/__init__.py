"""Attribution, exact cost and budgets for every model call of an LLM agent.

`attribkit.instrument()` at start-up, `@attribkit.entrypoint(...)` on the agent, and from then on who a call is for is
on the gateway's headers, on every OpenTelemetry span, and on an exactly priced ledger row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from attribkit.attribution import Attribution
from attribkit.context import attributed, carry, current, entrypoint
from attribkit.cost import Cost
from attribkit.errors import AttributionRequired, BudgetExceeded

if TYPE_CHECKING:
    from attribkit.budgets.policy import Budget
    from attribkit.runtime import Report

__all__ = [
    "Attribution",
    "AttributionRequired",
    "Budget",
    "BudgetExceeded",
    "Cost",
    "attributed",
    "carry",
    "current",
    "entrypoint",
    "extract",
    "inject",
    "instrument",
    "price",
    "uninstrument",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Budget":  # most programs that start here have none
        from attribkit.budgets.policy import Budget

        globals()["Budget"] = Budget
        return Budget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def instrument(**settings: Any) -> Report:
    """Start attribkit: patch what is imported, wait for what is not, and record every model call from now on.

    Settings are keywords here, `ATTRIBKIT_...` environment variables, or keys in attribkit.toml or in [tool.attribkit]
    of pyproject.toml, in that order; docs/settings.md lists them. Idempotent: a second call changes nothing. Returns a
    report of every patch. Raises ConfigurationError for a setting that cannot be used.
    """
    import gc

    collects = gc.isenabled()
    gc.disable()  # while our modules are loaded, so that it does not walk the app's whole heap for them
    try:
        from attribkit import runtime

        return runtime.instrument(settings)
    finally:
        if collects:
            gc.enable()


def uninstrument() -> None:
    """Take off exactly what is ours, in any order with other libraries' wrappers, and flush."""
    from attribkit import runtime

    runtime.uninstrument()


def inject(
    carrier: MutableMapping[str, str] | list[Any], *, key: str | bytes | None = None, audience: str = ""
) -> None:
    """Write the attribution in force into `carrier` as W3C baggage, for another process to `extract`.

    `carrier` is a mapping of headers, or a list of (name, value) pairs as Kafka clients take them. It is signed with
    `key`, by default the `carrier_key` of the settings; without any it is not signed.
    """
    from attribkit import wire

    wire.inject(carrier, current(), key=_carrier_key(key), audience=audience)


def extract(
    carrier: Mapping[str, Any] | Iterable[tuple[str | bytes, Any]] | None,
    *,
    key: str | bytes | None = None,
    audience: str | tuple[str, ...] = "",
    max_age: float | None = None,
) -> Attribution:
    """Return the attribution in `carrier` (header names in any case, or pairs), an empty one when there is none.

    With a key (given, or the `carrier_key` of the settings) what is unsigned, forged, malformed, oversized, meant for
    another audience or signed over `max_age` seconds ago is refused: the result is empty and the refusal is counted.
    Nothing is put in force by this call: use `with attribkit.attributed(**attribution.as_dict())`.
    """
    from attribkit import wire

    return wire.extract(carrier, key=_carrier_key(key), audience=audience, max_age=max_age)


def _carrier_key(key: str | bytes | None) -> bytes | None:
    if key is not None:
        return key.encode() if isinstance(key, str) else key
    import sys

    runtime = sys.modules.get("attribkit.runtime")
    active = runtime.active() if runtime is not None else None
    return active.carrier_key if active is not None else None


def price(
    usage: Mapping[str, Any],
    *,
    model: str,
    provider: str | None = None,
    api: str | None = None,
    service_tier: str | None = None,
    region: str | None = None,
    batch: bool = False,
    at: datetime | date | str | None = None,
) -> Cost:
    """Return the exact cost of a provider's raw usage object; nothing has to be instrumented.

    `at` is when the call was made (a datetime, a date or ISO text; now when it is None): prices are dated. What cannot
    be priced has `usd` None and says why. Nothing in `usage` raises.
    """
    import sys

    from attribkit.pricing.engine import PriceEngine

    runtime = sys.modules.get("attribkit.runtime")
    active = runtime.active() if runtime is not None else None
    engine = active.prices.engine() if active is not None else PriceEngine.bundled()
    return engine.price(
        usage, model=model, provider=provider, api=api, service_tier=service_tier, region=region, batch=batch, at=at
    )
