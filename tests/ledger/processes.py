"""Starts the worker processes of these tests and reads what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ledger.made import record

from attribkit.ledger import open_ledger
from attribkit.ledger.writer import LedgerSink

TESTS = Path(__file__).parent.parent
SPOOL = ".spool"


def start(url: str, deed: str, number: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(TESTS / "ledger" / "worker.py"), url, deed, str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


def ids_in(url: str) -> list[str]:
    """Return the call_ids that a reader finds: those that wait in spools are moved in first."""
    store = open_ledger(url)
    try:
        return [row.call_id for row in store.records()]
    finally:
        store.close()


def spools(db: Path) -> list[Path]:
    return sorted(Path(f"{db}{SPOOL}").glob("*.jsonl"))


_shared: LedgerSink


def begin(url: str) -> LedgerSink:
    """Open the sink of this process, for `take` in it and its children."""
    global _shared
    _shared = LedgerSink(url)
    return _shared


def take(_: int) -> str:
    call = record()
    _shared.finished(call)
    return call.call_id
