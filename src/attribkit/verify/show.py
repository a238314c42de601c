"""Prints what came of the probes: a table for a reader, plain lines, or JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from attribkit.verify import probes
from attribkit.verify.advice import cause_of, causes
from attribkit.verify.judge import Column
from attribkit.verify.probe import Probe, installed
from attribkit.verify.run import Outcome, Result, Status

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["as_dict", "lines", "listing", "show", "verdict"]

_MARKS: dict[Status, str] = {"survives": "✓", "leaks": "✗", "wrong": "✗", "failed": "!", "not run": "·"}
_WORDS = {"survives": "ok", "leaks": "LEAKS", "wrong": "WRONG", "failed": "FAILED", "not run": "-"}
_STYLES = {"survives": "green", "leaks": "red", "wrong": "bold red", "failed": "bold yellow", "not run": "dim"}
_BAD: dict[Status, str] = {"leaks": "leak", "wrong": "carry the wrong tenant", "failed": "failed"}
_BEYOND = ("opentelemetry-sdk",)


def versions(wanted: Iterable[Probe]) -> dict[str, str | None]:
    """Return the versions of attribkit, Python and every library that the probes need; None: not installed."""
    needs = dict.fromkeys(need.partition(">=")[0] for probe in wanted for need in probe.needs)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {
        "attribkit": installed("attribkit"),
        "python": python,
        **{name: installed(name) for name in (*needs, *_BEYOND)},
    }


def _groups(outcome: Outcome) -> Iterator[tuple[str, list[Result]]]:
    for name in probes.GROUPS:
        results = [result for result in outcome.results if result.probe.group == name]
        if results:
            yield name, results


def _tally(results: Iterable[Result]) -> str:
    """Say "12 of 20 survive" of those that ran."""
    ran = [result for result in results if result.status != "not run"]
    if not ran:
        return "not run"
    good = sum(result.status == "survives" for result in ran)
    return f"{'all ' if good == len(ran) else f'{good} of '}{len(ran)} survive"


def _cell(column: Column | None) -> str:
    return "-" if column is None else f"{column.right}/{column.expected}"


def _said(result: Result) -> str:
    """Say what happened in a few words."""
    if result.verdict is None or result.status in ("failed", "not run", "survives"):
        return result.said or ""
    wire = result.verdict.wire
    parts = []
    if wire.wrong:
        parts.append(f"{wire.wrong} for the wrong tenant")
    if wire.leaked:
        parts.append(f"{wire.leaked} without tenant")
    if wire.missing:
        parts.append(f"{wire.missing} never sent")
    if not parts:
        parts.append("right on the wire, and not on span or row")
    return ", ".join([*parts, *([result.said] if result.said else [])])


def verdict(outcome: Outcome) -> str:
    """Say in one sentence what came of it."""
    ran = [result for result in outcome.results if result.status != "not run"]
    idle = len(outcome.results) - len(ran)
    rest = f"; {idle} not run" if idle else ""
    if not ran:
        return "nothing could be run here"
    if outcome.good:
        return f"all {len(ran)} hops survive{rest} ({outcome.seconds:.1f} s)"
    counts = [f"{len(found)} {words}" for status, words in _BAD.items() if (found := outcome.of(status))]
    good = len(outcome.of("survives"))
    return f"{good} of {len(ran)} hops survive, {', '.join(counts)}{rest} ({outcome.seconds:.1f} s)"


def _advice(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Yield each cause: which hops, why, what to do."""
    for cause, results in causes(outcome).items():
        names = [result.probe.id for result in results]
        more = f" and {len(names) - 3} more" if len(names) > 4 else ""
        yield ", ".join(names if not more else names[:3]) + more, cause.why, cause.do


