"""The sink that keeps calls: on disk before the call returns, in the ledger a moment later."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import threading
import time
import weakref
from collections import deque
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from attribkit import faults
from attribkit.calls import CallKind, CallRecord, Meters, Own
from attribkit.errors import ConfigurationError, LedgerBusy, LedgerError
from attribkit.ids import new_id
from attribkit.ledger.jobs import JobFiles
from attribkit.ledger.lines import line_of, loss_line, plain_line
from attribkit.ledger.spool import SpoolFile, set_aside, spool_directory
from attribkit.storage.forks import let_go_at_fork
from attribkit.storage.urls import parse_url

if TYPE_CHECKING:
    from attribkit.attribution import Attribution
    from attribkit.ledger.base import LedgerStore
    from attribkit.ledger.delivery import Delivered

__all__ = ["LedgerSink", "LedgerStats"]

PERIOD = 15.0
"""Seconds between two visits to the ledger while calls come in. Reports read the spools too, so they do not wait."""
ROWS = 1_000
"""Calls after which the next visit is due at once."""
_IDLE_AFTER = 10.0
_PATIENCE = 2.0
_ORPHANS_EVERY = 30.0
_ROTATE_AT = 1_048_576
HELD_LINES = 10_000
_AT_EXIT = 2.0
_PARK_PATIENCE = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class LedgerStats(NamedTuple):
    """Counts of this process since it started or was forked."""

    written: int
    """Rows that this process has put into the ledger; those of dead processes that it found are among them."""
    spooled: int
    """Calls that were written to the spool."""
    lost: int
    """Calls that no disk would take and that memory had no more room for."""
    locked_retries: int
    """Times that the ledger's lock was held elsewhere and the batch was tried again."""
    disk_errors: int
    """Writes that a disk refused, of the spool or of the ledger."""
    held: int
    """Calls that are in memory only, now: they go to disk as soon as one takes them."""
    rejected: int
    """Lines that were no record; they are in the spool's rejected.txt."""


