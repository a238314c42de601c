"""`attribkit report`: spend by any field of a ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from attribkit.errors import ConfigurationError
from attribkit.ledger.open import collect_waiting, open_store
from attribkit.ledger.spool import spool_directory, spool_size
from attribkit.reports.periods import instant
from attribkit.reports.queries import SORTS, Report, spend
from attribkit.reports.render import NONE, as_csv, as_json, as_text, notes, table
from attribkit.storage.urls import parse_url

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_WORTH_A_BAR = 4_000_000


@app.command()
def report(
    ledger: Annotated[
        str | None, typer.Option(help="The ledger's URL, e.g. sqlite:///attribkit.db; that of the settings without it.")
    ] = None,
    by: Annotated[str, typer.Option(help="Fields to group by, with commas: tenant_id,workflow,model,day,...")] = (
        "tenant_id"
    ),
    since: Annotated[str | None, typer.Option(help="From: 2026-11-01, 7d, 24h, 30m, today, month. UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to, not included; written as --since.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only calls with FIELD=VALUE; again for another field or value.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Only the first N groups.")] = None,
    sort: Annotated[str, typer.Option(help=f"By {', '.join(SORTS)} (largest first) or name.")] = "cost",
    figure: Annotated[str | None, typer.Option(help="Costs of a repricing, by its label.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; money is exact decimal text.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV; money is exact decimal text.")] = False,
    spool_dir: Annotated[
        str | None, typer.Option(help="Where rows wait, if not beside the ledger; that of the settings without it.")
    ] = None,
) -> None:
    """Spend, calls and tokens by tenant or any other field.

    A call is one operation, however often it was retried; an attempt is one request on the wire. FIELD is a
    well-known attribution field, a dimension that your app sets, or one of model, provider, gateway, host, api,
    status, hop, service_tier, day, hour, month.
    """
    if json and csv:
        raise ConfigurationError("--json and --csv exclude each other; leave one out", name="--csv")
    fields = tuple(field.strip() for field in by.split(",") if field.strip())
    ledger, spool_dir = place(ledger, spool_dir)
    store = open_store(ledger, create=False, spool_dir=spool_dir)
    try:
        with _progress(_waiting(ledger, spool_dir)) as progress:
            collected = collect_waiting(store, ledger, spool_dir=spool_dir, progress=progress)
        if collected.behind:
            print(f"attribkit: not all calls are in this report: {collected.behind}", file=sys.stderr)
        if collected.rejected:
            print(f"attribkit: {collected.rejected} unreadable lines were put aside in the spool", file=sys.stderr)
        found = spend(
            store,
            by=fields,
            since=instant(since) if since else None,
            until=instant(until, name="--until") if until else None,
            where=conditions(where or []),
            top=top,
            sort=sort,
            figure=figure,
        )
    finally:
        store.close()
    if json:
        print(as_json(found))
    elif csv:
        sys.stdout.write(as_csv(found))
    else:
        _show(found)


def conditions(parts: list[str]) -> dict[str, list[str | None]]:
    conditions: dict[str, list[str | None]] = {}
    for part in parts:
        field, equals, value = part.partition("=")
        if not equals or not field.strip():
            raise ConfigurationError(
                f"--where {part!r}: write FIELD=VALUE, e.g. tenant_id=acme; FIELD= for calls without it",
                name="--where",
                value=part,
            )
        conditions.setdefault(field.strip(), []).append(None if value in ("", NONE) else value)
    return conditions


def _show(found: Report) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(as_text(found))
        return
    from rich.console import Console

    console = Console()
    if found.total.attempts:
        console.print(table(found, width=console.width))
    console.print()
    for line in notes(found):
        console.print(line, highlight=False, markup=False)


def place(ledger: str | None, spool_dir: str | None) -> tuple[str, str | None]:
    """Return the ledger and its spool: as asked, else as the settings say (environment, attribkit.toml, pyproject)."""
    if ledger is not None and spool_dir is not None:
        return ledger, spool_dir
    from attribkit import settings

    found = settings.load({})
    if ledger is None:
        if not isinstance(found.ledger, str):
            raise ConfigurationError("the settings name no ledger; name one with --ledger URL", name="--ledger")
        ledger = found.ledger
    return ledger, spool_dir or found.spool_dir


def _waiting(ledger: str, spool_dir: str | None) -> int:
    path = parse_url(ledger).path
    return 0 if path is None else spool_size(spool_directory(path, ledger, spool_dir))


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on stderr while much is moved, if that is a terminal."""
    if size < _WORTH_A_BAR or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("reading calls that wait"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=size)
        yield lambda done, total: bar.update(task, completed=done, total=total)
