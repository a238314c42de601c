"""Prints what the demo found: as tables and text, or as JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attribkit.demo.run import Half, Outcome
from attribkit.money import usd_text

__all__ = ["as_dict", "show"]

_SIDE_BY_SIDE = 112


def _percent(share: Decimal) -> str:
    return f"{share:.1%}".replace("%", " %")


def _table(title: str, source: str, half: Half, plain: bool) -> Table:
    table = Table(
        title=f"[bold]{title}[/]\n[dim]{source}[/]",
        title_justify="left",
        box=None if plain else box.SIMPLE_HEAD,
        show_footer=True,
        title_style="",
        pad_edge=False,
    )
    calls, total = sum(row.calls for row in half.rows), half.usd
    table.add_column("tenant", "total")
    table.add_column("workflow", "")
    table.add_column("calls", str(calls), justify="right")
    table.add_column("USD", f"{total:.6f}", justify="right")
    table.add_column("share", "", justify="right")
    owned = sorted((row for row in half.rows if row.tenant is not None), key=lambda row: (row.tenant, row.workflow))
    for row in owned:
        share = _percent(row.usd / total) if total else ""
        table.add_row(row.tenant, row.workflow or "-", str(row.calls), f"{row.usd:.6f}", share)
    nobody = [row for row in half.rows if row.tenant is None]
    usd, count = sum((row.usd for row in nobody), Decimal(0)), sum(row.calls for row in nobody)
    style = "bold red" if nobody else "green"
    table.add_row("nobody", "", str(count), f"{usd:.6f}", _percent(half.unowned), style=style)
    return table


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome for a reader; plain when `console` is no terminal."""
    plain = not console.is_terminal
    before, after = outcome.before, outcome.after
    loopback = outcome.gateway == "loopback"
    where = "a loopback gateway, no key, no network" if loopback else outcome.gateway
    requests = len(before.requests)
    console.print(
        f"[bold]attribkit demo[/] a LangGraph support agent for three tenants at once: {requests} requests to "
        f"{escape(where)}, in {before.seconds:.1f} s and {after.seconds:.1f} s\n",
        highlight=False,
    )
    log = (
        "the gateway's own spend log" if loopback else "by the headers that left, priced from the usage in the replies"
    )
    first = _table("BEFORE  attribkit off", log, before, plain)
    second = _table("AFTER  attribkit.instrument()", "the ledger", after, plain)
    if console.width >= _SIDE_BY_SIDE and not plain:
        console.print(Columns((first, second), padding=(0, 6)))
    else:
        console.print(first, "", second, sep="\n")
    console.print(
        "\n[dim]What the app does by itself: it sets x-portkey-metadata on the client that it builds for a request, "
        "and puts tenant and workflow into the run's config. Two subgraphs and a tool build their own clients, and "
        "there it is lost.[/]",
        highlight=False,
    )
    if any(row.unpriced for row in before.rows):
        unpriced = sum(row.unpriced for row in before.rows)
        console.print(f"[dim]{unpriced} calls of the first run came back without usage or without a known price.[/]")
    console.print()
    sign = {True: "[green]ok[/]", False: "[bold red]NO[/]"}
    left, refused = len(after.requests), sum(request.status == 429 for request in after.requests)
    retries = f" ({refused} were answered 429 and tried again)" if refused else ""
    console.print(
        sign[outcome.attempts == left],
        f"{left} requests left the process{retries}, {outcome.attempts} rows in the ledger",
        highlight=False,
    )
    console.print(
        sign[not outcome.unattributed and not outcome.wrong],
        f"{outcome.unattributed} without an owner, {outcome.wrong} for the wrong tenant "
        f"({_percent(before.unowned)} unowned before, {_percent(after.unowned)} now)",
        highlight=False,
    )
    if outcome.agrees is not None:
        text = "agrees with the ledger to the last digit" if outcome.agrees else "does not agree with the ledger"
        console.print(
            sign[outcome.agrees],
            f"the gateway's own log of the second run {text}: {usd_text(after.usd)} USD",
            highlight=False,
        )
    if outcome.example is not None:
        call, headers = outcome.example
        console.print(f"\n[bold]What arrived now, and did not before[/]: {escape(call)}", highlight=False)
        for name, value in headers:
            console.print(f"  [cyan]{escape(name)}[/]: {escape(value)}", highlight=False, soft_wrap=True)
    if outcome.spans_to is not None:
        console.print(f"\nSpans went to {escape(outcome.spans_to)}", highlight=False)
    console.print(f"\nLedger: {escape(str(outcome.ledger_path))}", highlight=False, soft_wrap=True)
    console.print(
        f"Next:   [bold]attribkit report --by tenant_id,workflow --ledger {escape(outcome.ledger_url)}[/]",
        highlight=False,
        soft_wrap=True,
    )
    for problem in outcome.problems:
        console.print(f"[bold red]problem[/]: {escape(problem)}", highlight=False)


def _half_as_dict(half: Half) -> dict[str, Any]:
    rows = [
        {
            "tenant_id": row.tenant,
            "workflow": row.workflow,
            "calls": row.calls,
            "cost_usd": usd_text(row.usd),
            "unpriced_calls": row.unpriced,
        }
        for row in sorted(half.rows, key=lambda row: (row.tenant is None, row.tenant or "", row.workflow or ""))
    ]
    return {
        "rows": rows,
        "total": {"calls": sum(row.calls for row in half.rows), "cost_usd": usd_text(half.usd)},
        "unowned_share": f"{half.unowned:.6f}",
        "requests": len(half.requests),
        "seconds": round(half.seconds, 3),
    }


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome for `--json`: money as decimal strings, shares from 0 to 1 as text."""
    example = outcome.example
    return {
        "before": _half_as_dict(outcome.before),
        "after": _half_as_dict(outcome.after),
        "gateway": outcome.gateway,
        "dialect": outcome.dialect,
        "ledger": outcome.ledger_url,
        "ledger_rows": outcome.attempts,
        "unattributed": outcome.unattributed,
        "wrong": outcome.wrong,
        "gateway_log_agrees": outcome.agrees,
        "example": None if example is None else {"call": example[0], "headers": [list(pair) for pair in example[1]]},
        "spans_to": outcome.spans_to,
        "problems": list(outcome.problems),
    }
