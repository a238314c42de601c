"""SQLite files as attribkit uses them: WAL, short retries of its own, migrations, no connection across a fork."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from attribkit.errors import LedgerBusy, LedgerError, LedgerUnwritable
from attribkit.storage.forks import let_go_at_fork

__all__ = ["SqliteDatabase"]

T = TypeVar("T")

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNWRITABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_NOT_OURS = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
_FORK_PATIENCE = 2.0
_JOURNAL_LEFT = 64 * 1024 * 1024

_VERSIONS = "CREATE TABLE IF NOT EXISTS attribkit_schema (room TEXT PRIMARY KEY, version INTEGER NOT NULL)"


_of_the_parent: list[sqlite3.Connection] = []


class SqliteDatabase:
    """One SQLite file, or a database in memory, used by one thread at a time; opened at first use and again after
    `close()` or a fork.

    Several rooms can keep tables in one file: each has its own row in `attribkit_schema`, so their versions do not
    meet. A lock held elsewhere is tried again for `patience` seconds at random intervals around `first_pause`, growing
    to `longest_pause` (2 to 50 ms; SQLite's own busy handler waits in fixed steps of up to 100 ms), then `LedgerBusy`
    is raised. `checkpoint` is after how many pages of the write-ahead log they go into the file, else SQLite's 1,000.

    A connection that is open while the process forks would leave the child with SQLite's record of locks that only
    the parent holds, and could corrupt the file. So connections are closed just before a fork and opened again at
    the next use. A child that was forked out of a running transaction cannot use the file: `LedgerUnwritable` says so.
    """

    def __init__(
        self,
        path: str | None,
        *,
        room: str,
        migrations: Sequence[str],
        create: bool = True,
        patience: float = 5.0,
        first_pause: float = _FIRST_PAUSE,
        longest_pause: float = _LONGEST_PAUSE,
        checkpoint: int | None = None,
    ) -> None:
        self.path = path
        self._first_pause, self._longest_pause, self._checkpoint = first_pause, longest_pause, checkpoint
        self._room, self._migrations = room, migrations
        self._create, self._patience = create, patience
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._depth = 0
        self._inherited = False
        self._fork_lock = False
        let_go_at_fork(self, "connection")

    def __repr__(self) -> str:
        return f"SqliteDatabase({self.path or ':memory:'!r})"

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`. Inside `snapshot()` it sees the snapshot."""
        return self._retried(work)

    def write(self, work: Callable[[sqlite3.Connection], T], *, patience: float | None = None) -> T:
        """Return `work(connection)`, done in one transaction: all of it is in the file afterwards, or nothing.

        `patience` is how long to wait for a lock this time; 0 does not wait at all.
        """

        return self._retried(work, self._patience if patience is None else patience, whole=True)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Make all reads inside see the database as it is at the first of them. Other threads wait."""
        with self._lock:
            if self._depth:
                yield
                return

            def begin(connection: sqlite3.Connection) -> None:
                connection.execute("BEGIN")
                try:
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise

            self._retried(begin)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._connection is not None and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection; a later use opens it again. A database in memory is gone."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()  # Python 3.13 warns of one that is not

    def _retried(
        self, work: Callable[[sqlite3.Connection], T], patience: float | None = None, *, whole: bool = False
    ) -> T:
        """Return `work(connection)`, tried again while another process has the lock; a `whole` transaction of it."""
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause = self._first_pause
        while True:
            try:
                with self._lock:
                    connection = self._connection
                    if connection is None:
                        connection = self._connection = self._opened()
                    self._depth += 1
                    try:
                        if not whole:
                            return work(connection)
                        connection.execute("BEGIN IMMEDIATE")
                        try:
                            result = work(connection)
                            connection.execute("COMMIT")
                            return result
                        except BaseException:
                            if connection.in_transaction:
                                connection.execute("ROLLBACK")
                            raise
                    finally:
                        self._depth -= 1
            except sqlite3.DatabaseError as error:
                explained = self._explained(error)
                if explained is None:
                    raise
                if not isinstance(explained, LedgerBusy) or time.monotonic() >= deadline:
                    raise explained from error
            time.sleep(min(pause * random.uniform(0.5, 1.5), max(0.0, deadline - time.monotonic())))
            pause = min(pause * 2, self._longest_pause)

    def _explained(self, error: sqlite3.DatabaseError) -> LedgerError | None:
        """Return what the user should read, None for errors that are about the data and not the file."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = self.path or ":memory:"
        if code in _BUSY:
            return LedgerBusy(f"{where}: another process holds the database's lock; try again when it is done")
        if code in _NOT_OURS:
            return LedgerError(f"{where}: {error}; name another file, or restore this one from a copy")
        if code in _UNWRITABLE:
            if code == sqlite3.SQLITE_CANTOPEN and not os.path.isdir(os.path.dirname(where)):
                return LedgerUnwritable(f"{where}: its folder does not exist; make the folder or name another file")
            if code == sqlite3.SQLITE_CANTOPEN and not self._create and not os.path.exists(where):
                return LedgerError(f"{where}: there is no such file")
            return LedgerUnwritable(f"{where}: {error}; free space on its disk, or check the rights on it")
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)):
            return None
        return LedgerError(f"{where}: {error}")

    def _opened(self) -> sqlite3.Connection:
        if self._inherited:
            raise LedgerUnwritable(f"{self.path}: it was in use when this process was forked; open it in a new process")
        mode = "" if self.path is None else self._mode(self.path)
        uri = "file::memory:" if self.path is None else f"{Path(self.path).as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, timeout=0, isolation_level=None, check_same_thread=False, uri=True)
        try:
            if mode.startswith("rw"):
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                connection.execute("PRAGMA synchronous = NORMAL")
                if self._checkpoint is not None:
                    connection.execute(f"PRAGMA wal_autocheckpoint = {self._checkpoint}").fetchall()
                connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LEFT}").fetchall()
            elif mode.startswith("ro") and self._version(connection) < len(self._migrations):
                connection = self._brought_up(connection)
                return connection
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _brought_up(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Return a copy, in a file of its own that goes with the connection, of a database of an older version that
        may not be written, brought up to this version. It can be read only: what is written would be lost."""
        copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            with closing(connection):
                connection.backup(copy)
            self._migrate(copy)
            copy.execute("PRAGMA query_only = ON")
        except BaseException:
            copy.close()
            raise
        return copy

    def _mode(self, path: str) -> str:
        if os.path.exists(path) and not os.access(path, os.W_OK):
            # Without a -wal file beside it nobody writes, and SQLite needs no lock file in a folder it may not write.
            return "ro" if os.path.exists(f"{path}-wal") else "ro&immutable=1"
        return "rwc" if self._create else "rw"

    def _migrate(self, connection: sqlite3.Connection) -> None:
        newest = len(self._migrations)
        if self._version(connection) == newest:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_VERSIONS)
            version = self._version(connection)
            if version > newest:
                raise LedgerError(
                    f"{self.path}: its {self._room} tables have version {version} and this attribkit knows {newest}; "
                    "install the attribkit that wrote it, or a newer one"
                )
            for script in self._migrations[version:]:
                for statement in script.split(";"):
                    if statement.strip():
                        connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO attribkit_schema VALUES (?, ?)", (self._room, newest))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _version(self, connection: sqlite3.Connection) -> int:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'attribkit_schema'").fetchone()
        if there is None:
            return 0
        row = connection.execute("SELECT version FROM attribkit_schema WHERE room = ?", (self._room,)).fetchone()
        return int(row[0]) if row else 0

    def before_fork(self) -> None:
        """Close the connection and keep the lock; both stay as they are where a thread does not let go in time."""
        self._fork_lock = self._lock.acquire(timeout=_FORK_PATIENCE)
        if self._fork_lock and self.path is not None and not self._depth:
            self.close()

    def after_fork_in_parent(self) -> None:
        """Give the lock back."""
        if self._fork_lock:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start with a lock of our own, and never touch a connection of the parent's."""
        self._lock = threading.RLock()
        if self.path is not None and self._connection is not None:
            # Neither used nor closed here: SQLite allows neither in a child.
            _of_the_parent.append(self._connection)
            self._inherited, self._connection = True, None
