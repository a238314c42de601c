"""What a process has spent and not yet told the store, in a file that outlives its death.

A file is mapped into memory: a write costs no system call, and the pages are the kernel's when the process is killed.
Whoever finds the process dead reads from it what it had spent.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from hashlib import blake2b

__all__ = ["Journal", "read_journal"]

_SLOT = struct.Struct("16sq8x")
_FIRST = 256


def _digest(counter: str) -> bytes:
    return blake2b(counter.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Journal:
    """One process's file. Used under its owner's lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._slots = _FIRST
            os.ftruncate(handle, self._slots * _SLOT.size)
            self._mapped(mmap.mmap(handle, self._slots * _SLOT.size))
        finally:
            os.close(handle)
        self._used = 0
        self._free: list[int] = []

    def _mapped(self, map: mmap.mmap) -> None:
        self._map = map
        # Native: one store of 8 bytes, which a kill cannot tear.
        self._amounts = memoryview(map).cast("q")

    def slot(self, counter: str) -> int:
        """Return where the spend of a counter is to be put."""
        if self._free:
            place = self._free.pop()
        else:
            if self._used == self._slots:
                self._slots *= 2
                handle = os.open(self.path, os.O_RDWR)
                try:
                    os.ftruncate(handle, self._slots * _SLOT.size)
                    larger = mmap.mmap(handle, self._slots * _SLOT.size)
                finally:
                    os.close(handle)
                self._amounts.release()
                self._map.close()
                self._mapped(larger)
            place = self._used * _SLOT.size
            self._used += 1
        _SLOT.pack_into(self._map, place, _digest(counter), 0)
        return place

    def put(self, place: int, settled: int) -> None:
        """Keep all that this process has ever spent on a counter."""
        self._amounts[place // 8 + 2] = settled

    def drop(self, place: int) -> None:
        """Forget a counter that the store knows all of."""
        _SLOT.pack_into(self._map, place, bytes(16), 0)
        self._free.append(place)

    def close(self, *, remove: bool) -> None:
        self._amounts.release()
        self._map.close()
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def read_journal(path: str, counters: list[str]) -> dict[str, int]:
    """Return what a dead process had spent, by counter; {} when it left no file."""
    try:
        with open(path, "rb") as file:
            found = dict(_SLOT.iter_unpack(file.read()))
    except (OSError, struct.error):
        return {}
    return {counter: found[digest] for counter in counters if (digest := _digest(counter)) in found}
