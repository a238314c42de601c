"""Child programs: a Python program that is started in a scope finds it in its environment; others find nothing."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attribkit import context, faults, wire
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope
from attribkit.instrumentation.hops.carried import captured
from attribkit.instrumentation.patching import Patch

__all__ = ["AUDIENCE", "VARIABLE", "patches", "received"]

VARIABLE = "ATTRIBKIT_CARRIER"
"""The environment variable; its value is a W3C baggage header."""

AUDIENCE = "attribkit:child-process"
"""Whom the carrier is signed for: a service that gets it as a header refuses it."""

_PYTHON = r"(?:python|pypy|graalpy)[0-9.]*[a-z]{0,2}(?:\.exe)?\Z"
_SHEBANG = rb"#!.*(?:python|pypy|\buv run\b)|#!/bin/sh\s+'''exec'.*python"
_RUNNERS = frozenset({"uv", "poetry", "pdm", "pipenv", "hatch", "rye", "pixi", "pipx"})
_IN_FRONT = frozenset({"env", "nohup", "nice", "ionice", "setsid", "stdbuf", "time", "timeout", "exec", "command"})
_NOT_THE_PROGRAM = r"(?s:-.*|[A-Za-z_]\w*=.*|[0-9.]+[smhd]?\Z)"
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
_BUILTINS = frozenset(
    {"cd", "echo", "printf", "export", "set", "unset", "source", ".", ":", "true", "false", "test", "[", "shift"}
    | {"wait", "exit", "return", "umask", "ulimit", "trap", "for", "case"}
)
_KEYWORDS = frozenset({"if", "then", "else", "elif", "fi", "while", "until", "do", "done", "{", "}", "!"})
_POOLED = frozenset({"anyio.to_process"})
"""Modules that are run as workers for everybody (`python -m`)."""


# -- who is told ------------------------------------------------------------------------------------------------------


def _runs_python(words: Sequence[str], path: Sequence[str], cwd: str) -> bool:
    """Tell whether a command is a Python program."""
    name = os.path.basename(words[0])
    rest = words[1:]
    if re.match(_PYTHON, name) or words[0] == sys.executable:
        return not any(option == "-m" and module in _POOLED for option, module in itertools.pairwise(rest))
    if name in _IN_FRONT:
        behind = next((at for at, word in enumerate(rest) if not re.match(_NOT_THE_PROGRAM, word)), None)
        return behind is not None and _runs_python(rest[behind:], path, cwd)
    if name in _RUNNERS:
        return "run" in rest[:3]
    if name in _SHELLS:
        flag = next((at for at, word in enumerate(rest) if re.match(r"-[a-z]*c\Z", word)), None)
        return flag is not None and len(rest) > flag + 1 and _line_runs_python(rest[flag + 1], path, cwd)
    return _is_python_script(words[0], path, cwd)


def _is_python_script(program: str, path: Sequence[str], cwd: str) -> bool:
    found = os.path.join(cwd, program) if os.sep in program else shutil.which(program, path=os.pathsep.join(path))
    if found is None:
        return False
    with open(found, "rb") as file:
        return re.match(_SHEBANG, file.read(512)) is not None


def _line_runs_python(line: str, path: Sequence[str], cwd: str) -> bool:
    """Tell whether a shell's command line runs Python programs and, but for the shell's own commands, nothing else: a
    variable of the shell reaches them all."""
    lexer = shlex.shlex(line.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if "$(" in word or "`" in word:
            return False
        if word[0] in "<>":
            redirected = True
        elif word[0] in "();|&":
            commands.append([])
        elif redirected:
            redirected = False
        elif commands[-1] or not (word in _KEYWORDS or re.match(r"[A-Za-z_]\w*=", word)):
            commands[-1].append(word)
    external = [words for words in commands if words and words[0] not in _BUILTINS]
    return bool(external) and all(_runs_python(words, path, cwd) for words in external)


def _is_told(args: Any, executable: Any, shell: bool, env: Mapping[Any, Any] | None, cwd: Any) -> bool:
    words = [os.fsdecode(args)] if isinstance(args, (str, bytes, os.PathLike)) else [os.fsdecode(word) for word in args]
    path, folder = os.get_exec_path(env), os.fsdecode(cwd) if cwd is not None else ""
    if shell:
        return _line_runs_python(words[0], path, folder)
    if executable is not None:
        words = [os.fsdecode(executable), *words[1:]]
    return _runs_python(words, path, folder)


# -- telling ----------------------------------------------------------------------------------------------------------

_EXECUTABLE, _SHELL, _CWD, _ENV = 2, 8, 9, 10
"""Positions of `subprocess.Popen`'s arguments."""


