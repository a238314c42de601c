"""From a URL to the budget store that it names."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from attribkit.errors import ConfigurationError
from attribkit.storage.urls import parse_url

if TYPE_CHECKING:
    from attribkit.budgets.policy import Budget
    from attribkit.budgets.store import Store

__all__ = ["SCHEMES", "Place", "budget_url", "place_of", "read_budgets"]

SCHEMES = ("sqlite", "postgresql", "redis", "rediss", "memory")


class Place:
    """Where budgets are counted."""

    __slots__ = ("journals", "open")

    def __init__(self, open: Callable[[], Store], journals: str | None) -> None:
        self.open = open
        """Returns the store; nothing is opened before it is called."""
        self.journals = journals
        """The folder in which the processes of this machine keep what they have not told the store yet."""


def place_of(url: str | None) -> Place:
    """Return the place that `url` names: sqlite:///PATH, postgresql://..., redis://..., memory://, or None for this
    process.

    Raises ConfigurationError for a URL that names no store.
    """
    if url is None:
        return Place(_memory, None)
    scheme = url.partition(":")[0].lower()
    if scheme in ("postgresql", "postgres"):
        return Place(lambda: _postgresql(url), _journals_of(url))
    if scheme in ("redis", "rediss"):
        return Place(lambda: _redis(url), _journals_of(url))
    found = parse_url(url, name="budget_store", schemes=SCHEMES)
    if found.path is None:
        return Place(_memory, None)
    path = found.path

    def sqlite() -> Store:
        from attribkit.budgets.sqlite import SqliteStore

        return SqliteStore(path)

    return Place(sqlite, f"{path}.budgets")


def budget_url(budget_store: str | None, ledger: object) -> str | None:
    """Return the URL of the budget store that the settings mean, None for this process."""
    if budget_store != "ledger":
        return budget_store
    return ledger if isinstance(ledger, str) else None


def read_budgets(given: Iterable[object]) -> list[Budget]:
    """Return budgets as the settings have them: Budget objects, or tables with the same keys."""
    from attribkit.budgets.policy import Budget

    found: dict[str, Budget] = {}
    for one in given:
        if isinstance(one, Mapping):
            try:
                one = Budget(**one)
            except TypeError as error:
                raise ConfigurationError(f"budgets: {one!r}: {error}", name="budgets", value=one) from None
        if not isinstance(one, Budget):
            raise ConfigurationError(
                f"budgets: {one!r} is no attribkit.Budget and no table with its keys", name="budgets", value=one
            )
        if one.name in found:
            raise ConfigurationError(f"budgets: {one.name!r} is there twice", name="budgets", value=one.name)
        found[one.name] = one
    return list(found.values())


def _memory() -> Store:
    from attribkit.budgets.memory import MemoryStore

    return MemoryStore()


def _postgresql(url: str) -> Store:
    from attribkit.budgets.postgresql import PostgresStore

    return PostgresStore(url)


def _redis(url: str) -> Store:
    from attribkit.budgets.redis import RedisStore

    return RedisStore(url)


def _journals_of(url: str) -> str:
    """Return the folder for a store on the network: one for each store and user of this machine."""
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"attribkit-budgets-{os.getuid()}", name)
