"""How a ledger and its spool stand, looked at without moving anything."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attribkit.errors import LedgerError
from attribkit.ledger.base import LedgerRow, LedgerStore, Loss, Question
from attribkit.ledger.spool import REJECTED, SUFFIX, spool_directory
from attribkit.storage.urls import parse_url

__all__ = ["LedgerState", "ledger_state"]

_PAGE = 500


class LedgerState(NamedTuple):
    """What is where. `path` is None for a ledger in memory, `rows` for one that is not there or cannot be read."""

    url: str
    path: str | None = None
    spool: str | None = None
    rows: int | None = None
    waiting: int = 0
    """Calls that are safe in the spool and not in the ledger yet."""
    unread: tuple[str, ...] = ()
    """Why lines of the spool cannot be read, with how many."""
    set_aside: int = 0
    """Lines that were found to be no record when they were moved."""
    losses: tuple[Loss, ...] = ()
    error: str | None = None


def ledger_state(url: str, *, spool_dir: str | None = None) -> LedgerState:
    """Return how the ledger at `url` stands. Raises ConfigurationError for a URL that names no store."""
    path = parse_url(url).path
    if path is None:
        return LedgerState(url)
    spool = spool_directory(path, url, spool_dir)
    calls: list[tuple[int, str]] = []
    losses: dict[str, Loss] = {}
    unread: Counter[str] = Counter()
    for found in _lines(spool):
        if isinstance(found, LedgerRow):
            calls.append((found.started_ns, found.call_id))
        elif isinstance(found, Loss):
            losses[found.loss_id] = found
        else:
            unread[found] += 1
    rows = error = None
    if os.path.exists(path):
        from attribkit.ledger.open import open_store

        store = open_store(url, create=False, spool_dir=spool_dir)
        try:
            with store.snapshot():
                rows = sum(group.attempts for group in store.query(Question()))
                losses.update({loss.loss_id: loss for loss in store.losses()})
                calls = list(_not_in(store, calls))
        except LedgerError as failure:
            error = str(failure)
        finally:
            store.close()
    return LedgerState(
        url,
        path,
        spool,
        rows,
        len(calls),
        tuple(f"{why}: {count}" for why, count in unread.items()),
        _count(os.path.join(spool, REJECTED)),
        tuple(sorted(losses.values(), key=lambda loss: loss.since_ns)),
        error,
    )


def _lines(spool: str) -> Iterator[LedgerRow | Loss | str]:
    """Yield what the spool's lines hold, a text for those that cannot be read.

    The files are read as they stand, without their locks. A row can be in the ledger already: its process still runs.
    """
    from attribkit.ledger.reading import NewerLine, read_line

    try:
        names = sorted(name for name in os.listdir(spool) if name.endswith(SUFFIX))
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(spool, name), "rb") as file:
                for line in file:
                    if not line.endswith(b"\n") or not line.strip():
                        continue  # a call that has not returned yet, or never did
                    try:
                        yield read_line(line.decode())
                    except NewerLine:
                        yield "lines of a newer attribkit, to be read after an upgrade"
                    except Exception:  # garbage can fail in any way
                        yield "lines that are no records"
        except FileNotFoundError:
            continue  # moved in this moment
        except OSError as error:
            yield f"files that cannot be read ({error.strerror or error})"


def _not_in(store: LedgerStore, calls: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield which of `calls` the store does not have."""
    calls = sorted(calls)
    for start in range(0, len(calls), _PAGE):
        part = calls[start : start + _PAGE]
        asked = Question(
            by=("call_id",),
            since_ns=part[0][0],
            until_ns=part[-1][0] + 1,
            where={"call_id": [call_id for _, call_id in part]},
        )
        there = {group.key[0] for group in store.query(asked)}
        yield from (call for call in part if call[1] not in there)


def _count(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0
