"""From a URL to the ledger that it names."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from attribkit.errors import LedgerError
from attribkit.ledger.spool import spool_directory, spool_size
from attribkit.storage.urls import parse_url

if TYPE_CHECKING:
    from attribkit.ledger.base import LedgerStore
    from attribkit.ledger.delivery import Collected
    from attribkit.ledger.memory import MemoryLedger
    from attribkit.ledger.writer import LedgerSink

__all__ = ["collect_waiting", "open_ledger", "open_sink"]


def open_ledger(url: str, *, create: bool = True, spool_dir: str | None = None, patience: float = 5.0) -> LedgerStore:
    """Return the ledger at `url`: `sqlite:///relative.db`, `sqlite:////absolute.db`, `memory://`.

    Rows that still wait in its spool are moved in first (`collect_waiting`), so what is read is complete up to now.
    With `create=False` a missing ledger is a LedgerError and nothing is made. `patience` is how many seconds a lock
    held elsewhere is waited for. Raises ConfigurationError for a URL that names no store.
    """
    store = open_store(url, create=create, spool_dir=spool_dir, patience=patience)
    collect_waiting(store, url, spool_dir=spool_dir)
    return store


def open_store(url: str, *, create: bool = True, spool_dir: str | None = None, patience: float = 5.0) -> LedgerStore:
    """Return the store at `url` as it is, without a look at its spool."""
    path = parse_url(url).path
    if path is None:
        from attribkit.ledger.memory import MemoryLedger

        return MemoryLedger()
    from attribkit.ledger.sqlite import SqliteLedger

    if not create and not os.path.exists(path) and not spool_size(spool_directory(path, url, spool_dir)):
        raise LedgerError(
            f"{path}: there is no ledger; attribkit.instrument(ledger={url!r}) makes it with the first model call, "
            "or name another with --ledger"
        )
    return SqliteLedger(path, patience=patience)


def open_sink(url: str, *, spool_dir: str | None = None) -> LedgerSink | MemoryLedger:
    """Return the sink that writes to `url`. Nothing is opened or made before the first call.

    Raises ConfigurationError for a URL that names no store.
    """
    if parse_url(url).path is None:
        from attribkit.ledger.memory import MemoryLedger

        return MemoryLedger()
    from attribkit.ledger.writer import LedgerSink

    return LedgerSink(url, spool_dir)


def collect_waiting(
    store: LedgerStore,
    url: str,
    *,
    spool_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Move what waits in the spool of `url` into `store`; `behind` of the answer says why something was left."""
    from attribkit.ledger.delivery import Collected, collect

    path = parse_url(url).path
    if path is None:
        return Collected()
    return collect(store, spool_directory(path, url, spool_dir), progress=progress)
