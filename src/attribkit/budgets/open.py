"""From a URL to the budget store that it names."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from attribkit.budgets.store import Store
from attribkit.storage.urls import parse_url

__all__ = ["SCHEMES", "Place", "place_of"]

SCHEMES = ("sqlite", "memory")


class Place(NamedTuple):
    """Where budgets are counted."""

    open: Callable[[], Store]
    """Returns the store; nothing is opened before it is called."""
    journals: str | None
    """The folder in which the processes of this machine keep what they have not told the store yet."""


def place_of(url: str | None) -> Place:
    """Return the place that `url` names: sqlite:///PATH, memory://, or None for this process.

    Raises ConfigurationError for a URL that names no store.
    """
    if url is None:
        return Place(_memory, None)
    found = parse_url(url, name="budget_store", schemes=SCHEMES)
    if found.path is None:
        return Place(_memory, None)
    path = found.path

    def sqlite() -> Store:
        from attribkit.budgets.sqlite import SqliteStore

        return SqliteStore(path)

    return Place(sqlite, f"{path}.budgets")


def _memory() -> Store:
    from attribkit.budgets.memory import MemoryStore

    return MemoryStore()


def _journals_of(url: str) -> str:
    """Return the folder for a store on the network: one for each store and user of this machine."""
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"attribkit-budgets-{os.getuid()}", name)