def last_line(outcome: Outcome) -> str:
    """Say what to do now."""
    if not any(result.status != "not run" for result in outcome.results):
        return "To do: run this with the Python of your application, or install what is named above"
    if outcome.good:
        return "Nothing to do: run it again after each upgrade of a library, and in CI (exit code 1 when a hop leaks)"
    first = next(iter(causes(outcome)))
    return f"To do first: {first.why}: {first.do}"


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield the plain text."""
    yield _heading(outcome)
    width = max(len(result.probe.title) for result in outcome.results)
    for name, results in _groups(outcome):
        yield ""
        yield f"{probes.load(name).title:<{width + 9}}  wire  span  row    {_tally(results)}"
        for result in results:
            found = result.verdict
            columns = () if found is None else (found.wire, found.span, found.row)
            cells = "".join(f"{_cell(column):<6}" for column in columns)
            yield f"  {_WORDS[result.status]:<7}{result.probe.title:<{width}}  {cells:<18} {_said(result)}".rstrip()
    yield ""
    if outcome.spans is not None:
        yield f"spans were not looked at: {outcome.spans}"
    for names, why, do in _advice(outcome):
        yield f"why: {why} ({names})"
        yield f"     {do}"
    yield verdict(outcome)
    yield last_line(outcome)


def _heading(outcome: Outcome) -> str:
    told = [f"{name} {version}" for name, version in versions(r.probe for r in outcome.results).items() if version]
    return ", ".join(told)


def show(outcome: Outcome, console: Console) -> None:
    """Print the table on a terminal."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble(("attribkit verify", "bold"), "  ", (_heading(outcome), "dim")))
    console.print()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True, width=1)
    table.add_column(ratio=1, overflow="fold")
    for _ in range(3):
        table.add_column(no_wrap=True, justify="right", min_width=5)
    table.add_column(overflow="fold", max_width=44)
    for number, (name, results) in enumerate(_groups(outcome)):
        good = all(result.status in ("survives", "not run") for result in results)
        if number:
            table.add_row()
        tally = Text(_tally(results), style="green" if good else "red")
        heads = [Text(head, style="dim") for head in ("wire", "span", "row")]
        table.add_row("", Text(probes.load(name).title, style="bold"), *heads, tally)
        for result in results:
            style = _STYLES[result.status]
            found = result.verdict
            cells = [None, None, None] if found is None else [found.wire, found.span, found.row]
            table.add_row(
                Text(_MARKS[result.status], style=style),
                Text(result.probe.title, style="" if result.status != "not run" else "dim"),
                *(
                    Text(_cell(cell), style="dim" if cell is None else "green" if cell.good else style)
                    for cell in cells
                ),
                Text(_said(result), style=style if result.status != "survives" else "dim"),
            )
    console.print(table)
    console.print()
    if outcome.spans is not None:
        console.print(Text(f"Spans were not looked at: {outcome.spans}", style="dim"))
    for names, why, do in _advice(outcome):
        console.print(Text.assemble(("why  ", "bold"), why, (f"  ({names})", "dim")))
        console.print(Padding(Text(do), (0, 0, 0, 5)))
    console.print(Text(verdict(outcome), style="bold green" if outcome.good else "bold red"))
    console.print(Text(last_line(outcome)))


def listing(wanted: Iterable[Probe]) -> Iterator[str]:
    """Yield a line for each probe: its id, its title, and the patch groups that it relies on."""
    wanted = list(wanted)
    width = max(len(probe.id) for probe in wanted)
    wide = max(len(probe.title) for probe in wanted)
    for probe in wanted:
        yield f"{probe.id:<{width}}  {probe.title:<{wide}}  {', '.join(probe.relies)}"


# -- for programs -----------------------------------------------------------------------------------------------------


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return everything for `--json`; docs/verify.md says what stands where."""
    return {
        "ok": outcome.good and any(result.status != "not run" for result in outcome.results),
        "seconds": round(outcome.seconds, 3),
        "versions": versions(result.probe for result in outcome.results),
        "spans": outcome.spans is None,
        "summary": {status.replace(" ", "_"): len(outcome.of(status)) for status in _MARKS},
        "hops": [_hop(result, outcome) for result in outcome.results],
        "advice": [
            {"why": cause.why, "do": cause.do, "hops": [result.probe.id for result in results]}
            for cause, results in causes(outcome).items()
        ],
        "hops_setting": dict(outcome.hops),
        "patches": [state._asdict() for state in outcome.patches],
    }


def _hop(result: Result, outcome: Outcome) -> dict[str, Any]:
    cause, found = cause_of(result, outcome), result.verdict
    return {
        "id": result.probe.id,
        "group": result.probe.group,
        "title": result.probe.title,
        "status": result.status,
        "wire": _counts(found and found.wire),
        "span": _counts(found and found.span),
        "row": _counts(found and found.row),
        "relies_on": list(result.probe.relies),
        "said": _said(result) or None,
        "why": None if cause is None else cause.why,
        "do": None if cause is None else cause.do,
        "seconds": result.seconds,
    }


def _counts(column: Column | None) -> dict[str, int] | None:
    return None if column is None else column._asdict()