class LedgerSink:
    """Takes finished calls for the ledger at `url`. One for each process; safe for threads, forks and signals.

    `finished` appends one line to this process's spool file with one write: when it returns, the call survives the
    death of the process (not of the machine: nothing is fsynced). A thread moves lines into the ledger, every fifteen
    seconds or 1,000 calls; it sleeps while no calls come. Files, the thread and database connections are made
    with the first call. Nothing here raises for a full, locked or missing disk: it is counted (`stats`) and logged
    once. Raises ConfigurationError for a URL that names no store.
    """

    def __init__(self, url: str, spool_dir: str | None = None) -> None:
        self.url = url
        path = parse_url(url, schemes=("sqlite",)).path
        if path is None:
            raise ConfigurationError(f"ledger {url!r} names no file; write sqlite:///PATH", name="ledger", value=url)
        self.directory = spool_directory(path, url, spool_dir)
        self.jobs = JobFiles(self.directory)
        self._begin()
        self._fork_locks: list[Any] = []
        let_go_at_fork(self, "thread")
        _sinks.add(self)
        _close_at_exit()

    def _begin(self) -> None:
        """Set the state of a process that has taken no call yet."""
        # Reentrant: a stream that is collected while a line is written ends a call of its own on the same thread.
        self._lock = threading.RLock()
        self._moving = threading.Lock()
        self._wake = threading.Event()
        self._thread: tuple[threading.Thread, threading.Event] | None = None
        self._parking = False
        self._asleep = True
        self._store: LedgerStore | None = None
        self._file: SpoolFile | None = None
        self._retired: deque[SpoolFile] = deque()
        self._held: deque[bytes] = deque()
        self._torn = False
        self._unmoved = 0
        self._nested = False
        self._lost_since: int | None = None
        self._lost_unreported = 0
        self._complained: set[str] = set()
        self._complaints: list[str] = []
        self._orphans_at = 0.0
        self._written = self._spooled = self._lost = self._retries = self._disk_errors = self._rejected = 0

    # On the app's path

    def finished(self, record: CallRecord) -> None:
        """Write the call down; it is on disk when this returns, or held in memory and counted when no disk takes it."""
        try:
            self._take(line_of(record))
        except Exception as error:
            self._lose(1)
            faults.note("ledger", error)

    def plain(self, kind: CallKind, attribution: Attribution, own: Own, meters: Meters) -> None:
        """Write a call down whose cost is worked out when its line is moved, in whatever process, by its own prices."""
        try:
            self._take(plain_line(kind, attribution, own, meters))
        except Exception as error:
            self._lose(1)
            faults.note("ledger", error)

    def _take(self, line: bytes) -> None:
        lock = self._lock
        lock.acquire()  # `with` costs as much as the rest
        nested, self._nested = self._nested, True
        try:
            if not self._append(line):
                self._hold(line)
            self._unmoved += 1
            due = (self._asleep or self._unmoved >= ROWS) and not (nested or self._parking or _at_end)
            if due:
                self._asleep, self._unmoved = False, 0
        finally:
            self._nested = nested
            lock.release()
        if due:
            self._rouse()

    def _append(self, line: bytes) -> bool:
        """Add a line to the spool file; False when the disk does not take all of it. The caller has the lock."""
        before = self._spooled
        try:
            file = self._file or self._opened()
            if self._torn:
                line = b"\n" + line
            taken = os.write(file.fd, line)
        except OSError as error:
            self._disk_error("spool", f"{self.directory}: {error.strerror or error}")
            return False
        if taken != len(line):
            self._disk_error("spool", f"{self.directory}: its disk is full")
            self._torn = not self._taken_back(file, taken, alone=before == self._spooled)
            return False
        self._torn = False
        self._spooled += 1
        return True

    def _opened(self) -> SpoolFile:
        file = SpoolFile.create(self.directory)
        if self._file is not None:  # made by a call that ended inside this one
            file.close(remove=True)
            return self._file
        self._file = file
        return file

    def _taken_back(self, file: SpoolFile, taken: int, *, alone: bool) -> bool:
        """Cut a half-written line off; False when that cannot be done, or another line (a nested call's) follows it."""
        if not alone or not taken:
            return alone
        try:
            os.ftruncate(file.fd, os.lseek(file.fd, 0, os.SEEK_END) - taken)
        except OSError:
            return False
        return True

    def _hold(self, line: bytes) -> None:
        self._held.append(line)
        while len(self._held) > HELD_LINES:
            self._held.popleft()
            self._lose(1)

    def _lose(self, calls: int) -> None:
        self._lost += calls
        self._lost_unreported += calls
        self._lost_since = self._lost_since or time.time_ns()

    def _disk_error(self, kind: str, text: str) -> None:
        self._disk_errors += 1
        if kind not in self._complained:
            self._complained.add(kind)
            self._complaints.append(text)  # logged off the app's path

    def _rouse(self) -> None:
        """Wake the thread, or start it.

        The caller has no lock: a thread that starts may collect garbage, end a call there, and want the lock before
        its starter is let go on. Nor is one started at the end of the interpreter, where the start would wait for ever.
        """
        if self._thread is not None:
            self._wake.set()
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="attribkit-ledger", daemon=True)
        self._thread = thread, stop
        try:
            thread.start()
        except RuntimeError:
            # The machine gives no more threads: close() at exit, or the next process, moves the lines.
            self._thread = None

    # Off the app's path

    def flush(self, timeout: float | None = 5.0) -> bool:
        """Move what waits into the ledger now, that of dead processes too; True when all of it is there.

        Blocks up to `timeout` seconds while another process holds the ledger's lock (None: as long as that takes).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._moving.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return False
        try:
            return self._move(deadline, orphans=True)
        finally:
            self._moving.release()

    def close(self, timeout: float | None = 5.0) -> None:
        """Flush, stop the thread, let go of files and connections. What could not be moved stays in the spool.

        A call that ends later is taken as before, with new files.
        """
        self.flush(timeout)
        self._park()
        if not self._moving.acquire(timeout=_PARK_PATIENCE):
            self._parking = False
            return
        try:
            with self._lock:
                file, self._file = self._file, None
                if file is not None:
                    file.close(remove=file.drained)
            while self._retired:
                self._retired.popleft().close(remove=False)
            self._close_store()
        finally:
            self._parking = False
            self._moving.release()

    def stats(self) -> LedgerStats:
        """Return the counts so far."""
        return LedgerStats(
            self._written,
            self._spooled,
            self._lost,
            self._retries,
            self._disk_errors,
            len(self._held),
            self._rejected,
        )

    def _run(self, stop: threading.Event) -> None:
        worked_at = time.monotonic()
        while True:
            asleep = self._asleep
            woken = self._wake.wait(_ORPHANS_EVERY if asleep else PERIOD)
            self._wake.clear()
            if stop.is_set():
                break
            if asleep and woken:
                continue  # let a period's rows come together first
            with self._moving:
                before = self._written
                done = self._move(time.monotonic() + _PATIENCE, orphans=time.monotonic() >= self._orphans_at)
                if not done or self._written != before:
                    worked_at = time.monotonic()
                if asleep or (time.monotonic() - worked_at >= _IDLE_AFTER and self._fall_asleep()):
                    self._close_store()
        with self._moving:
            self._close_store()

    def _fall_asleep(self) -> bool:
        """Start a new file for the next call, and agree that it wakes this thread; False when one has just come."""
        if self._file is not None and self._file.moved and not self._rotate():
            return False
        with self._lock:
            if self._held or self._retired or (self._file is not None and not self._file.drained):
                return False
            self._asleep = True
            return True

    def _move(self, deadline: float | None, *, orphans: bool) -> bool:
        """Move what is there now; False when something had to stay. The caller has `_moving`."""
        try:
            self._write_held()
            done = True
            if self._file is not None and os.fstat(self._file.fd).st_size >= _ROTATE_AT:
                done = self._rotate()
            while self._retired and done:
                done = self._move_file(self._retired[0], deadline)
                if done:
                    self._retired.popleft().close(remove=True)
            if done and self._file is not None:
                done = self._move_file(self._file, deadline)
            if done and orphans:
                self._move_orphans(deadline)
            return done and not self._held
        except Exception as error:
            faults.note("ledger.writer", error)
            return False
        finally:
            self._speak()

    def _move_file(self, file: SpoolFile, deadline: float | None) -> bool:
        for lines, offset in file.lines():
            delivered = self._delivered(lines, deadline)
            if delivered is None:
                return False
            if delivered.rejected:
                set_aside(self.directory, file.path, delivered.rejected)
            file.moved = offset
        return True

    def _delivered(self, lines: list[bytes], deadline: float | None) -> Delivered | None:
        """Return what became of `lines`, None when the store does not take them now."""
        from attribkit.ledger.delivery import deliver

        pause = _FIRST_PAUSE
        while True:
            try:
                delivered = deliver(self._opened_store(), lines)
            except LedgerBusy:
                self._retries += 1
                if self._parking or (deadline is not None and time.monotonic() >= deadline):
                    return None
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except LedgerError as error:
                self._disk_error("ledger", str(error))
                return None
            else:
                self._written += delivered.rows
                self._rejected += len(delivered.rejected)
                return delivered

    def _move_orphans(self, deadline: float | None) -> None:
        from attribkit.ledger.delivery import collect

        self._orphans_at = time.monotonic() + _ORPHANS_EVERY
        pause = _FIRST_PAUSE
        while True:
            collected = collect(self._opened_store(), self.directory, orphans_only=True)
            self._written += collected.rows
            self._rejected += collected.rejected
            if not collected.busy:
                break
            self._retries += 1
            if self._parking or (deadline is not None and time.monotonic() >= deadline):
                self._orphans_at = 0.0
                return
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        if collected.behind:
            self._disk_error("orphans", collected.behind)

    def _rotate(self) -> bool:
        """Give the appenders a new file; the old one is moved and removed. False when the disk gives none."""
        try:
            fresh = SpoolFile.create(self.directory)
        except OSError as error:
            self._disk_error("spool", f"{self.directory}: {error.strerror or error}")
            return False
        with self._lock:
            old, self._file = self._file, fresh
        if old is not None:
            self._retired.append(old)
        return True

    def _write_held(self) -> None:
        """Bring calls that are only in memory to the spool, or where that fails straight into the ledger."""
        while self._held:
            with self._lock:
                if not self._append(self._held[0]):
                    break
                self._held.popleft()
        while lines := list(islice(self._held, ROWS)):
            delivered = self._delivered(lines, 0.0)
            if delivered is None:
                break
            for line in lines:
                with self._lock:
                    if self._held and self._held[0] is line:
                        self._held.popleft()
        if self._lost_unreported and not self._held:
            from attribkit.ledger.base import Loss

            with self._lock:
                calls, since = self._lost_unreported, self._lost_since or time.time_ns()
                process = f"{socket.gethostname()}:{os.getpid()}"
                if self._append(loss_line(Loss(new_id(), since, time.time_ns(), calls, process))):
                    self._lost_unreported, self._lost_since = 0, None

    def _opened_store(self) -> LedgerStore:
        if self._store is None:
            from attribkit.ledger.open import open_store

            self._store = open_store(self.url, patience=0.0)
        return self._store

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _speak(self) -> None:
        if self._complaints:
            import logging

            log = logging.getLogger("attribkit")
            while self._complaints:
                log.error(
                    "ledger: %s. Calls wait in %s and go on; counts are in stats(), and this is logged once",
                    self._complaints.pop(0),
                    self.directory,
                )

    # Forks: the child shares nothing with its parent

    def _park(self) -> None:
        """Stop the thread; once `_parking` is off again, the next call starts another."""
        self._parking = self._asleep = True
        running, self._thread = self._thread, None
        if running is not None:
            thread, stop = running
            stop.set()
            self._wake.set()
            with contextlib.suppress(RuntimeError):  # it is this thread, or not started yet
                thread.join(_PARK_PATIENCE)

    def before_fork(self) -> None:
        """Stop the thread, so that no connection is open across the fork and no lock is held by it.

        (Python 3.12 and later also warn of a fork in a process with threads: not on our account.)
        """
        self._park()
        self._fork_locks = [lock for lock in (self._moving, self._lock) if lock.acquire(timeout=_PARK_PATIENCE)]

    def after_fork_in_parent(self) -> None:
        """Go on; the next call starts the thread again."""
        self._parking = False
        for lock in self._fork_locks:
            lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew, with files of this process's own."""
        for file in (self._file, *self._retired):
            if file is not None:
                os.close(file.fd)  # it would keep the parent's lock on the file alive after the parent's death
        self._begin()


_sinks: weakref.WeakSet[LedgerSink] = weakref.WeakSet()
_at_end = False


@cache
def _close_at_exit() -> None:
    atexit.register(_close_all)


def _close_all() -> None:
    global _at_end
    _at_end = True
    for sink in list(_sinks):
        sink.close(_AT_EXIT)
