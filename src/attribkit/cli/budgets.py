"""`attribkit budgets`: what is left, who may spend more, and what limits would have done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from attribkit.attribution import Attribution
from attribkit.budgets.holders import bury_dead
from attribkit.budgets.matching import counters_of
from attribkit.budgets.open import budget_url, place_of, read_budgets
from attribkit.budgets.policy import Budget, amount_of, units
from attribkit.budgets.store import Balance, Counter, Store
from attribkit.errors import BudgetStoreBusy, BudgetStoreDown, ConfigurationError
from attribkit.money import usd_text
from attribkit.reports.periods import instant

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

_Store = Annotated[str | None, typer.Option("--store", help="The budget store's URL; that of the settings without it.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON; amounts are exact decimal text.")]
_Key = Annotated[list[str] | None, typer.Option("--key", help="FIELD=VALUE of a budget that is `per` fields; repeat.")]
_BAR = 20


@app.callback()
def budgets() -> None:
    """Budgets: what is spent and left, limits, wallets, and what limits would have done to past calls."""


# -- reading ----------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(store: _Store = None, as_json: _Json = False) -> None:
    """Every budget in force, and what is spent in its windows of now."""
    rows = []
    with _opened(store) as (opened, known):
        for name, (budget, origin) in sorted(known.items()):
            spent = reserved = 0
            full: tuple[Decimal, str] = (Decimal(-1), "")
            count = 0
            for balance in _current(opened, budget):
                spent, reserved, count = spent + balance.state.spent, reserved + balance.state.reserved, count + 1
                full = max(full, (_share(budget, balance), balance.counter.key))
            rows.append(
                {
                    "budget": name,
                    "limit": _text(units("", "limit", budget.limit, budget.unit), budget.unit),
                    "unit": budget.unit,
                    "window": budget.window,
                    "per": ",".join(budget.per),
                    "counters": count,
                    "spent": _text(spent, budget.unit),
                    "reserved": _text(reserved, budget.unit),
                    "fullest": f"{max(full[0], Decimal(0)) * 100:.1f} %{_who(full[1])}",
                    "from": origin + (", dry run" if budget.dry_run else ""),
                }
            )
    _print(rows, as_json, "there are no budgets; declare some in attribkit.toml, or: attribkit budgets set NAME")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The budget.")],
    key: _Key = None,
    store: _Store = None,
    as_json: _Json = False,
) -> None:
    """One budget: each of its counters with spent, reserved, left, and where it will stand at the window's end."""
    wanted = _pairs(key or [], "--key")
    rows = []
    now = time.time()
    with _opened(store) as (opened, known):
        budget = _named(known, name)[0]
        for balance in _current(opened, budget):
            if not wanted.items() <= json.loads(balance.counter.key).items():
                continue
            counter, state = balance
            limit = _limit(budget, balance)
            share = min(_share(budget, balance), Decimal(1))
            filled = int(share * _BAR)
            rows.append(
                {
                    "who": _who(counter.key).strip() or "all",
                    "window": counter.window,
                    "": "█" * filled + "·" * (_BAR - filled) if not as_json else str(share),
                    "spent": _text(state.spent, budget.unit),
                    "reserved": _text(state.reserved, budget.unit),
                    "left": _text(max(0, limit - state.spent - state.reserved), budget.unit),
                    "limit": _text(limit, budget.unit),
                    "forecast": _forecast(counter, state.spent, budget.unit, now),
                    "resets": datetime.fromtimestamp(counter.end, UTC).strftime("%Y-%m-%d %H:%MZ")
                    if counter.end
                    else "-",
                }
            )
    if as_json:
        rows = [{("share" if field == "" else field): value for field, value in row.items()} for row in rows]
    _print(rows, as_json, f"{name}: nothing was spent or reserved in its windows of now")


@app.command()
def statement(
    name: Annotated[str, typer.Argument(help="The budget.")],
    key: _Key = None,
    store: _Store = None,
    as_json: _Json = False,
) -> None:
    """What was paid in, and what each window has used, oldest first."""
    wanted = _pairs(key or [], "--key")
    with _opened(store) as (opened, known):
        unit = _named(known, name)[0].unit
        lines: list[tuple[float, dict[str, Any]]] = []
        for entry in opened.statement(name):
            if wanted.items() <= json.loads(entry.key).items():
                lines.append((entry.at, _line(entry.at, entry.key, "top-up", entry.amount, unit, entry.note)))
        for balance in opened.balances(name):
            counter = balance.counter
            if counter.window != "daily cap" and wanted.items() <= json.loads(counter.key).items():
                note = counter.window + (
                    f", {_text(balance.state.reserved, unit)} reserved" * (balance.state.reserved > 0)
                )
                at = float(counter.start) if counter.end else float("inf")
                lines.append((at, _line(at, counter.key, "spent", -balance.state.spent, counter.unit, note)))
    _print(
        [line for _, line in sorted(lines, key=lambda one: one[0])], as_json, f"{name}: nothing was paid in or spent"
    )


