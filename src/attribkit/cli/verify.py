"""`attribkit verify`: which hops survive on the versions that are installed here."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from attribkit.verify.probe import Probe
    from attribkit.verify.run import Result

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
Told = Callable[[str, "Result | None"], object]


@app.command()
def verify(
    hops: Annotated[
        str, typer.Option(help="Only these, with commas: groups (asyncio) or single ones (asyncio/gather).")
    ] = "",
    off: Annotated[
        str, typer.Option(help="Patch groups to turn off for this run, with commas: exactly their hops have to leak.")
    ] = "",
    listed: Annotated[bool, typer.Option("--list", help="List the hops and the patch groups they rely on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for everything; what is not done then has failed.")] = 55.0,
    jobs: Annotated[
        int | None, typer.Option(help="Programs that run at once; the number of CPUs without it.", min=1)
    ] = None,
) -> None:
    """Run every hop on the versions installed here: which survive, which leak, why, and what to do.

    Small real programs open scopes of several tenants and make real calls through the installed libraries, to a
    loopback gateway on this machine: no key, no network. What arrived, the spans and the ledger's rows are compared
    with who the work was for. The settings are those found here, so that a patch group that is turned off leaks. The
    exit code is 1 when a hop leaks, carries a wrong tenant or fails, and 2 when nothing could be run.
    """
    from attribkit.verify.run import chosen
    from attribkit.verify.run import verify as run
    from attribkit.verify.show import as_dict, lines, listing, show

    wanted = chosen(hops.split(","))
    if listed:
        print("\n".join(listing(wanted)))
        return
    at_once = jobs or max(2, min(8, os.cpu_count() or 2))
    groups = [name.strip() for name in off.split(",") if name.strip()]
    with _progress(wanted) as told:
        outcome = run(wanted, off=groups, timeout=timeout, jobs=at_once, told=told)
    if as_json:
        print(json.dumps(as_dict(outcome), indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        from rich.console import Console

        show(outcome, Console())
    else:
        print("\n".join(lines(outcome)))
    if len(outcome.of("not run")) == len(outcome.results):
        raise typer.Exit(2)
    if not outcome.good:
        raise typer.Exit(1)


@contextmanager
def _progress(wanted: Sequence[Probe]) -> Iterator[Told]:
    """Show on stderr how far it is: a bar on a terminal, else a line for each group that is done."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        columns = SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("importing libraries", total=len(wanted))

            def moved(hop: str, result: Result | None) -> None:
                if result is None:
                    bar.update(task, description=hop)
                else:
                    bar.advance(task)

            yield moved
        return
    left = Counter(probe.group for probe in wanted)
    good: Counter[str] = Counter()
    ran: Counter[str] = Counter()

    def counted(hop: str, result: Result | None) -> None:
        if result is None:
            return
        group = result.probe.group
        left[group] -= 1
        good[group] += result.status == "survives"
        ran[group] += result.status != "not run"
        if not left[group]:
            print(f"{group}: {good[group]} of {ran[group]} survive", file=sys.stderr, flush=True)

    yield counted
