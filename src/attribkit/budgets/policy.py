"""What a budget is: a limit on what the calls that match it may use within a window, and what happens near it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple

from attribkit.attribution import Attribution
from attribkit.budgets.windows import WINDOWS, Window
from attribkit.errors import ConfigurationError
from attribkit.money import to_pico

__all__ = ["ACTIONS", "UNITS", "WINDOWS", "Budget", "Rung", "Threshold", "Unit", "amount_of"]

Unit = Literal["usd", "tokens", "calls"]
UNITS: tuple[Unit, ...] = ("usd", "tokens", "calls")
ACTIONS = ("warn", "downgrade", "queue", "reject")
MOST = 9 * 10**18
"""The most that a counter holds: 64 bits. In pico-dollars that is 9 million USD."""

_THRESHOLD_KEYS = ("at", "action", "tier", "models", "seconds", "waiting", "webhook", "call")
_UNPRICED = ("reject", "reserve", "allow")
_STORE_DOWN = ("open", "closed")


class Threshold(NamedTuple):
    """What happens from a share of the limit on. `attribkit.Budget` makes it from a table."""

    at: Decimal
    """Of the limit, 0.8 for 80 %: spent for `warn`, spent and reserved for the others."""
    action: str
    tier: str | None = None
    """The tier that a downgraded call gets."""
    models: tuple[tuple[str, str], ...] = ()
    """The model that a downgraded call gets instead of the one asked for."""
    seconds: float = 0.0
    """How long a queued call waits for room."""
    waiting: int = 0
    """How many calls of one process may wait."""
    webhook: str | None = None
    """Where a warning is posted as JSON."""
    call: Any = None
    """What a warning is given to: a function of one `Notice`."""


class Rung(NamedTuple):
    """One limit of a budget on one window: a daily cap is a second one."""

    window: Window
    limit: int
    """In whole units: pico-dollars, tokens or calls."""


class Budget:
    """A limit on the calls whose attribution has every field of `match`, in each window.

    `limit` is an amount of USD as text, or a whole number with `unit="tokens"` or `"calls"`. `window` is minute, hour,
    day, week, month, total or rolling with a length ("rolling 24h"), in `timezone` (an IANA name). `match` names fields
    and the value, or values, they must have; `model` is the model asked for. `per` names fields of which each
    combination of values gets a budget of its own when it is first seen; a call that lacks one of them does not count.
    Every budget that matches a call must have room for it. `daily_cap` limits each day besides. A `wallet` is a total
    whose limit grows by top-ups. `thresholds` are tables: `{"at": "80%", "action": "warn"}`, with the actions
    warn (`webhook`, `call`), downgrade (`tier`, `models`), queue (`seconds`, `waiting`; at 100 %) and reject.
    `dry_run` counts and tells, and refuses nothing. `unpriced` says what a call without a price gets: `allow`
    (goes, and is told), `reserve` (holds and costs `ceiling`), or `reject`. `store_down` says what calls
    get while the store does not answer: `open` lets them go, `closed` refuses them.

    Immutable. Raises ConfigurationError for anything that cannot be meant.
    """

    __slots__ = ("ceiling", "daily_cap", "dry_run", "limit", "match", "name", "per", "rungs", "store_down",
                 "thresholds", "timezone", "unit", "unpriced", "wallet", "window")  # fmt: skip
    name: str
    limit: Decimal
    window: str
    unit: Unit
    timezone: str
    match: tuple[tuple[str, tuple[str, ...]], ...]
    per: tuple[str, ...]
    daily_cap: Decimal | None
    wallet: bool
    thresholds: tuple[Threshold, ...]
    dry_run: bool
    unpriced: str
    ceiling: Decimal | None
    store_down: str
    rungs: tuple[Rung, ...]

    def __init__(
        self,
        name: str,
        *,
        limit: str | int | Decimal,
        window: str | None = None,
        unit: Unit = "usd",
        timezone: str = "UTC",
        match: Mapping[str, str | Iterable[str]] | None = None,
        per: str | Iterable[str] = (),
        daily_cap: str | int | Decimal | None = None,
        wallet: bool = False,
        thresholds: Iterable[Mapping[str, Any] | Threshold] = (),
        dry_run: bool = False,
        unpriced: str | None = None,
        ceiling: str | int | Decimal | None = None,
        store_down: str = "open",
    ) -> None:
        if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200:
            raise ConfigurationError(
                f"Budget: name={name!r} must be printable text of 1 to 200 characters", name="name", value=name
            )
        where = f"Budget {name!r}"
        one_of(where, "unit", unit, UNITS)
        one_of(where, "store_down", store_down, _STORE_DOWN)
        one_of(where, "unpriced", unpriced or "allow", _UNPRICED)
        if wallet and window not in (None, "total"):
            raise ConfigurationError(
                f"{where}: a wallet has no window={window!r}; what is left stays until it is spent", name="window"
            )
        try:
            window = window or ("total" if wallet else "month")
            rungs = [Rung(Window(window, timezone), units(where, "limit", limit, unit))]
            if daily_cap is not None:
                rungs.append(Rung(Window("day", timezone), units(where, "daily_cap", daily_cap, unit)))
        except ConfigurationError as error:
            text = str(error)
            raise ConfigurationError(
                text if text.startswith(where) else f"{where}: {text}",
                name=error.name,
                value=error.value,
                allowed=error.allowed,
            ) from None
        if unpriced == "reserve" and ceiling is None:
            raise ConfigurationError(
                f'{where}: unpriced="reserve" needs ceiling="...", the USD that an unpriced call holds', name="ceiling"
            )
        if ceiling is not None:
            units(where, "ceiling", ceiling, "usd")
        put = object.__setattr__
        put(self, "name", name)
        put(self, "limit", Decimal(limit))
        put(self, "window", window)
        put(self, "unit", unit)
        put(self, "timezone", timezone)
        put(self, "match", _match(where, match or {}))
        put(self, "per", _fields(where, per))
        put(self, "daily_cap", None if daily_cap is None else Decimal(daily_cap))
        put(self, "wallet", bool(wallet))
        put(self, "thresholds", tuple(sorted((_threshold(where, one) for one in thresholds), key=lambda one: one.at)))
        put(self, "dry_run", bool(dry_run))
        put(self, "unpriced", unpriced or ("reserve" if ceiling is not None else "allow"))
        put(self, "ceiling", None if ceiling is None else Decimal(ceiling))
        put(self, "store_down", store_down)
        put(self, "rungs", tuple(rungs))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Budget cannot be changed; make another")

    def __repr__(self) -> str:
        facts = {key: value for key, value in self.as_dict().items() if key != "name"}
        return f"Budget({self.name!r}, {', '.join(f'{key}={value!r}' for key, value in facts.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.name, self.limit, self.window, self.match))

    def _key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__ if name != "rungs")

    def as_dict(self) -> dict[str, Any]:
        """Return the keywords that make this budget again, as plain values; what is at its default is left out.

        Functions to call are left out too: they cannot be written down.
        """
        facts: dict[str, Any] = {"name": self.name, "limit": format(self.limit, "f"), "window": self.window}
        if self.unit != "usd":
            facts["unit"] = self.unit
        if self.timezone != "UTC":
            facts["timezone"] = self.timezone
        if self.match:
            facts["match"] = {key: values[0] if len(values) == 1 else list(values) for key, values in self.match}
        if self.per:
            facts["per"] = list(self.per)
        if self.daily_cap is not None:
            facts["daily_cap"] = format(self.daily_cap, "f")
        if self.wallet:
            facts["wallet"] = True
        if self.thresholds:
            facts["thresholds"] = [_as_table(one) for one in self.thresholds]
        if self.dry_run:
            facts["dry_run"] = True
        if self.unpriced != "allow":
            facts["unpriced"] = self.unpriced
        if self.ceiling is not None:
            facts["ceiling"] = format(self.ceiling, "f")
        if self.store_down != "open":
            facts["store_down"] = self.store_down
        return facts

    def matches(self, attribution: Attribution, model: str | None = None) -> bool:
        """Return whether a call with `attribution` to `model` counts against this budget."""
        for key, values in self.match:
            if (model if key == "model" else attribution.get(key)) not in values:
                return False
        return all((model if key == "model" else attribution.get(key)) is not None for key in self.per)

    def window_at(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Return start and end of the window that `now` is in, both None for total and rolling ones."""
        start, end = self.rungs[0].window.span(now.timestamp())
        if end is None:
            return None, None
        return datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)


