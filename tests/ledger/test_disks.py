"""Locked, full, broken and forbidden disks, for real: counted, told, and nothing lost that could be kept."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger.made import record
from ledger.processes import TESTS, ids_in, spools, start

from attribkit.errors import LedgerUnwritable
from attribkit.ledger import Question, open_ledger, writer
from attribkit.ledger.lines import line_of
from attribkit.ledger.open import collect_waiting, open_store
from attribkit.ledger.reading import row_of
from attribkit.ledger.sqlite import SqliteLedger
from attribkit.ledger.writer import LedgerSink
from attribkit.money import from_pico


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "costs.db"


HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
held.execute("ROLLBACK")
"""


def test_a_ledger_that_another_process_has_locked(db: Path) -> None:
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    assert sink.flush()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    holder.stdout.readline()
    calls = [record() for _ in range(200)]
    for call in calls:
        sink.finished(call)
    stats = sink.stats()
    assert (stats.spooled, stats.lost, stats.held) == (201, 0, 0), "no call waits for the lock"
    assert not sink.flush(0.3)
    assert sink.stats().locked_retries > 0
    reader = open_store(f"sqlite:///{db}", patience=0.1)
    collected = collect_waiting(reader, f"sqlite:///{db}")
    assert "another process holds the database's lock" in (collected.behind or "")
    assert reader.query(Question())[0].attempts == 1, "a report shows what is there, and says what is not"
    holder.stdin.write("\n")
    holder.stdin.close()
    assert sink.flush(20)
    holder.wait()
    holder.stdout.close()
    assert reader.query(Question())[0].attempts == 201
    reader.close()
    sink.close()