# -- changing ---------------------------------------------------------------------------------------------------------


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(help="The budget; one that is not known is made.")],
    limit: Annotated[
        str | None, typer.Option(help='USD as text ("49.00"), or a whole number of tokens or calls.')
    ] = None,
    window: Annotated[str | None, typer.Option(help="minute, hour, day, week, month, total, 'rolling 24h'.")] = None,
    unit: Annotated[str | None, typer.Option(help="usd, tokens, calls.")] = None,
    timezone: Annotated[str | None, typer.Option(help="An IANA name.")] = None,
    match: Annotated[list[str] | None, typer.Option(help="FIELD=VALUE that a call must have; repeat.")] = None,
    per: Annotated[str | None, typer.Option(help="Fields, with commas, of which each value has its own.")] = None,
    daily_cap: Annotated[str | None, typer.Option(help="A limit for each day, besides.")] = None,
    wallet: Annotated[bool | None, typer.Option(help="Prepaid: grows by top-ups.")] = None,
    dry_run: Annotated[bool | None, typer.Option(help="Count and tell, refuse nothing.")] = None,
    unpriced: Annotated[str | None, typer.Option(help="allow, reserve, reject.")] = None,
    ceiling: Annotated[str | None, typer.Option(help="USD that an unpriced call holds.")] = None,
    store_down: Annotated[str | None, typer.Option(help="open, closed.")] = None,
    warn: Annotated[list[str] | None, typer.Option(help="Warn at a share of the limit, such as 80%; repeat.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out of force, wherever it is declared.")] = False,
    store: _Store = None,
) -> None:
    """Make a budget, change one, or take it out of force. Running processes follow within a second or two."""
    with _opened(store) as (opened, known):
        table: dict[str, Any] = known[name][0].as_dict() if name in known else {"name": name, "limit": "0"}
        if remove:
            _named(known, name)
            opened.define(table, "removed")
            print(f"{name} is out of force")
            return
        if name not in known and limit is None:
            raise ConfigurationError(f"{name} is new: give its --limit", name="--limit")
        changes: dict[str, Any] = {
            "limit": limit, "window": window, "unit": unit, "timezone": timezone, "daily_cap": daily_cap,
            "wallet": wallet, "dry_run": dry_run, "unpriced": unpriced, "ceiling": ceiling, "store_down": store_down,
            "per": per.split(",") if per else None, "match": _several(match) if match else None,
        }  # fmt: skip
        table.update({field: value for field, value in changes.items() if value is not None})
        if wallet and window is None:
            table["window"] = "total"
        if warn:
            others = [one for one in table.get("thresholds", ()) if one["action"] != "warn"]
            table["thresholds"] = [*({"at": at, "action": "warn"} for at in warn), *others]
        budget = Budget(**table)
        opened.define(budget.as_dict(), "set")
        print(repr(budget))


@app.command("top-up")
def top_up(
    name: Annotated[str, typer.Argument(help="The budget.")],
    amount: Annotated[str, typer.Argument(help="How much more: USD, tokens or calls, as the budget counts.")],
    key: _Key = None,
    note: Annotated[str, typer.Option(help="What it was for; stands in the statement.")] = "",
    store: _Store = None,
) -> None:
    """Raise what may be spent: of a wallet for good, of another budget in its window of now."""
    with _opened(store) as (opened, known):
        budget = _named(known, name)[0]
        counter = _counter(budget, _pairs(key or [], "--key"))
        state = opened.top_up(counter, units(name, "amount", amount, budget.unit), note, time.time())
        balance = Balance(counter, state)
        left = max(0, _limit(budget, balance) - state.spent - state.reserved)
        print(f"{name}{_who(counter.key)}: {_text(left, budget.unit)} {budget.unit} left")


