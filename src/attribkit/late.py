"""Rooms that are loaded with their first use: what most apps never need costs them nothing at the start."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__all__ = ["Late"]

_waiting: list[Late] = []


class Late:
    """Stands for a module until something of it is asked for; for the type checker it is that module.

    What is asked for is looked up once: only for what its module never sets anew.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        _waiting.append(self)

    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self._module), name)
        setattr(self, name, found)
        return found


def _load() -> None:
    """Load all before a fork: a room that another thread is loading just then would stay half loaded, and locked, in
    the child. What is loaded here is shared with it."""
    while _waiting:
        try:
            import_module(_waiting.pop()._module)
        except Exception:  # who needs it meets that again, and notes it
            continue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_load)
