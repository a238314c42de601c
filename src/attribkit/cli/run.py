"""`attribkit run`: a program as it is, with attribkit on from its first line."""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, NoReturn

import typer

import attribkit
from attribkit.errors import ConfigurationError

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    program: Annotated[list[str], typer.Argument(help="A Python file or a Python command, with its own arguments.")],
    module: Annotated[bool, typer.Option("-m", help="PROGRAM is a module, as for python -m.")] = False,
) -> None:
    """Run a Python program with attribkit on, by the settings of the environment and of attribkit.toml.

    The program sees the arguments, the path and the main module that it has without attribkit, and ends as it does
    without it. Processes that it forks have attribkit on too.
    """
    name, *arguments = program
    start = _module(name, arguments) if module else _file(name, arguments)
    attribkit.instrument()
    sys.excepthook = sys.__excepthook__  # the command line's own has no business with the program's
    try:
        start()
    except SystemExit:
        raise
    except BaseException as error:
        _raised(error)
    finally:
        sys.stdout.flush()


def _module(name: str, arguments: list[str]) -> Callable[[], object]:
    sys.path[0] = os.getcwd()
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ConfigurationError(f"run -m {name}: there is no module of that name", name="-m", value=name)
    sys.argv = [name, *arguments]
    return lambda: runpy.run_module(name, run_name="__main__", alter_sys=True)


def _file(name: str, arguments: list[str]) -> Callable[[], object]:
    path = name if os.path.exists(name) else shutil.which(name)
    if path is None:
        raise ConfigurationError(
            f"run {name}: there is no such file, and no such command; for a module, attribkit run -m {name}",
            name="program",
            value=name,
        )
    sys.argv = [path, *arguments]
    if os.path.isdir(path):
        return lambda: runpy.run_path(path, run_name="__main__")
    with open(path, "rb") as file:
        source = file.read()
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except ValueError:  # null bytes: a binary
        raise _no_python(path) from None
    except SyntaxError:
        if not path.endswith(".py") and b"python" not in source.split(b"\n", 1)[0]:
            raise _no_python(path) from None
        raise
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    main = ModuleType("__main__")
    main.__file__ = path
    main.__dict__["__builtins__"] = __builtins__

    def start() -> None:
        sys.modules["__main__"] = main  # for good: threads and pickles of the program find it there to the end
        exec(code, main.__dict__)

    return start


def _no_python(path: str) -> ConfigurationError:
    return ConfigurationError(f"run {path}: it is no Python program", name="program", value=path)


def _raised(error: BaseException) -> NoReturn:
    """End as Python ends a program that raises: its traceback, without what started it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)
    sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
