"""`attribkit reprice`: history priced again, as a labelled figure beside what the rows say."""

from __future__ import annotations

import json as _json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from attribkit.errors import ConfigurationError

if TYPE_CHECKING:
    from attribkit.ledger.base import LedgerStore
    from attribkit.reports.repricing import Preview

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def reprice(
    ledger: Annotated[str | None, typer.Option(help="The ledger's URL; that of the settings without it.")] = None,
    since: Annotated[str | None, typer.Option(help="Calls from: 2026-11-01, 30d, month. UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to, not included; now without it.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Only calls with FIELD=VALUE; again for another.")] = None,
    prices: Annotated[
        str | None, typer.Option(help="Price overrides, a TOML or JSON file; those of the settings without it.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The name of the new figure; needed with --apply.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; needed with --apply.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the figure. Without it nothing is written.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List the figures that there are.")] = False,
    drop: Annotated[str | None, typer.Option(help="Forget the figure with this label.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; money is exact decimal text.")] = False,
) -> None:
    """Price history again with the prices of today, each call at its own time.

    The first run says what would change and writes nothing; --apply keeps the result as a figure under a label, all of
    it or nothing. The rows keep what they say. `attribkit report --figure LABEL` shows the figure.
    """
    from attribkit.cli.prices import engine_in_force
    from attribkit.cli.report import conditions, place
    from attribkit.ledger.base import Question
    from attribkit.ledger.open import collect_waiting, open_store
    from attribkit.reports.periods import instant, nanoseconds
    from attribkit.reports.repricing import as_json, preview
    from attribkit.reports.repricing import reprice as written

    if apply and (not label or not reason):
        raise ConfigurationError("--apply needs --label and --reason", name="--label" if not label else "--reason")
    url, spool_dir = place(ledger, None)
    store = open_store(url, create=False, spool_dir=spool_dir)
    try:
        if drop is not None:
            if not store.drop_repricing(drop):
                raise ConfigurationError(f"--drop {drop!r}: no figure has this label", name="--drop", value=drop)
            print(f"forgotten: {drop}")
            return
        if show:
            _list(store, json=json)
            return
        collect_waiting(store, url, spool_dir=spool_dir)
        question = Question(
            since_ns=nanoseconds(instant(since)) if since else None,
            until_ns=nanoseconds(instant(until, name="--until") if until else datetime.now(UTC)),
            where=conditions(where or []),
        )
        engine = engine_in_force(prices)
        rows = sum(group.attempts for group in store.query(question))
        with _progress(rows) as progress:
            if apply and label and reason:
                found = written(store, engine, question, label=label, reason=reason, progress=progress)
            else:
                found = preview(store, engine, question, progress=progress)
    finally:
        store.close()
    if json:
        print(as_json(found))
    else:
        _show(found, label if apply else None)


def _show(found: Preview, label: str | None) -> None:
    from attribkit.cli.price_tables import print_table
    from attribkit.money import usd_text

    rows = [
        [
            change.name,
            f"{change.calls:,}",
            f"{change.changed:,}",
            usd_text(change.before) or "0",
            usd_text(change.after) or "0",
            usd_text(change.after - change.before) or "0",
        ]
        for change in (*found.changes, found.total)
    ]
    print_table(["seller/model", "calls", "changed", "before USD", "after USD", "difference USD"], rows)
    print()
    if found.total.newly_priced:
        print(f"{found.total.newly_priced:,} calls without a price have one now")
    if found.total.no_longer_priced:
        print(f"{found.total.no_longer_priced:,} calls with a price would have none: their cost leaves the sum")
    if label is None:
        print(f"dry run with prices {found.version}: nothing was written; --apply --label NAME --reason WHY keeps it")
    else:
        print(f"kept as {label!r} with prices {found.version}; attribkit report --figure {label}")


def _list(store: LedgerStore, *, json: bool) -> None:
    from attribkit.cli.price_tables import print_table

    found = store.repricings()
    if json:
        print(_json.dumps([one._asdict() for one in found], indent=2, ensure_ascii=False))
        return
    rows = [
        [
            one.label,
            datetime.fromtimestamp(one.created_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M"),
            f"{one.calls:,}",
            f"{one.changed:,}",
            one.price_version,
            one.reason,
        ]
        for one in found
    ]
    print_table(["label", "made", "calls", "changed", "prices", "reason"], rows)


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on stderr while rows are priced, if that is a terminal."""
    if not sys.stderr.isatty() or rows < 5_000:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("pricing calls again"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=rows)
        yield lambda done: bar.update(task, completed=done)