def _environment(
    key: bytes | None, command: Any, env: Any, executable: Any = None, shell: bool = False, cwd: Any = None
) -> dict[Any, Any] | None:
    """Return the environment for a child that is to be told, None for one that is not."""
    scope = captured()
    if scope is None:
        return None
    try:
        told = _is_told(command, executable, shell, env, cwd)
    except (TypeError, ValueError, OSError, IndexError):  # a command that cannot be run or read
        return None
    if not told or (env is not None and VARIABLE in env):
        return None
    carrier: dict[str, str] = {}
    wire.inject(carrier, scope.attribution, key=key, audience=AUDIENCE)
    return {**(os.environ if env is None else env), VARIABLE: carrier["baggage"]}


def patches(key: bytes | None) -> tuple[Patch, ...]:
    """Return the rows that tell child programs. With a `key` what they are told is signed."""

    def popen(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def given(position: int, name: str) -> Any:
            return args[position] if len(args) > position else kwargs.get(name)

        try:
            command = args[0] if args else kwargs["args"]
            more = given(_EXECUTABLE, "executable"), given(_SHELL, "shell"), given(_CWD, "cwd")
            env = _environment(key, command, given(_ENV, "env"), *more)
            if env is not None and len(args) > _ENV:
                args = (*args[:_ENV], env, *args[_ENV + 1 :])
            elif env is not None:
                kwargs = {**kwargs, "env": env}
        except Exception as fault:
            faults.note("programs.popen", fault)
        return wrapped(*args, **kwargs)

    def spawn(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`os.spawnv(mode, file, args)` and its like: with an environment they are the functions that take one."""
        try:
            env = _environment(key, args[2], args[3] if len(args) > 3 else None, args[1]) if len(args) > 2 else None
        except Exception as fault:
            faults.note("programs.spawn", fault)
            env = None
        if env is None:
            return wrapped(*args, **kwargs)
        taking = wrapped if len(args) > 3 else getattr(os, f"{wrapped.__name__}e")
        return taking(*args[:3], env, *args[4:], **kwargs)

    def posix_spawn(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            known = len(args) > 2 and (args[2] is not None or sys.version_info >= (3, 13))
            env = _environment(key, args[1], args[2], args[0]) if known else None
        except Exception as fault:
            faults.note("programs.posix_spawn", fault)
            env = None
        return wrapped(*args, **kwargs) if env is None else wrapped(*args[:2], env, *args[3:], **kwargs)

    def row(path: str, wrapper: Any) -> Patch:
        return Patch("os", path, wrapper, "processes", "os", required=hasattr(os, path))

    return (
        Patch("subprocess", "Popen.__init__", popen, "processes", "subprocess"),
        *(row(name, spawn) for name in ("spawnv", "spawnve", "spawnvp", "spawnvpe")),
        row("posix_spawn", posix_spawn),
        row("posix_spawnp", posix_spawn),
    )


# -- being told -------------------------------------------------------------------------------------------------------

_received: str | None = None


def received(key: bytes | None) -> Callable[[], None]:
    """Put in force what the program that started this one has said. Return what ends that.

    The variable is taken out of the environment: whom this program starts is told by it, or not at all.
    """
    global _received
    _received = os.environ.pop(VARIABLE, None) or _received
    if _received is None or context.scope() is not EMPTY:
        return lambda: None
    attribution: Attribution = wire.extract({"baggage": _received}, key=key, audience=AUDIENCE)
    if not attribution:
        return lambda: None
    scope = Scope(attribution, "extracted")
    token = context.enter(scope)
    return lambda: context.leave(token, scope)
