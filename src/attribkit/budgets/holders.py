"""Which processes hold something, whether they live, and burying those that do not."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from functools import lru_cache

from attribkit.budgets.journal import read_journal
from attribkit.budgets.store import GRAVE, Holder, Store

__all__ = ["bury_dead", "bury_left", "journal_path", "this_process"]

_SUFFIX = ".spent"


@lru_cache(maxsize=1)
def _host() -> str:
    """Return this machine, and which of its starts: after a reboot a process id is another's."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    try:
        space = os.readlink("/proc/self/ns/pid")  # containers of one machine have process ids of their own
    except OSError:
        space = ""
    return f"{socket.gethostname()}/{boot}/{space}"


def _born(pid: int) -> str | None:
    """Return when a process started, "" where its system does not say, None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return None
    except (OSError, IndexError):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


def this_process(id: str) -> Holder:
    """Return the holder that this process is."""
    pid = os.getpid()
    return Holder(id, _host(), pid, _born(pid) or "")


def journal_path(folder: str, holder: str) -> str:
    """Return where a holder on this machine keeps what it has spent."""
    return os.path.join(folder, holder + _SUFFIX)


def _dead(holder: Holder, expired: bool) -> bool:
    if holder.host != _host():
        return expired
    born = _born(holder.pid)
    return born is None or bool(born and holder.born and born != holder.born)


def bury_dead(store: Store, own: str, journals: str | None, now: float) -> int:
    """Give back what dead processes hold, after adding what they had spent; return in how many counters.

    A process of this machine is dead when it is gone, whatever the clock says; one of another machine when it has
    not said for a lease that it lives.
    """
    freed = 0
    for holder, expired in store.holders(now):
        if holder.id == own or not _dead(holder, expired):
            continue
        freed += _buried(store, holder.id, journals, now, ours=holder.host == _host())
    return freed


def bury_left(store: Store, own: str, journals: str, now: float) -> None:
    """Tell the store what stands in journals of this machine whose processes were buried from another one, which could
    not read them."""
    try:
        found = [name.removesuffix(_SUFFIX) for name in os.listdir(journals) if name.endswith(_SUFFIX)]
    except OSError:
        return
    if len(found) < 2:  # one's own
        return
    known = {holder.id for holder, _ in store.holders(now)}
    for id in found:
        if id != own and id not in known:
            with contextlib.suppress(OSError):
                if store.holds(id) or time.time() - os.stat(journal_path(journals, id)).st_mtime > GRAVE:
                    _buried(store, id, journals, now, ours=True)


def _buried(store: Store, id: str, journals: str | None, now: float, *, ours: bool) -> int:
    path = journal_path(journals, id) if journals is not None else None
    spent = read_journal(path, [hold.counter for hold in store.holds(id)]) if path is not None else {}
    freed = store.bury(id, spent, now)
    if path is not None and ours:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return freed