def test_an_end_with_the_ledger_locked_leaves_the_calls_in_the_spool(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    sink.flush()
    held = sqlite3.connect(db, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    sink.finished(record())
    sink.close(0.1)
    assert len(spools(db)) == 1
    held.execute("ROLLBACK")
    held.close()
    assert len(ids_in(f"sqlite:///{db}")) == 2
    assert spools(db) == []


def test_a_file_size_limit_is_a_full_disk(db: Path) -> None:
    """RLIMIT_FSIZE holds for the spool and the ledger alike: writes fail for real, in part first."""
    code = f"""
import resource, sys
from ledger.made import record
from attribkit.ledger import writer
from attribkit.ledger.writer import LedgerSink
writer.HELD_LINES = 100
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
sink = LedgerSink("sqlite:///{db}")
taken = []
def take(number):
    for _ in range(number):
        call = record()
        sink.finished(call)
        taken.append(call.call_id)
take(10)
sink.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
take(80)
full = sink.stats()
assert 0 < full.held <= 100 and full.lost == 0 and full.disk_errors > 0, full
assert not sink.flush(0.1)
assert sink.stats().lost == 0
take(200)
worse = sink.stats()
assert worse.held == 100 and worse.lost > 0, worse
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
take(1)
assert sink.flush(20), sink.stats()
end = sink.stats()
assert end.held == 0 and end.lost == worse.lost and end.rejected == 0, end
sink.close()
print(len(taken), end.lost)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TESTS)}
    )
    assert done.returncode == 0, done.stderr
    taken, lost = map(int, done.stdout.split())
    assert len(ids_in(f"sqlite:///{db}")) == taken - lost
    assert done.stderr.count("its disk is full") == 1, "said once"
    assert len(done.stderr.splitlines()) <= 2, "and the ledger's own trouble once"
    (loss,) = open_ledger(f"sqlite:///{db}").losses()
    assert loss.calls == lost, "and the ledger knows of what it lacks"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("this machine does not let us mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_for_a_while(small_disk: Path) -> None:
    sink = LedgerSink(f"sqlite:///{small_disk}/costs.db")
    calls = [record() for _ in range(400)]
    for call in calls[:20]:
        sink.finished(call)
    ballast = os.open(small_disk / "ballast", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(ballast, b"x" * 512):
            pass
    os.close(ballast)
    for call in calls[20:]:
        sink.finished(call)
    stats = sink.stats()
    assert stats.held > 300 and stats.lost == 0
    assert not sink.flush(0.2)
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert sink.flush(20)
    assert sink.stats().held == 0
    sink.close()
    assert ids_in(f"sqlite:///{small_disk}/costs.db") == sorted(call.call_id for call in calls)
    assert not (Path(sink.directory) / "rejected.txt").exists(), "no half line was left"


def test_a_disk_that_turns_read_only(small_disk: Path) -> None:
    sink = LedgerSink(f"sqlite:///{small_disk}/costs.db")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for _ in range(3):
        sink.finished(record())
    assert not sink.flush(0.1)
    assert (sink.stats().held, sink.stats().spooled) == (3, 0)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert sink.flush()
    assert sink.stats().held == 0
    sink.close()

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    store = open_ledger(f"sqlite:///{small_disk}/costs.db", create=False)
    assert store.query(Question())[0].attempts == 3, "a ledger on a read-only disk can be read"
    store.close()


def test_an_older_ledger_on_a_disk_that_turns_read_only(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/costs.db"
    one = record()
    store = SqliteLedger(f"{small_disk}/costs.db")
    store.write([row_of(one)])
    store._database.write(older)
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    store = open_ledger(url, create=False)
    (group,) = store.query(Question(("tenant_id",)))
    assert (group.attempts, from_pico(group.cost_pico)) == (1, one.cost.usd)
    assert [row.call_id for row in store.records()] == [one.call_id] and store.repricings() == []
    with pytest.raises(LedgerUnwritable, match="readonly"):
        store.write([row_of(record())])  # into the copy, it would be lost
    store.close()


def older(connection: sqlite3.Connection) -> None:
    """Leave the tables as version 1 had them."""
    connection.execute("ALTER TABLE attribkit_calls DROP COLUMN charged_pico")
    connection.execute("DROP TABLE attribkit_repricings")
    connection.execute("DROP TABLE attribkit_figures")
    connection.execute("UPDATE attribkit_schema SET version = 1")


# What is found in a spool


def spool_of_the_dead(db: Path, *lines: bytes) -> Path:
    folder = Path(f"{db}.spool")
    folder.mkdir()
    file = folder / "00000000.jsonl"
    file.write_bytes(b"".join(lines))
    return file


def test_a_torn_last_line_is_a_call_that_had_not_returned(db: Path) -> None:
    whole, torn = record(), record()
    file = spool_of_the_dead(db, line_of(whole), line_of(torn)[:-20])
    assert ids_in(f"sqlite:///{db}") == [whole.call_id]
    assert not file.exists()
    assert not (file.parent / "rejected.txt").exists()


def test_garbage_is_kept_aside_and_counted(db: Path) -> None:
    good = [record() for _ in range(3)]
    garbage = [
        b"\x00\xff\xfe not a line\n",
        b'{"json": "of another kind"}\n',
        b"[1,[]]\n",
        line_of(record())[:200] + b"\n",
    ]
    mixed = [
        line_of(good[0]),
        garbage[0],
        garbage[1],
        line_of(good[1]),
        garbage[2],
        b"\n",
        garbage[3],
        line_of(good[2]),
    ]
    file = spool_of_the_dead(db, *mixed)
    store = open_store(f"sqlite:///{db}")
    collected = collect_waiting(store, f"sqlite:///{db}")
    assert (collected.rows, collected.orphans, collected.rejected, collected.behind) == (3, 1, 4, None)
    assert not file.exists()
    aside = (file.parent / "rejected.txt").read_bytes()
    assert all(line.strip(b"\n") in aside for line in garbage)
    assert aside.count(b"00000000.jsonl") == 4
    store.close()


def test_a_sink_goes_past_garbage_in_its_own_file(db: Path) -> None:
    sink = LedgerSink(f"sqlite:///{db}")
    sink.finished(record())
    with open(spools(db)[0], "ab") as file:
        file.write(b"a stray line\n")
    sink.finished(record())
    assert sink.flush()
    assert sink.stats().rejected == 1
    assert sink.stats().written == 2
    sink.close()


def test_lines_of_a_newer_attribkit_stay_where_they_are(db: Path) -> None:
    file = spool_of_the_dead(db, b'[99,{"anything":"new"}]\n')
    store = open_store(f"sqlite:///{db}")
    collected = collect_waiting(store, f"sqlite:///{db}")
    assert "written by a newer attribkit" in (collected.behind or "")
    assert file.exists()
    store.close()


def test_a_spool_without_a_ledger_makes_one(db: Path) -> None:
    """Killed before the first batch: what waits is enough."""
    call = record()
    spool_of_the_dead(db, line_of(call))
    store = open_ledger(f"sqlite:///{db}", create=False)
    assert [row.call_id for row in store.records()] == [call.call_id]
    store.close()


def test_progress_is_told_in_bytes(db: Path) -> None:
    file = spool_of_the_dead(db, *(line_of(record()) for _ in range(2000)))
    size = file.stat().st_size
    told: list[tuple[int, int]] = []
    store = open_store(f"sqlite:///{db}")
    collect_waiting(store, f"sqlite:///{db}", progress=lambda done, total: told.append((done, total)))
    store.close()
    assert len(told) > 2
    assert told == sorted(told) and told[-1] == (size, size)


def test_a_drainer_that_is_killed_leaves_the_rest_to_the_next(db: Path) -> None:
    calls = [record() for _ in range(6000)]
    file = spool_of_the_dead(db, *(line_of(call) for call in calls))
    drainer = subprocess.Popen(
        [sys.executable, "-c", f"from attribkit.ledger import open_ledger; open_ledger('sqlite:///{db}')"]
    )
    deadline = time.monotonic() + 20
    while not db.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    drainer.send_signal(signal.SIGKILL)
    drainer.wait()
    assert ids_in(f"sqlite:///{db}") == sorted(call.call_id for call in calls)
    assert not file.exists()


def test_two_readers_at_once_count_once(db: Path) -> None:
    calls = [record() for _ in range(3000)]
    spool_of_the_dead(db, *(line_of(call) for call in calls))
    live = start(f"sqlite:///{db}", "linger", 100)
    assert live.stdout is not None
    while live.stdout.readline() != "ready\n":
        pass
    code = (
        "import sys, json; from attribkit.ledger import open_ledger, Question;"
        f"store = open_ledger('sqlite:///{db}', patience=30); print(json.dumps(store.query(Question())[0]))"
    )
    readers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [json.loads(reader.communicate()[0]) for reader in readers]
    assert [reader.returncode for reader in readers] == [0] * 3
    live.kill()
    live.communicate()
    assert len(ids_in(f"sqlite:///{db}")) == 3100
    for answer in answers:
        assert 0 <= answer[2] <= 3100, "one that another drains may be seen half way"


def test_held_lines_have_a_bound() -> None:
    assert writer.HELD_LINES == 10_000
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
