"""Moves lines from spool files into a store: in batches, idempotent, with what cannot be read kept aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from attribkit.errors import LedgerBusy, LedgerError
from attribkit.ledger.base import LedgerRow, LedgerStore, Loss
from attribkit.ledger.reading import NewerLine, read_line
from attribkit.ledger.spool import set_aside, spool_size, waiting

__all__ = ["Collected", "Delivered", "collect", "deliver"]

BATCH = 1_000


class Delivered(NamedTuple):
    """What became of some lines."""

    rows: int = 0
    """New in the store."""
    rejected: Sequence[tuple[bytes, str]] = ()
    """Lines that are no record, or that the store refuses, with the reason."""


class Collected(NamedTuple):
    """What a visit to a spool folder found."""

    rows: int = 0
    """New in the store."""
    orphans: int = 0
    """Files of processes that are gone; moved and removed."""
    rejected: int = 0
    """Lines of orphans that could not be read; they are in the spool's rejected.txt."""
    behind: str | None = None
    """Why some lines are not in the store yet; None when all are."""
    busy: bool = False
    """The reason is a lock that another process holds: nothing is wrong, and the next visit may do."""


def deliver(store: LedgerStore, lines: Iterable[bytes]) -> Delivered:
    """Write what `lines` say into `store` and return when it is there; the store's own errors pass through.

    Raises NewerLine, before anything is written, for lines of a newer attribkit.
    """
    rows: list[LedgerRow] = []
    losses: list[Loss] = []
    rejected: list[tuple[bytes, str]] = []
    for line in lines:
        try:
            read = read_line(line.decode())
        except NewerLine:
            raise
        except Exception as error:  # garbage can fail in any way
            if line.strip():
                rejected.append((line, f"{type(error).__name__} {error}"))
            continue
        if type(read) is LedgerRow:
            rows.append(read)
        else:
            losses.append(read)  # type: ignore[arg-type]
    written = 0
    for start in range(0, len(rows), BATCH):
        written += _written(store, rows[start : start + BATCH], rejected)
    if losses:
        store.write_losses(losses)
    return Delivered(written, rejected)


def _written(store: LedgerStore, rows: list[LedgerRow], rejected: list[tuple[bytes, str]]) -> int:
    try:
        return store.write(rows)
    except LedgerError:
        raise
    except Exception as error:  # some value that the store cannot hold: find the row, keep the others
        if len(rows) > 1:
            half = len(rows) // 2
            return _written(store, rows[:half], rejected) + _written(store, rows[half:], rejected)
        rejected.append((repr(tuple(rows[0])).encode("utf-8", "backslashreplace"), f"{type(error).__name__} {error}"))
        return 0


def collect(
    store: LedgerStore,
    directory: str,
    *,
    orphans_only: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Move the lines of other processes' spool files into `store`. Files of live processes are read and left alone.

    `progress` is called with the bytes that were read and the bytes that are there. A busy or full store ends the
    visit; nothing is lost by that, and `behind` says so.
    """
    rows = orphans = bad = done = 0
    behind: str | None = None
    total = spool_size(directory) if progress else 0
    for file in waiting(directory, orphans_only=orphans_only):
        try:
            start = 0
            for lines, offset in file.lines():
                delivered = deliver(store, lines)
                rows += delivered.rows
                if delivered.rejected and file.orphan:
                    set_aside(directory, file.path, delivered.rejected)
                    bad += len(delivered.rejected)
                done, start = done + offset - start, offset
                if progress:
                    progress(done, max(total, done))
            if file.orphan:
                file.remove()
                orphans += 1
        except NewerLine as error:
            behind = behind or f"{file.path} was written by a newer attribkit ({error}); upgrade this one"
        except LedgerError as error:
            return Collected(rows, orphans, bad, str(error), isinstance(error, LedgerBusy))
        except OSError as error:
            behind = behind or f"{file.path}: {error.strerror or error}"
        finally:
            file.close()
    return Collected(rows, orphans, bad, behind)
