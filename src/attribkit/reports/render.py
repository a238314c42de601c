"""Reports for people and programs: a table with bars, plain text, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from attribkit.money import usd_text
from attribkit.reports.queries import Report, Spend

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["as_csv", "as_json", "as_text", "notes", "table"]

NONE = "(none)"
_COLUMNS = ("calls", "attempts", "cost_usd", "unpriced_calls", "input_tokens", "output_tokens")
_WIDE = Context(prec=60, rounding=ROUND_HALF_UP)
_BAR, _LEAST_BAR, _PERCENT = 30, 6, 8
_PARTS = " ▏▎▍▌▋▊▉█"


def as_json(report: Report) -> str:
    """Return the report as JSON; money is plain decimal text, a field that is not set is null, shares are 0 to 1."""
    shares = {
        "unattributed_share_of_cost": report.unattributed_share_of_cost,
        "unattributed_share_of_calls": report.unattributed_share_of_calls,
        "unpriced_share_of_calls": report.unpriced_share_of_calls,
    }
    layers = _layered(report)
    rows = [{**dict(zip(report.by, row.key, strict=True)), **_figures(row.spend, layers)} for row in report.rows]
    total = {
        **_figures(report.total, layers),
        "estimated_calls": report.total.estimated_calls,
        "lost_calls": report.lost_calls,
        **{name: None if share is None else round(share, 6) for name, share in shares.items()},
    }
    figure = {} if report.figure is None else {"figure": report.figure}
    return json.dumps({**figure, "rows": rows, "total": total}, indent=2, ensure_ascii=False)


def as_csv(report: Report) -> str:
    """Return the groups as CSV with a heading; a field that is not set is empty. There is no line for the total."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    layers = _layered(report)
    writer.writerow((*report.by, *_COLUMNS, *(("list_usd", "charged_usd") if layers else ())))
    for row in report.rows:
        writer.writerow((*("" if value is None else value for value in row.key), *_figures(row.spend, layers).values()))
    return out.getvalue()