def amount_of(whole: int, unit: str) -> Decimal:
    """Return an amount of whole units as people write it: USD for pico-dollars, the number for tokens and calls."""
    return Decimal(whole).scaleb(-12) if unit == "usd" else Decimal(whole)


def units(where: str, name: str, given: object, unit: str) -> int:
    """Return an amount in whole units. Raises ConfigurationError for what is no amount, or too large to count."""
    amount = None
    if isinstance(given, (str, int, Decimal)) and not isinstance(given, bool):
        try:
            amount = Decimal(given)
        except InvalidOperation:
            amount = None
    if unit == "usd":
        if amount is None or not amount.is_finite() or amount < 0:
            raise ConfigurationError(
                f'{where}: {name}={given!r} must be an amount of USD as text, such as "49.00"', name=name, value=given
            )
        whole = to_pico(amount) if amount < 10**9 else MOST + 1
    else:
        if amount is None or not amount.is_finite() or amount < 0 or amount != amount.to_integral_value():
            raise ConfigurationError(
                f"{where}: {name}={given!r} must be a whole number of {unit}", name=name, value=given
            )
        whole = int(amount)
    if whole > MOST:
        most = "9,000,000 USD" if unit == "usd" else f"{MOST} {unit}"
        raise ConfigurationError(
            f"{where}: {name}={given!r} is more than a counter holds, {most}", name=name, value=given
        )
    return whole