@app.command()
def release(
    holder: Annotated[str | None, typer.Argument(help="A holder to end although it may live.")] = None,
    store: _Store = None,
    as_json: _Json = False,
) -> None:
    """Give back what dead processes hold; without a name those that are surely dead, and list the others."""
    with _opened(store) as (opened, _):
        now, place = time.time(), place_of(_url(store))
        if holder is not None:
            if holder not in {one.id for one, _ in opened.holders(now)}:
                raise ConfigurationError(f"there is no holder {holder}; attribkit budgets release lists them")
            print(f"given back in {opened.bury(holder, {}, now)} counters")
            return
        freed = bury_dead(opened, "", place.journals, now)
        rows = [
            {
                "holder": one.id,
                "host": one.host.split("/")[0],
                "pid": one.pid,
                "lease": "ended" if expired else f"{one.expires - now:.0f} s",
                "counters": sum(hold.held > 0 for hold in opened.holds(one.id)),
            }
            for one, expired in opened.holders(now)
        ]
    if not as_json:
        print(f"given back in {freed} counters")
    _print(rows, as_json, "nobody holds anything")


# -- simulating -------------------------------------------------------------------------------------------------------


@app.command()
def simulate(
    ledger: Annotated[
        str | None, typer.Option(help="The ledger of past calls; that of the settings without it.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--budgets", help="A TOML file with [[budgets]] and [[tiers]]; else those in force.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From: 2026-11-01, 7d, 24h, today, month. UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to, not included.")] = None,
    store: _Store = None,
    as_json: _Json = False,
) -> None:
    """Replay past calls against budgets and tiers: who would have been refused, warned or moved, and when."""
    from attribkit import settings
    from attribkit.budgets.simulation import simulate as replay
    from attribkit.gateways.tiers import TierPolicy
    from attribkit.ledger.base import Question
    from attribkit.ledger.open import open_ledger
    from attribkit.reports.periods import nanoseconds

    found = settings.load({})
    given, rules = _from_file(file) if file else (None, found.tiers)
    if given is None:
        with _opened(store, make=False) as (_, known):
            given = [budget for budget, _ in known.values()]
    url = ledger or found.ledger
    if not isinstance(url, str):
        raise ConfigurationError("the settings name no ledger; name one with --ledger URL", name="--ledger")
    rows = open_ledger(url, create=False, spool_dir=found.spool_dir)
    try:
        question = Question(
            since_ns=nanoseconds(instant(since)) if since else None,
            until_ns=nanoseconds(instant(until, name="--until")) if until else None,
        )
        told = replay(
            given,
            _past(rows.records(question)),
            tiers=(lambda now, left: TierPolicy(rules, now=now, left=left).applied) if rules else None,
        )
    finally:
        rows.close()
    facts = {
        "calls": told.calls,
        "refused": told.refused,
        "refused_usd": _text(told.refused_pico, "usd"),
        "downgraded": told.downgraded,
        "unpriced": told.unpriced,
    }
    outcomes = [
        {
            "budget": one.budget,
            "who": " ".join(f"{field}={value}" for field, value in one.key.items()) or "all",
            "refused": one.refused,
            "refused_usd": _text(one.refused_pico, "usd"),
            "first": datetime.fromtimestamp(one.first or 0, UTC).strftime("%Y-%m-%d %H:%MZ"),
        }
        for one in told.outcomes
    ]
    if as_json:
        notices = [notice.as_dict() for notice in told.notices]
        print(json.dumps({**facts, "budgets": outcomes, "notices": notices, "tiers": told.tiers}, indent=2))
        return
    print(", ".join(f"{value} {field.replace('_', ' ')}" for field, value in facts.items()))
    if any(told.tiers):
        print("tiers: " + ", ".join(f"{tier or '(none)'} {calls}" for tier, calls in sorted(told.tiers.items())))
    for notice in told.notices:
        if notice.kind in ("warn", "would_reject"):
            print(str(notice))
    _print(outcomes, False, "no call would have been refused")


def _past(rows: Iterable[Any]) -> Iterator[Any]:
    from attribkit.budgets.simulation import Past

    for row in rows:
        if row.status != "rejected":
            tokens = (row.input_tokens or 0) + (row.output_tokens or 0)
            yield Past(
                row.started_ns / 1e9, row.attribution, row.requested_model, row.cost_pico, tokens, row.provider, row.api
            )


def _from_file(path: str) -> tuple[list[Budget], tuple[dict[str, Any], ...]]:
    import tomllib

    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"--budgets {path}: {error}", name="--budgets", value=path) from None
    tables = tables.get("tool", {}).get("attribkit", tables)
    return read_budgets(tables.get("budgets", ())), tuple(tables.get("tiers", ()))


# -- what all of them need --------------------------------------------------------------------------------------------

_Known = Mapping[str, tuple[Budget, str]]


def _url(given: str | None) -> str:
    from attribkit import settings

    found = settings.load({})
    url = given or budget_url(found.budget_store, found.ledger)
    if url is None or url.startswith("memory:"):
        raise ConfigurationError("the settings count budgets in each process; name a store with --store URL")
    return url


