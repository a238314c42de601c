"""How prices look: a model's rows, a cost line by line, plain tables."""

from __future__ import annotations

import csv as _csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attribkit.cost import Cost
from attribkit.money import usd_text
from attribkit.pricing.catalog import Shard, in_force
from attribkit.pricing.meters import unit_of

__all__ = ["cost_dict", "cost_text", "model_text", "print_table"]

_UNITS = {1_000_000: "1M", 3_600: "hour", 1_000: "1k", 1: "1"}
_NOT_CARDS = frozenset(
    ("from", "source", "basis", "checked", "note", "withdrawn", "free", "hours", "fees", "steps", "regions", "uplift")
)


def model_text(shard: Shard, model: str, at: str) -> str:
    """Return every row of a model; the one in force at an ISO instant is marked."""
    entry = shard.models[model]
    rows = entry["rows"]
    now = in_force(rows, at)
    lines = [f"{shard.seller}/{model}"]
    if names := entry.get("names"):
        lines.append(f"  also: {', '.join(names)}")
    for number, row in enumerate(rows):
        since = row.get("from", "the beginning")
        until = rows[number + 1].get("from") if number + 1 < len(rows) else None
        state = "  <- in force" if row is now else "  (withdrawn)" if row.get("withdrawn") else ""
        lines.append(f"  from {since}{f' until {until}' if until else ''}{state}")
        said = row.get("basis") or (f"read {row['checked']}" if row.get("checked") else "")
        lines.append(f"    source: {row['source']}{f' ({said})' if said else ''}")
        if row.get("note"):
            lines.append(f"    note: {row['note']}")
        if row.get("free"):
            lines.append(f"    free: {row['free']}")
        lines += [f"    {line}" for line in _cards(row)]
    if shard.fees:
        lines.append(f"  fees: {_prices(shard.fees)}")
    return "\n".join(lines) + "\n"


def _cards(row: Mapping[str, Any]) -> Iterator[str]:
    for name, card in row.items():
        if name not in _NOT_CARDS and isinstance(card, Mapping):
            yield f"{name}: {_prices(card)}"
    if row.get("fees"):
        yield f"fees: {_prices(row['fees'])}"
    if "hours" in row:
        yield f"hours: {row['hours']['card']} in the hours of {row['hours']['schedule']}"
    for step in row.get("steps", ()):
        for name, card in step.items():
            if isinstance(card, Mapping):
                yield f"over {step['over']:,} input tokens, {name}: {_prices(card)}"
    if row.get("uplift"):
        yield "uplift: " + ", ".join(f"{region} x{factor}" for region, factor in row["uplift"].items())
    for region, cards in row.get("regions", {}).items():
        for name, card in cards.items():
            if isinstance(card, Mapping):
                yield f"{region}, {name}: {_prices(card)}"


def _prices(card: Mapping[str, str]) -> str:
    return ", ".join(f"{meter} {price}/{_UNITS[unit_of(meter) or 1]}" for meter, price in card.items())


def cost_dict(cost: Cost) -> dict[str, Any]:
    """Return a cost as JSON has it; money as decimal text."""
    return {
        "usd": usd_text(cost.usd),
        "status": cost.status,
        "reason": cost.reason,
        "lines": [
            {
                "meter": line.meter,
                "quantity": str(line.quantity),
                "unit_price": usd_text(line.unit_price),
                "usd": usd_text(line.usd),
            }
            for line in cost.lines
        ],
        "list_usd": usd_text(cost.list_usd),
        "charged_usd": usd_text(cost.charged_usd),
        "stated_usd": usd_text(cost.stated_usd),
        "priced_as": cost.priced_as,
        "price_date": cost.price_date,
        "price_version": cost.price_version,
        "price_age_days": cost.price_age_days,
    }


def cost_text(cost: Cost) -> str:
    """Return a cost line by line."""
    rows = [
        [line.meter, f"{line.quantity:,}", usd_text(line.unit_price) or "", usd_text(line.usd) or ""]
        for line in cost.lines
    ]
    lines = []
    if rows:
        lines += _laid_out(
            ["meter", "quantity", "USD each", "USD"], [*rows, ["total", "", "", usd_text(cost.usd) or ""]]
        )
        lines.append("")
    lines.append(f"{cost.status}: {cost.reason}" if cost.reason else f"{cost.status}")
    for what, usd in (("list price", cost.list_usd), ("charged", cost.charged_usd), ("stated", cost.stated_usd)):
        if usd is not None and usd != cost.usd:
            lines.append(f"{what}: {usd_text(usd)} USD")
    if cost.stated_usd is not None and cost.usd is not None and cost.stated_usd != cost.usd:
        lines.append(f"drift: ours is {usd_text(cost.usd - cost.stated_usd)} USD from what was stated")
    if cost.priced_as:
        lines.append(f"row: {cost.priced_as}{f', from {cost.price_date}' if cost.price_date else ''}")
    age = cost.price_age_days
    lines.append(f"prices: {cost.price_version or 'none'}{f', {age} days old' if age is not None else ''}")
    return "\n".join(lines) + "\n"


def _laid_out(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if at and heads[at] in ("quantity", "USD each", "USD", "calls") else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, csv: bool = False) -> None:
    """Print rows: as a rich table where the terminal is one, as plain columns or CSV otherwise."""
    if csv:
        writer = _csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([heads, *rows])
    elif not sys.stdout.isatty():
        print("\n".join(_laid_out(heads, rows)))
    else:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for head in heads:
            table.add_column(head, overflow="fold", justify="right" if "USD" in head or head == "calls" else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