def one_of(where: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ConfigurationError(
            f"{where}: {name}={value!r} is not one of {', '.join(allowed)}", name=name, value=value, allowed=allowed
        )


def _match(where: str, match: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(match, Mapping):
        raise ConfigurationError(f"{where}: match={match!r} must map fields to values", name="match", value=match)
    found = []
    for key, value in match.items():
        values = (value,) if isinstance(value, str) else value
        if not isinstance(key, str) or not isinstance(values, (list, tuple, set, frozenset)) or not values:
            raise ConfigurationError(
                f"{where}: match.{key}={value!r} must be a text or a list of texts", name=f"match.{key}", value=value
            )
        if not all(isinstance(one, str) and one for one in values):
            raise ConfigurationError(
                f"{where}: match.{key}={value!r} must be a text or a list of texts", name=f"match.{key}", value=value
            )
        found.append((key, tuple(sorted(values))))
    return tuple(sorted(found))


def _fields(where: str, per: Any) -> tuple[str, ...]:
    names = tuple(part.strip() for part in per.split(",")) if isinstance(per, str) else tuple(per)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise ConfigurationError(
            f'{where}: per={per!r} must name fields, such as "tenant_id" or ["tenant_id", "model"]',
            name="per",
            value=per,
        )
    return names


def _threshold(where: str, given: Any) -> Threshold:
    if isinstance(given, Threshold):
        given = {key: value for key, value in given._asdict().items() if value}
    if not isinstance(given, Mapping) or not given.keys() <= set(_THRESHOLD_KEYS):
        raise ConfigurationError(
            f'{where}: a threshold is {{"at": "80%", "action": "warn"}} and may have {", ".join(_THRESHOLD_KEYS[2:])}; '
            f"got {given!r}",
            name="thresholds",
            value=given,
            allowed=_THRESHOLD_KEYS,
        )
    at, action = given.get("at", "100%"), given.get("action", "warn")
    one_of(where, "thresholds.action", action, ACTIONS)
    try:
        share = Decimal(at[:-1]) / 100 if isinstance(at, str) and at.endswith("%") else Decimal(at)
    except (InvalidOperation, TypeError, ValueError):
        share = Decimal(-1)
    if not 0 <= share <= 10:
        raise ConfigurationError(
            f'{where}: thresholds.at={at!r} must be a share of the limit, such as "80%"', name="thresholds.at", value=at
        )
    models = given.get("models") or {}
    models = dict(models)
    tier, seconds, waiting = given.get("tier"), given.get("seconds", 0), given.get("waiting", 100)
    if action == "downgrade" and not models and not tier:
        raise ConfigurationError(
            f'{where}: a downgrade needs tier="..." or models={{"gpt-5": "gpt-5-mini"}}', name="thresholds.tier"
        )
    if action == "queue" and (not isinstance(seconds, (int, float)) or not 0 < seconds <= 600 or share != 1):
        raise ConfigurationError(
            f"{where}: a queue stands at 100% and needs seconds=, more than 0 and at most 600",
            name="thresholds.seconds",
            value=seconds,
        )
    if action == "reject" and share > 1:
        raise ConfigurationError(f"{where}: a reject cannot stand over 100%", name="thresholds.at", value=at)
    return Threshold(
        share,
        action,
        tier=tier,
        models=tuple(sorted(models.items())),
        seconds=float(seconds),
        waiting=int(waiting) if action == "queue" else 0,
        webhook=given.get("webhook"),
        call=given.get("call"),
    )


def _as_table(one: Threshold) -> dict[str, Any]:
    table: dict[str, Any] = {"at": f"{(one.at * 100).normalize():f}%", "action": one.action}
    for key in ("tier", "webhook"):
        if getattr(one, key):
            table[key] = getattr(one, key)
    if one.models:
        table["models"] = dict(one.models)
    if one.action == "queue":
        table.update(seconds=one.seconds, waiting=one.waiting)
    return table
