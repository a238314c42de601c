"""Child programs: a Python program that is started in a scope finds it in its environment; others find nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attribkit import context, faults
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope
from attribkit.instrumentation.hops.carried import captured
from attribkit.instrumentation.patching import Patch
from attribkit.late import Late

if TYPE_CHECKING:
    from attribkit import wire
    from attribkit.instrumentation.hops import commands
else:
    wire, commands = Late("attribkit.wire"), Late(f"{__package__}.commands")

__all__ = ["AUDIENCE", "VARIABLE", "patches", "received"]

VARIABLE = "ATTRIBKIT_CARRIER"
"""The environment variable; its value is a W3C baggage header."""

AUDIENCE = "attribkit:child-process"
"""Whom the carrier is signed for: a service that gets it as a header refuses it."""

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
        told = commands.run_python(command, executable, shell, env, cwd)
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
