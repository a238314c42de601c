"""`attribkit prices`: what the catalog says, what a call costs and why, and how fresh it all is."""

from __future__ import annotations

import json as _json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attribkit.errors import ConfigurationError

if TYPE_CHECKING:
    from attribkit.pricing.engine import PriceEngine
    from attribkit.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_JSON = typer.Option("--json", help="Print JSON; money is exact decimal text.")
_PRICES = typer.Option("--prices", help="Price overrides, a TOML or JSON file; those of the settings without it.")
_STALE_DAYS = 45


@app.callback(invoke_without_command=True)
def prices(context: typer.Context) -> None:
    """What the price catalog says, what a call costs and why, and how fresh it is."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A model, by any name that a call can carry.")],
    provider: Annotated[str | None, typer.Option(help="Its seller: openai, azure, bedrock, ...")] = None,
    at: Annotated[str | None, typer.Option(help="Mark the row in force then: an ISO date or time.")] = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Every dated row of a model: cards by tier, steps, regions, sources. Exit code 1 when no seller has it."""
    from attribkit.cli.price_tables import model_text

    engine = engine_in_force(None)
    found = engine.lookup(model, provider)
    if not found:
        if provider and engine.seller_of(provider, model) is None:
            raise SystemExit(_said(f"no seller {provider!r} is known; leave --provider out to ask all of them", 1))
        near = engine.nearest(model, engine.seller_of(provider, model))
        raise SystemExit(_said(f"no seller has {model!r}" + (f"; nearest: {', '.join(near)}" if near else ""), 1))
    day = at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if json:
        rows = [
            {"seller": shard.seller, "model": name, "fees": dict(shard.fees), **shard.models[name]}
            for shard, name in found
        ]
        print(_json.dumps({"version": engine.version, "models": rows}, indent=2, ensure_ascii=False, default=str))
        return
    for shard, name in found:
        sys.stdout.write(model_text(shard, name, day))


@app.command()
def explain(
    model: Annotated[str | None, typer.Option(help="The model as the response names it.")] = None,
    file: Annotated[str, typer.Argument(help="A usage object or a whole reply as JSON; - for standard input.")] = "-",
    provider: Annotated[str | None, typer.Option(help="Who sold the call; else the model's name decides.")] = None,
    api: Annotated[str | None, typer.Option(help="chat, responses, messages, generateContent, converse, ...")] = None,
    tier: Annotated[str | None, typer.Option(help="The service tier that the response states.")] = None,
    region: Annotated[str | None, typer.Option(help="Region, residency endpoint or deployment type.")] = None,
    batch: Annotated[bool, typer.Option("--batch", help="It went through the batch API.")] = False,
    at: Annotated[str | None, typer.Option(help="When: an ISO date or time; now without it.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Who it was for, FIELD=VALUE, for overrides with a `when`; again for more.")
    ] = None,
    prices: Annotated[str | None, _PRICES] = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """What a usage payload costs, line by line, and which row says so. Exit code 1 when it is unpriced."""
    from attribkit.attribution import Attribution
    from attribkit.cli.price_tables import cost_dict, cost_text

    payload = _read_json(file)
    fields = dict(_pair(part, "--field") for part in field or [])
    cost = engine_in_force(prices).price(
        payload,
        model=model,
        provider=provider,
        api=api,
        service_tier=tier,
        region=region,
        batch=batch,
        at=at,
        who=Attribution.of(fields),
    )
    if json:
        print(_json.dumps(cost_dict(cost), indent=2, ensure_ascii=False))
    else:
        sys.stdout.write(cost_text(cost))
    if cost.usd is None:
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help='A catalog: "bundled", a directory, a file or a URL.')] = "bundled",
    after: Annotated[str | None, typer.Argument(help="Another; that of the settings' price_source without it.")] = None,
    seller: Annotated[str | None, typer.Option(help="Only this seller.")] = None,
    at: Annotated[str | None, typer.Option(help="Prices in force on this day (an ISO date); today without it.")] = None,
    json: Annotated[bool, _JSON] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Which models and prices differ between two catalogs."""
    from datetime import date

    from attribkit.pricing.compare import differences
    from attribkit.pricing.source import read_catalog

    if after is None:
        source = _settings().price_source
        if source is None:
            raise ConfigurationError("name a second catalog, or set price_source", name="after")
        after = source
    day = date.fromisoformat(at) if at else None
    found = [one for one in differences(read_catalog(before), read_catalog(after), at=day) if seller in (None, one[0])]
    heads = ["seller", "model", "what", "before", "after"]
    if json:
        print(_json.dumps([one._asdict() for one in found], indent=2, ensure_ascii=False))
    else:
        _table(heads, [[one[0], one[1], one[2], one[3] or "-", one[4] or "-"] for one in found], csv=csv)
        if not csv:
            print(f"{len(found)} differences")


@app.command()
def check(
    ledger: Annotated[str | None, typer.Option(help="The ledger's URL; that of the settings without it.")] = None,
    since: Annotated[str, typer.Option(help="Calls from: 30d, 2026-11-01, month. UTC.")] = "90d",
    max_age: Annotated[int, typer.Option(help="Days after which the catalog is stale.")] = _STALE_DAYS,
    prices: Annotated[str | None, _PRICES] = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Whether prices are fresh and cover every model in the ledger. Exit code 1 when they do not: for CI."""
    from attribkit.errors import LedgerError
    from attribkit.ledger.base import Question
    from attribkit.ledger.open import collect_waiting, open_store
    from attribkit.reports.periods import instant, nanoseconds
    from attribkit.reports.price_gaps import price_gaps

    engine = engine_in_force(prices)
    age = engine.age_days(datetime.now(UTC))
    url = ledger or _settings().ledger
    gaps, missing, behind = [], None, None
    if isinstance(url, str):
        try:
            spool_dir = _settings().spool_dir
            store = open_store(url, create=False, spool_dir=spool_dir)
            try:
                behind = collect_waiting(store, url, spool_dir=spool_dir).behind
                gaps = price_gaps(store, engine, Question(since_ns=nanoseconds(instant(since))))
            finally:
                store.close()
        except LedgerError as error:
            if ledger is not None:
                raise
            missing = str(error)
    well = age <= max_age and not gaps
    if json:
        facts = {"ok": well, "version": engine.version, "built": engine.catalog.built, "age_days": age}
        rows = [gap._asdict() for gap in gaps]
        print(_json.dumps({**facts, "gaps": rows, "ledger_error": missing}, indent=2, ensure_ascii=False))
    else:
        print(f"catalog {engine.version}: {age} days old" + (f", over {max_age}: stale" if age > max_age else ""))
        if missing:
            print(f"no look at a ledger: {missing}")
        if gaps:
            shown = [[g.provider, g.model or "-", g.tier or "-", g.region or "-", str(g.calls), g.reason] for g in gaps]
            _table(["provider", "model", "tier", "region", "calls", "why there is no price"], shown)
        if behind:
            print(f"not all calls were looked at: {behind}")
        wrong = ["the catalog is stale"] if age > max_age else []
        wrong += [f"{len(gaps)} kinds of calls without a price"] if gaps else []
        print("all is well" if well else f"not well: {', '.join(wrong)}")
    if not well:
        raise typer.Exit(1)