@contextmanager
def _opened(given: str | None, *, make: bool = True) -> Iterator[tuple[Store, _Known]]:
    """Open the store, with the budgets that are in force there: the settings' own, and those that were set."""
    import os

    from attribkit import settings

    place = place_of(_url(given))
    known = {one.name: (one, "settings") for one in read_budgets(settings.load({}).budgets)}
    if make and place.journals is not None:
        os.makedirs(place.journals, mode=0o700, exist_ok=True)  # tells the next start that there are budgets
    store = place.open()
    try:
        for name, (table, origin) in store.definitions().items():
            if origin == "removed":
                known.pop(name, None)
            elif origin == "set":
                known[name] = Budget(**table), "set"
            else:
                known.setdefault(name, (Budget(**table), "code"))
        yield store, known
    except (BudgetStoreDown, BudgetStoreBusy) as error:
        raise ConfigurationError(f"the budget store: {error}", name="--store") from None
    finally:
        store.close()


def _named(known: _Known, name: str) -> tuple[Budget, str]:
    found = known.get(name)
    if found is None:
        there = ", ".join(sorted(known)[:20]) or "none"
        raise ConfigurationError(f"there is no budget {name!r}; there are {there}", name="NAME", value=name)
    return found


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for part in given:
        field, equals, value = part.partition("=")
        if not equals or not field or not value:
            raise ConfigurationError(f"{option} {part!r}: write FIELD=VALUE, e.g. tenant_id=acme", name=option)
        found[field.strip()] = value
    return found


def _several(given: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in given:
        for field, value in _pairs([part], "--match").items():
            found.setdefault(field, []).append(value)
    return found


def _counter(budget: Budget, key: Mapping[str, str]) -> Counter:
    if set(key) != set(budget.per):
        wanted = " ".join(f"--key {field}=..." for field in budget.per) or "no --key"
        raise ConfigurationError(f"{budget.name} is one for each {', '.join(budget.per) or 'call'}: give {wanted}")
    attribution = Attribution.of(key)
    return counters_of(budget, attribution, key.get("model"), time.time())[0].counter


def _current(store: Store, budget: Budget) -> Iterator[Balance]:
    """Yield the counters of a budget as it is now, in its windows of now."""
    now = time.time()
    wanted = {
        ("daily cap" if number else rung.window.kind, rung.window.span(now)[0])
        for number, rung in enumerate(budget.rungs)
    }
    for balance in store.balances(budget.name):
        counter = balance.counter
        if (counter.window, counter.start) in wanted and counter.unit == budget.unit:
            yield balance


def _limit(budget: Budget, balance: Balance) -> int:
    rung = budget.rungs[1 if balance.counter.window == "daily cap" else 0]
    return rung.limit + balance.state.extra


def _share(budget: Budget, balance: Balance) -> Decimal:
    limit = _limit(budget, balance)
    used = balance.state.spent + balance.state.reserved
    return Decimal(used) / limit if limit else Decimal(used > 0)


def _forecast(counter: Counter, spent: int, unit: str, now: float) -> str:
    """Return what will be spent at the window's end, at the pace so far."""
    if counter.end is None or now <= counter.start:
        return "-"
    passed = (now - counter.start) / (counter.end - counter.start)
    return _text(int(spent / max(passed, 1e-6)), unit, places=2)


def _text(whole: int, unit: str, *, places: int | None = None) -> str:
    amount = amount_of(whole, unit)
    if places is not None and unit == "usd":
        amount = amount.quantize(Decimal(1).scaleb(-places))
    return usd_text(amount) or "0"


def _who(key: str) -> str:
    return "".join(f" {field}={value}" for field, value in json.loads(key or "{}").items())


def _line(at: float, key: str, what: str, amount: int, unit: str, note: str) -> dict[str, Any]:
    when = "-" if at == float("inf") else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")
    return {"at": when, "who": _who(key).strip() or "all", "what": what, "amount": _text(amount, unit), "note": note}


def _print(rows: Sequence[Mapping[str, Any]], as_json: bool, nothing: str) -> None:
    if as_json:
        print(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif not rows:
        print(nothing)
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for field in rows[0]:
            table.add_column(field, justify="right" if _is_number(rows[0][field]) else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(value)) for value in row.values()))
        Console().print(table)
    else:
        widths = [max(len(field), *(len(str(row[field])) for row in rows)) for field in rows[0]]
        for line in ({field: field for field in rows[0]}, *rows):
            print(
                "  ".join(str(value).ljust(width) for value, width in zip(line.values(), widths, strict=True)).rstrip()
            )


def _is_number(value: object) -> bool:
    try:
        Decimal(str(value))
    except InvalidOperation:
        return False
    return True