def as_text(report: Report) -> str:
    """Return the report as lines of plain text in columns, for a terminal that is none."""
    heads = [*report.by, *_heads(report)]
    lines = [[*(_name(value) for value in row.key), *_cells(report, row.spend)] for row in report.rows]
    if report.omitted:
        lines.append([f"... {report.omitted} more", *[""] * (len(heads) - 1)])
    lines.append([*_labels(report), *_cells(report, report.total)])
    widths = [max(len(line[index]) for line in (heads, *lines)) for index in range(len(heads))]
    names = len(report.by)

    def laid_out(line: Iterable[str]) -> str:
        cells = [
            cell.ljust(width) if index < names else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([*map(laid_out, (heads, *lines)), "", *notes(report)]) + "\n"


def table(report: Report, *, title: str | None = None, width: int | None = None) -> Table:
    """Return the report as a rich table, with a bar for each group's share of the cost where `width` has room."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    width = width or shutil.get_terminal_size().columns
    heads, totals = _heads(report), _cells(report, report.total, short=True)
    # Text, not markup: a tenant may be called "[red]", or hold an escape sequence.
    lines = [
        [
            *(Text(_name(value), style="red" if value is None else "") for value in row.key),
            *map(Text, _cells(report, row.spend, short=True)),
        ]
        for row in report.rows
    ]
    if report.omitted:
        lines.append([Text(f"... {report.omitted} more", style="dim")])

    shown = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=bool(report.by),
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for field, label in zip(report.by, _labels(report), strict=True):
        shown.add_column(Text(field), footer=label, overflow="fold")
    for head, total in zip(heads, totals, strict=True):
        shown.add_column(head, footer=total, justify="right", no_wrap=True)
    if not report.by:
        lines.append(list(map(Text, totals)))

    columns = [*report.by, *heads], [*_labels(report), *totals], *([cell.plain for cell in line] for line in lines)
    used = sum(max(map(len, cells)) + 2 for cells in zip_longest(*columns, fillvalue=""))
    room = min(_BAR, width - used - _PERCENT)
    if report.by and room >= _LEAST_BAR:
        shown.add_column("share of cost", no_wrap=True)
        most = max((row.spend.cost for row in report.rows), default=Decimal(0))
        for line, row in zip(lines, report.rows, strict=False):
            line.append(Text(_bar(row.spend.cost, most, report.total.cost, room), style="cyan"))
    for line in lines:
        shown.add_row(*line)
    return shown


def notes(report: Report) -> list[str]:
    """Return what has to be said beside the figures, a line each: what nobody owns, what has no price."""
    total = report.total
    if not total.attempts:
        return ["no calls in this range", *_lost(report)]
    lines = [] if report.figure is None else [f"figure: {report.figure}, a repricing; the rows keep their own costs"]
    lines += [
        f"unattributed: {_percent(report.unattributed_share_of_cost)} of cost, "
        f"{_percent(report.unattributed_share_of_calls)} of calls ({report.unattributed.calls:,} without tenant_id)"
    ]
    if total.unpriced_calls:
        lines.append(
            f"unpriced: {total.unpriced_calls:,} of {total.calls:,} calls "
            f"({_percent(report.unpriced_share_of_calls)}) have no price and are not in the cost"
        )
    if total.estimated_calls:
        lines.append(f"estimated: {total.estimated_calls:,} calls, because the reply stated no usage")
    return [*lines, *_lost(report)]


def _lost(report: Report) -> list[str]:
    if not report.lost_calls:
        return []
    return [f"lost: {report.lost_calls:,} calls are in no figure: the disk was full for too long"]


def _heads(report: Report) -> list[str]:
    """Return the headings of the figures; attempts, charges and unpriced calls only where they say something."""
    heads = ["calls", "attempts", "cost USD", "charged USD", "unpriced", "in tok", "out tok"]
    if report.total.charged == report.total.cost:
        heads.remove("charged USD")
    if report.total.attempts == report.total.calls:
        heads.remove("attempts")
    if not report.total.unpriced_calls:
        heads.remove("unpriced")
    return heads


def _labels(report: Report) -> list[str]:
    return ["total", *[""] * (len(report.by) - 1)] if report.by else []


def _layered(report: Report) -> bool:
    """Return whether list prices or charges differ from the cost: only then do the figures say them."""
    return not report.total.list_cost == report.total.cost == report.total.charged


def _figures(spend: Spend, layers: bool) -> dict[str, Any]:
    return {
        "calls": spend.calls,
        "attempts": spend.attempts,
        "cost_usd": usd_text(spend.cost),
        "unpriced_calls": spend.unpriced_calls,
        "input_tokens": spend.input_tokens,
        "output_tokens": spend.output_tokens,
        **({"list_usd": usd_text(spend.list_cost), "charged_usd": usd_text(spend.charged)} if layers else {}),
    }


def _cells(report: Report, spend: Spend, *, short: bool = False) -> list[str]:
    figures = {
        "calls": f"{spend.calls:,}",
        "attempts": f"{spend.attempts:,}",
        "cost USD": _money(spend, spend.cost, report.total),
        "charged USD": _money(spend, spend.charged, report.total),
        "unpriced": f"{spend.unpriced_calls:,}" if spend.unpriced_calls else "-",
        "in tok": _count(spend.input_tokens, short),
        "out tok": _count(spend.output_tokens, short),
    }
    return [figures[head] for head in _heads(report)]


def _count(number: int, short: bool) -> str:
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if short and number >= 10 * size:
            return f"{number / size:,.1f}{letter}" if number < 1000 * size else f"{number // size:,}{letter}"
    return f"{number:,}"


def _money(spend: Spend, amount: Decimal, total: Spend) -> str:
    """Return an amount for the eye, with as many places as suit the total; exact figures are in JSON and CSV."""
    if not amount and spend.unpriced_calls == spend.calls and spend.calls:
        return "no price"
    size = abs(total.cost)
    places = Decimal("0.01") if size >= 10_000 else Decimal("0.0001") if size >= 10 else Decimal("0.000001")
    rounded = amount.quantize(places, context=_WIDE)
    return f"<{places}" if amount and not rounded else f"{rounded:,}"


def _bar(part: Decimal, most: Decimal, whole: Decimal, width: int) -> str:
    if part <= 0 or most <= 0 or whole <= 0:
        return ""
    eighths = max(1, int(part / most * width * 8))
    bar = _PARTS[8] * (eighths // 8) + _PARTS[eighths % 8].strip()
    return f"{bar:<{width}} {_percent(float(part / whole)):>6}"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{share:.1%}" if 0.0005 <= share <= 0.9995 or share in (0, 1) else "<0.1%" if share < 0.5 else ">99.9%"


def _name(value: str | None) -> str:
    """Return a field's value in one printable line: what would move the cursor or colour the terminal is escaped."""
    if value is None:
        return NONE
    if value.isprintable():
        return value
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in value)
