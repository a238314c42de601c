"""`attribkit demo`: a support agent run twice, with attribkit off and on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where attribkit-demo.db is written.")] = Path("."),
    model: Annotated[
        str | None, typer.Option("--model", help="The model for all calls; gpt-5-mini and gpt-4.1-mini without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a LangGraph support agent for three tenants, first without attribkit and then with it.

    Without OPENAI_BASE_URL and OPENAI_API_KEY the gateway is a process on this machine: no key, no network. With
    OTEL_EXPORTER_OTLP_ENDPOINT set, the spans go there. The exit code is 1 when a call of the second run has no owner,
    the wrong one or no row.
    """
    from rich.console import Console

    from attribkit.demo.run import run
    from attribkit.demo.show import as_dict, show

    progress = Console(stderr=True)
    if progress.is_terminal:
        with progress.status("starting the gateway") as status:
            outcome = run(directory, model=model, told=status.update)
    else:
        outcome = run(directory, model=model)
    if as_json:
        print(json.dumps(as_dict(outcome), indent=2))
    else:
        show(outcome, Console())
    if outcome.problems:
        raise typer.Exit(1)
