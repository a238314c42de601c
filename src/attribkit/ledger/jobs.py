"""What the processes that share a ledger tell each other of jobs: who created one, and that its charge was counted.

A folder `jobs` in the spool: a small file for each creator that a job cannot name itself, an empty one for each charge.
They are forgotten after 35 days; a provider keeps no job's result for longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time

__all__ = ["JobFiles"]

KEPT_SECONDS = 35 * 86_400
_SWEPT_EVERY = 512


class JobFiles:
    """`sinks.JobRegister` on files, for ledgers of one machine. A few system calls each, and none waits."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.join(directory, "jobs")
        self._made = 0

    def claim(self, charge: str) -> bool:
        """Return True to the first process that asks for `charge`, also where no disk can tell: better counted twice
        than not at all."""
        try:
            self._make(f"{charge}.charged", b"")
        except FileExistsError:
            return False
        except OSError:
            pass
        return True

    def remember(self, job: str, creator: str) -> None:
        """Keep who created `job`. Raises OSError; what is known already stays."""
        with contextlib.suppress(FileExistsError):
            self._make(f"{_name(job)}.creator", creator.encode())

    def creator(self, job: str) -> str | None:
        """Return who created `job`, None when nobody said."""
        try:
            with open(os.path.join(self._directory, f"{_name(job)}.creator"), encoding="utf-8") as file:
                return file.read() or None
        except (OSError, ValueError):
            return None

    def _make(self, name: str, content: bytes) -> None:
        path = os.path.join(self._directory, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(self._directory, exist_ok=True)
            fd = os.open(path, flags, 0o666)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        self._made += 1
        if self._made % _SWEPT_EVERY == 0:
            self._sweep()

    def _sweep(self) -> None:
        old = time.time() - KEPT_SECONDS
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat().st_mtime < old:
                        os.unlink(entry.path)


def _name(job: str) -> str:
    """Return a file's name for a provider's id, which can hold anything."""
    return hashlib.sha256(job.encode("utf-8", "surrogatepass")).hexdigest()[:32]
