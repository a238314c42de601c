"""`attribkit doctor`: what is patched and what is not, and what else decides whether calls are attributed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from attribkit.cli.diagnosis import Diagnosis

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_COLOURS = {"ok": "green", "note": "dim", "warning": "yellow", "problem": "bold red"}


@app.command()
def doctor(
    ledger: Annotated[str | None, typer.Option(help="The ledger's URL; that of the settings without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What is patched and what is not, gateways, other instrumentors, prices, the ledger, the settings in force.

    Run it where your application runs, with its Python, its environment and its working directory. It puts all patches
    on and takes them off again; it calls no model, and writes no row. The exit code is 1 when a patch is missing or
    calls were lost.
    """
    from attribkit import settings
    from attribkit.cli.diagnosis import diagnose

    with _progress() as progress:
        diagnosis = diagnose(settings.load({}), ledger=ledger, progress=progress)
    if as_json:
        print(json.dumps(diagnosis.as_dict(), indent=2, ensure_ascii=False, default=str))
    elif sys.stdout.isatty():
        _show(diagnosis)
    else:
        print("\n".join(_lines(diagnosis)))
    if not diagnosis.well:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[str], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def _verdict(diagnosis: Diagnosis) -> str:
    problems, warnings = len(diagnosis.of("problem")), len(diagnosis.of("warning"))
    if not problems:
        return "all is well" + (f", with {warnings} warnings" if warnings > 1 else ", with 1 warning" * warnings)
    return f"not well: {problems} problem{'s' * (problems > 1)}, {warnings} warning{'s' * (warnings != 1)}"


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    section = ""
    width = min(40, max(len(finding.name) for finding in diagnosis.findings))
    for finding in diagnosis.findings:
        if finding.section != section:
            section = finding.section
            yield f"{section}:"
        state = "" if finding.state == "note" else finding.state
        yield f"  {state:<8} {finding.name:<{width}}  {finding.said}"
    yield ""
    yield _verdict(diagnosis)


def _show(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for section in dict.fromkeys(finding.section for finding in diagnosis.findings):
        table = Table(
            title=section, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
        )
        table.add_column(no_wrap=True, min_width=8)
        table.add_column(overflow="fold", min_width=16, max_width=48)
        table.add_column(overflow="fold")
        for one in diagnosis.findings:
            if one.section == section:
                state = "" if one.state == "note" else one.state
                table.add_row(Text(state, style=_COLOURS[one.state]), Text(one.name), Text(one.said))
        console.print(table)
        console.print()
    console.print(Text(_verdict(diagnosis), style="green" if diagnosis.well else "bold red"))
