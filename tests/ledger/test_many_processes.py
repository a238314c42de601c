"""Many processes, forks and sudden deaths: every call that returned is in the ledger once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from ledger.made import record
from ledger.processes import begin, ids_in, spools, start, take

from attribkit.ledger.writer import LedgerSink

KILLS = int(os.environ.get("ATTRIBKIT_KILLS", "25"))


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "costs.db"


def test_many_processes_write_at_once(db: Path) -> None:
    workers = [start(f"sqlite:///{db}", deed, 200) for deed in ("take", "take-and-vanish", "threads", "take")]
    printed = [line for worker in workers for line in worker.communicate()[0].split()]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert len(printed) == 3 * 200 + 8 * 200
    assert ids_in(f"sqlite:///{db}") == sorted(printed)
    assert spools(db) == []


def test_a_regular_end_leaves_nothing_waiting(db: Path) -> None:
    worker = start(f"sqlite:///{db}", "take", 50)
    worker.communicate()
    assert spools(db) == []
    assert len(ids_in(f"sqlite:///{db}")) == 50


def test_calls_that_end_with_the_interpreter_are_kept_and_do_not_hold_it_up(db: Path) -> None:
    worker = start(f"sqlite:///{db}", "end-late", 5)
    printed = worker.communicate(timeout=30)[0].split()
    assert worker.returncode == 0
    assert len(printed) == 6
    assert ids_in(f"sqlite:///{db}") == sorted(printed)


def test_killed_at_any_moment_every_returned_call_is_there_once(db: Path) -> None:
    """ATTRIBKIT_KILLS=200 for the long run. The ledger stays the same one, so orphans meet live writers too."""
    rng = random.Random(os.environ.get("ATTRIBKIT_SEED", "kill"))
    printed: list[str] = []
    running: list[tuple[float, object]] = []
    started = 0
    while started < KILLS or running:
        while started < KILLS and len(running) < 3:
            worker = start(f"sqlite:///{db}", "until-killed", started)
            assert worker.stdout is not None
            printed.append(worker.stdout.readline().strip())
            running.append((time.monotonic() + rng.uniform(0, 0.4), worker))
            started += 1
        due, worker = running.pop(0)
        time.sleep(max(0.0, due - time.monotonic()))
        worker.kill()  # type: ignore[attr-defined]
        lines = worker.communicate()[0].splitlines(keepends=True)  # type: ignore[attr-defined]
        printed += [line.strip() for line in lines if line.endswith("\n")]
    found = ids_in(f"sqlite:///{db}")
    assert len(found) == len(set(found)), "none twice"
    assert set(printed) <= set(found), "every one that was printed had returned"
    # Besides these: calls that returned and were killed before they were printed, one at most for each worker.
    assert len(found) - len(set(printed)) <= 2 * KILLS
    assert spools(db) == []
    assert len(printed) > KILLS
    print(f"{KILLS} kills, {len(printed)} calls printed, {len(found)} rows")


def test_what_the_dead_left_is_moved_by_the_next_writer(db: Path) -> None:
    start(f"sqlite:///{db}", "take-and-vanish", 30).communicate()
    assert len(spools(db)) == 1
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    assert sink.flush()
    assert sink.stats().written == 31
    sink.close()
    assert spools(db) == []


def test_a_reader_sees_what_live_processes_have_not_moved_yet(db: Path) -> None:
    worker = start(f"sqlite:///{db}", "linger", 20)
    assert worker.stdout is not None
    printed = [worker.stdout.readline().strip() for _ in range(20)]
    assert worker.stdout.readline() == "ready\n"
    (file,) = spools(db)
    before = file.read_bytes()
    assert ids_in(f"sqlite:///{db}") == printed
    assert ids_in(f"sqlite:///{db}") == printed, "twice read is once counted"
    assert file.read_bytes() == before, "its owner still writes there"
    worker.kill()
    worker.communicate()
    assert ids_in(f"sqlite:///{db}") == printed
    assert spools(db) == []


def test_a_child_does_not_keep_its_parents_file_alive(db: Path) -> None:
    worker = start(f"sqlite:///{db}", "fork-and-die", 10)
    assert worker.stdout is not None
    printed = [worker.stdout.readline().strip() for _ in range(10)]
    child = int(worker.stdout.readline().split()[1])
    worker.wait()
    try:
        sink = LedgerSink(f"sqlite:///{db}")
        sink.flush()
        assert sink.stats().written == 10
        sink.close()
        assert spools(db) == []
        os.kill(child, 0)  # and it was alive all the time
    finally:
        os.kill(child, signal.SIGKILL)
        worker.stdout.close()
    assert ids_in(f"sqlite:///{db}") == printed


def test_forked_children_have_files_of_their_own(db: Path) -> None:
    sink = LedgerSink(f"sqlite:///{db}")
    for _ in range(3):
        sink.finished(record())
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(25):
                sink.finished(record())
            counted = sink.stats().spooled
            os._exit(0 if counted == 25 else 1)
        children.append(child)
        sink.finished(record())
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert sink.flush()
    assert sink.stats().spooled == 7
    sink.close()
    assert len(ids_in(f"sqlite:///{db}")) == 7 + 4 * 25
    assert spools(db) == []


def test_a_fork_in_the_middle_of_traffic_loses_nothing(db: Path) -> None:
    """Forks while other threads write and the mover is at work; children go on, and fork again."""
    import threading

    sink = LedgerSink(f"sqlite:///{db}")
    stop = threading.Event()
    counts = [0] * 3

    def busy(index: int) -> None:
        while not stop.is_set():
            sink.finished(record())
            counts[index] += 1
            time.sleep(0.0005)

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(10):
        child = os.fork()
        if child == 0:
            for _ in range(20):
                sink.finished(record())
            grandchild = os.fork()
            if grandchild == 0:
                sink.finished(record())
                os._exit(0)
            status = os.waitpid(grandchild, 0)[1]
            sink.close()
            os._exit(status)
        children.append(child)
        time.sleep(0.01)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
    stop.set()
    for thread in threads:
        thread.join()
    sink.close()
    assert len(ids_in(f"sqlite:///{db}")) == sum(counts) + 10 * 21
    assert spools(db) == []


def test_pool_workers_that_never_clean_up_lose_nothing(db: Path) -> None:
    sink = begin(f"sqlite:///{db}")
    sink.finished(record())
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        taken = list(pool.map(take, range(60)))
    sink.close()
    assert spools(db) == [], "the parent has moved what they left"
    found = ids_in(f"sqlite:///{db}")
    assert set(taken) < set(found) and len(found) == 61


def test_spawned_workers_write_to_the_same_ledger(db: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=begin, initargs=(f"sqlite:///{db}",)) as pool:
        taken = list(pool.map(take, range(40)))
    assert ids_in(f"sqlite:///{db}") == sorted(taken)
    assert spools(db) == []
