"""Which commands run Python programs, and nothing else: what is said in their environment reaches no other."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["run_python"]

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


def run_python(args: Any, executable: Any, shell: bool, env: Mapping[Any, Any] | None, cwd: Any) -> bool:
    """Tell whether what `subprocess.Popen` is to run is Python programs alone."""
    words = [os.fsdecode(args)] if isinstance(args, (str, bytes, os.PathLike)) else [os.fsdecode(word) for word in args]
    path, folder = os.get_exec_path(env), os.fsdecode(cwd) if cwd is not None else ""
    if shell:
        return _line_runs_python(words[0], path, folder)
    if executable is not None:
        words = [os.fsdecode(executable), *words[1:]]
    return _runs_python(words, path, folder)
