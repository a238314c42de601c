"""Spool files: where lines wait, safe from the death of their process, until they are in the ledger.

A spool is a folder with one file of lines for each process that writes. The writer of a file holds a lock (flock) on
it for as long as it lives, whatever way it dies; so a file whose lock is free is an orphan, and whoever gets the lock
may move its lines on and remove it. Files are only added to, and removed when all their lines are in the ledger.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attribkit.ids import new_id

__all__ = ["REJECTED", "SpoolFile", "Waiting", "set_aside", "spool_directory", "spool_size", "waiting"]

SUFFIX = ".jsonl"
REJECTED = "rejected.txt"
_CHUNK = 262_144


def spool_directory(path: str | None, url: str, parent: str | None = None) -> str:
    """Return the spool folder of a ledger: beside the file at `path`, or a folder of its own in `parent`.

    A network ledger has no place beside it: without `parent` its spool is in `.attribkit-spool` in the working
    directory. The URL is told apart by a digest, so that no password gets into a folder's name.
    """
    if path is not None and parent is None:
        return f"{path}.spool"
    digest = hashlib.sha256((path or url).encode()).hexdigest()[:12]
    return os.path.abspath(os.path.join(parent or ".attribkit-spool", digest))


class SpoolFile:
    """A file of this process: appended to by any thread, read and removed by the one that moves its lines."""

    __slots__ = ("fd", "moved", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path, self.fd = path, fd
        self.moved = 0
        """Bytes from the start that are in the ledger."""

    @classmethod
    def create(cls, directory: str) -> SpoolFile:
        """Return a new, locked, empty file. Raises OSError."""
        os.makedirs(directory, exist_ok=True)
        while True:
            path = os.path.join(directory, new_id() + SUFFIX)
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                # Between open and lock another process may take the empty file for an orphan and remove it.
                if _locked(fd) is not False and os.fstat(fd).st_nlink:
                    return cls(path, fd)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    @property
    def drained(self) -> bool:
        """True when every byte is in the ledger; sure only while nobody can append."""
        return os.fstat(self.fd).st_size == self.moved

    def lines(self) -> Iterator[tuple[list[bytes], int]]:
        """Yield the complete lines that wait, some hundred at a time, each with the offset behind them."""
        return _lines(self.fd, self.moved)

    def close(self, *, remove: bool) -> None:
        """Let go of the file; with `remove`, its lines are all in the ledger and it goes."""
        if remove:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        os.close(self.fd)


class Waiting:
    """A file of another process, open for reading. `orphan` says that its writer is gone and the lock is now ours."""

    __slots__ = ("fd", "orphan", "path", "size")

    def __init__(self, path: str, fd: int, orphan: bool) -> None:
        self.path, self.fd, self.orphan = path, fd, orphan
        self.size = os.fstat(fd).st_size

    def lines(self) -> Iterator[tuple[list[bytes], int]]:
        """Yield the complete lines, some hundred at a time, each with the offset behind them.

        What follows the last newline is a call that had not returned when its process died, or one being written.
        """
        return _lines(self.fd, 0)

    def remove(self) -> None:
        """Remove an orphan whose lines are all in the ledger."""
        assert self.orphan
        os.unlink(self.path)

    def close(self) -> None:
        """Let go of the file, and with it of the lock."""
        os.close(self.fd)


def waiting(directory: str, *, orphans_only: bool = False) -> Iterator[Waiting]:
    """Yield the spool files in `directory` that are not this process's own, oldest first; the caller closes each.

    A missing folder has none. Live files are left out with `orphans_only`.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = os.path.join(directory, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            orphan = _locked(fd) is True
            gone = not os.fstat(fd).st_nlink
        except BaseException:
            os.close(fd)
            raise
        if gone or (orphans_only and not orphan):
            os.close(fd)
            continue
        yield Waiting(path, fd, orphan)


def spool_size(directory: str) -> int:
    """Return the bytes of all spool files in `directory`, those of live processes included."""
    try:
        with os.scandir(directory) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError):
        return 0


def set_aside(directory: str, source: str, lines: Sequence[tuple[bytes, str]]) -> None:
    """Keep lines that cannot be read, with the reason, in the spool's `rejected.txt`."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = b"".join(
        f"{stamp} {Path(source).name}: {why}\t".encode() + line.rstrip(b"\n") + b"\n" for line, why in lines
    )
    fd = os.open(os.path.join(directory, REJECTED), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def _locked(fd: int) -> bool | None:
    """Take the lock: True when it is ours, False when another has it, None where the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lines(fd: int, offset: int) -> Iterator[tuple[list[bytes], int]]:
    rest = b""
    position = offset
    while chunk := os.pread(fd, _CHUNK, position):
        position += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield lines, position - len(rest)
