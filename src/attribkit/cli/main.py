"""The `attribkit` command: which commands there are, and how their errors are told."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from attribkit.errors import AttribkitError

__all__ = ["COMMANDS", "app"]


class Row(NamedTuple):
    """One command: the module that has it as a Typer `app`, imported when it is called, and its line in `--help`."""

    module: str
    line: str


COMMANDS: dict[str, Row] = {
    "report": Row("attribkit.cli.report", "Spend, calls and tokens by tenant or any other field."),
    "prices": Row("attribkit.cli.prices", "What models cost and why, how fresh that is, and what has no price."),
    "reprice": Row("attribkit.cli.reprice", "Price history again, as a new labelled figure beside the old one."),
    "budgets": Row("attribkit.cli.budgets", "What is left of budgets; limits, wallets, and replays on past calls."),
    "run": Row("attribkit.cli.run", "Run a Python program with attribkit on."),
    "doctor": Row("attribkit.cli.doctor", "What is patched and what is not; gateways, prices, ledger, settings."),
    "verify": Row("attribkit.cli.verify", "Which hops survive on the versions installed here, and why not."),
    "demo": Row("attribkit.cli.demo", "A LangGraph agent for three tenants, run with attribkit off and on."),
}

# typer carries its own copy of click in newer versions: what it raises for wrong arguments is found by way of typer.
_UsageError: type[Exception] = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")


class _Later(TyperCommand):
    """A command that is imported when it runs, and not to be listed."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        module = importlib.import_module(COMMANDS[str(self.name)].module)
        command = typer.main.get_command(module.app)
        command.name = self.name
        return command.make_context(info_name, args, parent=parent, **extra)


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        row = COMMANDS.get(cmd_name)
        return _Later(name=cmd_name, help=row.line, callback=lambda: None) if row else None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; an error is one line on stderr that says what to do, and exit code 2."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except AttribkitError as error:
            _fail(str(error))
        except _UsageError as error:
            told = error.format_message()  # type: ignore[attr-defined]
            context = getattr(error, "ctx", None)
            where = f"; see {context.command_path} --help" if context is not None else ""
            _fail(f"{told.rstrip('.')}{where}")
        except typer.Abort:
            _fail("stopped")
        except BrokenPipeError:
            sys.stderr.close()  # the reader went away (| head): nothing to say, and nowhere to say it
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str) -> NoReturn:
    line = " ".join(text.split())
    print(f"attribkit: {line}", file=sys.stderr)
    sys.exit(2)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("attribkit"))
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def attribkit(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Who each model call is for, what it cost, and where that got lost."""
    if context.invoked_subcommand is None:
        print(context.get_help())