@app.command()
def update(
    source: Annotated[str | None, typer.Argument(help="A file or URL; the settings' price_source without it.")] = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Ask the price source now, and keep its answer when it is in order. Exit code 1 when the last good one stays."""
    from attribkit.pricing.source import PriceSource

    settings = _settings()
    where = source or settings.price_source
    if where is None:
        raise ConfigurationError("there is no price source; name a file or a URL, or set price_source", name="source")
    with _status(f"asking {where}"):
        found = PriceSource(where, ttl_hours=settings.price_ttl_hours).refresh()
    if json:
        print(_json.dumps(found._asdict(), indent=2, ensure_ascii=False))
    elif found.error is None:
        print(f"{'taken' if found.taken else 'nothing new'}: version {found.version}, built {found.built}")
    else:
        print(f"not taken: {found.error}; version {found.version} stays", file=sys.stderr)
    if found.error is not None:
        raise typer.Exit(1)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV of contract prices, or LiteLLM's model_prices JSON.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
) -> None:
    """Turn a CSV into price overrides (setting prices), or LiteLLM's list into a catalog (setting price_source)."""
    from attribkit.pricing.lists import contract_rows, is_litellm, litellm_catalog
    from attribkit.pricing.overrides import read_overrides

    try:
        if file.suffix.lower() == ".csv":
            made: dict[str, Any] = contract_rows(file)
            read_overrides(made)
            said = f"{len(made['price'])} contract prices; use them with the setting prices"
        else:
            data = _json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or not is_litellm(data):
                raise ConfigurationError(f"{file}: is neither a CSV nor LiteLLM's price list", name="file", value=file)
            made = litellm_catalog(data, built=datetime.now(UTC).date().isoformat())
            total = sum(len(seller["models"]) for seller in made["sellers"].values())
            said = f"{total} models of {len(made['sellers'])} sellers; use them with the setting price_source"
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{file}: {error}", name="file", value=str(file)) from error
    try:
        half = output.with_name(f"{output.name}.part")
        half.write_text(_json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        half.replace(output)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{output}: cannot be written: {error}", name="output", value=str(output)) from error
    print(f"{output}: {said}")


# -- parts ------------------------------------------------------------------------------------------------------------


def _settings() -> Settings:
    from attribkit import settings

    return settings.load({})


def engine_in_force(prices: str | None) -> PriceEngine:
    """Return the engine as the application has it: its overrides, and the last good prices of its source."""
    from attribkit.pricing.engine import PriceEngine
    from attribkit.pricing.source import PriceSource

    found = _settings()
    engine = PriceEngine.bundled(overrides=prices or found.prices or ())
    return engine if found.price_source is None else engine.with_catalog(PriceSource(found.price_source).catalog())


def _read_json(file: str) -> Any:
    try:
        return _json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: is no usage as JSON: {error}", name="file", value=file) from error


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigurationError(f"{option} {text!r}: write FIELD=VALUE, e.g. tenant_id=acme", name=option, value=text)
    return name.strip(), value


def _said(text: str, code: int) -> int:
    print(f"attribkit: {text}", file=sys.stderr)
    return code


def _status(text: str) -> Any:
    from contextlib import nullcontext

    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, csv: bool = False) -> None:
    from attribkit.cli.price_tables import print_table

    print_table(heads, list(rows), csv=csv)
