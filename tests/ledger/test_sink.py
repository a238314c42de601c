"""The sink in one process: what it takes is on disk when it returns, and in the ledger after a while."""

from __future__ import annotations

import gc
import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from ledger.made import record
from ledger.processes import ids_in, spools

from attribkit.errors import ConfigurationError
from attribkit.ledger import writer
from attribkit.ledger.open import open_sink
from attribkit.ledger.writer import LedgerSink


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "costs.db"


def until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def stored(db: Path) -> int:
    """Return the rows of the file alone, without a look at the spool."""
    connection = sqlite3.connect(db)
    try:
        return int(connection.execute("SELECT count(*) FROM attribkit_calls").fetchone()[0])
    finally:
        connection.close()


def test_nothing_is_made_before_the_first_call(db: Path) -> None:
    before = threading.active_count()
    sink = LedgerSink(f"sqlite:///{db}")
    assert list(db.parent.iterdir()) == []
    assert threading.active_count() == before
    assert sink.flush()
    sink.close()
    assert not db.exists()


def test_a_call_is_on_disk_when_finished_returns(db: Path) -> None:
    sink = LedgerSink(f"sqlite:///{db}")
    call = record()
    sink.finished(call)
    (file,) = spools(db)
    assert call.call_id in file.read_text()
    assert sink.stats() == (0, 1, 0, 0, 0, 0, 0)
    assert sink.flush()
    assert stored(db) == 1
    assert sink.stats().written == 1
    sink.close()
    assert spools(db) == [], "its lines are in the ledger"


def test_the_thread_moves_calls_by_itself_and_goes_to_sleep(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PERIOD", 0.02)
    monkeypatch.setattr(writer, "_IDLE_AFTER", 0.1)
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    until(lambda: sink.stats().written == 1)
    until(lambda: sink._asleep)
    until(lambda: not Path(f"{db}-wal").exists())  # no connection is kept while nothing happens
    (file,) = spools(db)
    assert file.stat().st_size == 0
    sink.finished(record())
    until(lambda: sink.stats().written == 2)
    sink.close()


def test_a_thousand_calls_do_not_wait_for_the_period(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PERIOD", 3600)
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    until(lambda: not sink._wake.is_set())  # the first call has woken the thread, which waits for more
    for _ in range(writer.ROWS):
        sink.finished(record())
    until(lambda: sink.stats().written > 0)
    sink.close()
    assert stored(db) == 1 + writer.ROWS


def test_a_spool_file_does_not_grow_without_end(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_ROTATE_AT", 20_000)
    monkeypatch.setattr(writer, "PERIOD", 0.005)
    sink = LedgerSink(f"sqlite:///{db}")
    largest = 0
    for number in range(3000):
        sink.finished(record())
        if number % 100 == 0:
            sink.flush()
            largest = max(largest, *(file.stat().st_size for file in spools(db)))
    assert largest < 500_000
    sink.close()
    assert stored(db) == 3000


def test_threads_share_a_sink(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PERIOD", 0.005)
    monkeypatch.setattr(writer, "_ROTATE_AT", 50_000)
    sink = LedgerSink(f"sqlite:///{db}")
    calls = [[record() for _ in range(400)] for _ in range(8)]
    threads = [threading.Thread(target=lambda mine=mine: [sink.finished(call) for call in mine]) for mine in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert ids_in(f"sqlite:///{db}") == sorted(call.call_id for mine in calls for call in mine)
    assert sink.stats().rejected == sink.stats().lost == 0


def test_a_call_may_end_while_another_is_written_down(db: Path) -> None:
    """A signal handler and the garbage collector end calls in the middle of anything, on the same thread."""
    sink = LedgerSink(f"sqlite:///{db}")
    taken: list[str] = []

    class Abandoned:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            take()

    def take(*_: object) -> None:
        call = record()
        sink.finished(call)
        taken.append(call.call_id)

    rng = random.Random(5)
    before = signal.signal(signal.SIGALRM, take)
    gc.set_threshold(50)
    try:
        for _ in range(1500):
            Abandoned()
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.000001, 0.00006))  # once, somewhere in what follows
            take()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.set_threshold(700, 10, 10)
        gc.collect()
    assert len(taken) >= 2000
    until(lambda: ids_in(f"sqlite:///{db}") == sorted(taken))  # another thread may still be collecting
    sink.close()
    assert ids_in(f"sqlite:///{db}") == sorted(taken)


def test_a_closed_sink_takes_what_ends_late(db: Path) -> None:
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    sink.close()
    sink.finished(record())
    sink.close()
    sink.close()
    assert stored(db) == 2


def test_our_own_fault_costs_the_app_nothing_and_is_counted(db: Path) -> None:
    from attribkit import faults

    faults.strict(False)
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record(usage=None))
    sink.finished(record())
    sink.close()
    assert sink.stats().lost == 1
    assert sum(faults.counts().values()) == 1
    assert stored(db) == 1


def test_a_spool_elsewhere_is_one_for_each_ledger(tmp_path: Path) -> None:
    one = LedgerSink(f"sqlite:///{tmp_path}/one.db", str(tmp_path / "spool"))
    two = LedgerSink(f"sqlite:///{tmp_path}/two.db", str(tmp_path / "spool"))
    assert one.directory != two.directory
    assert one.directory.startswith(str(tmp_path / "spool"))
    one.finished(record())
    two.finished(record())
    two.finished(record())
    one.close()
    two.close()
    assert (stored(tmp_path / "one.db"), stored(tmp_path / "two.db")) == (1, 2)


def test_a_url_without_a_file_is_no_place_for_a_sink() -> None:
    with pytest.raises(ConfigurationError, match="names no file"):
        LedgerSink("sqlite://")
    with pytest.raises(ConfigurationError, match="PostgreSQL is not supported by this version"):
        LedgerSink("postgresql://u:p@h/db")
    assert open_sink("memory://").flush()


def test_ten_thousand_calls_leave_memory_flat(db: Path) -> None:
    import tracemalloc

    sink = LedgerSink(f"sqlite:///{db}")
    calls = [record() for _ in range(500)]
    for call in calls:
        sink.finished(call)
    sink.flush()
    tracemalloc.start()
    for _ in range(20):
        for call in calls:
            sink.finished(call)
        sink.flush()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 200_000
    sink.close()
    assert stored(db) == 500, "and a call is one row, however often it is reported"


def test_two_sinks_of_one_process_do_not_meet(db: Path) -> None:
    sinks = [LedgerSink(f"sqlite:///{db}") for _ in range(2)]
    for sink in sinks:
        sink.finished(record())
    assert len(spools(db)) == 2
    assert sinks[0].flush()
    assert stored(db) == 1
    assert len(spools(db)) == 2, "the other's file is in use"
    for sink in sinks:
        sink.close()
    assert stored(db) == 2


def test_a_fork_finds_no_thread_and_leaves_none_behind(db: Path) -> None:
    """Python 3.12 warns of a fork with threads; ours is not to be the reason."""

    def running() -> bool:
        return any(thread.name == "attribkit-ledger" for thread in threading.enumerate())

    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    assert running()
    child = os.fork()
    if child == 0:
        os._exit(int(running()))
    assert not running()
    assert os.waitpid(child, 0)[1] == 0
    sink.finished(record())
    assert running()
    sink.close()
    assert stored(db) == 2
