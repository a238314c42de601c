"""What processes that share a ledger tell each other of jobs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from attribkit.ledger import jobs
from attribkit.ledger.jobs import JobFiles


def test_one_claim_is_given_whoever_asks(tmp_path: Path) -> None:
    given: list[bool] = []
    asking = [threading.Thread(target=lambda: given.append(JobFiles(str(tmp_path)).claim("c-1"))) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(given) == [False] * 7 + [True]
    assert JobFiles(str(tmp_path)).claim("c-2")


def test_a_creator_is_kept_for_others_as_it_was_said_first(tmp_path: Path) -> None:
    identity = "batches/../../ü\ud800"
    JobFiles(str(tmp_path)).remember(identity, '["op", {"tenant_id": "Zürich 東京"}]')
    JobFiles(str(tmp_path)).remember(identity, "another")
    assert JobFiles(str(tmp_path)).creator(identity) == '["op", {"tenant_id": "Zürich 東京"}]'
    assert JobFiles(str(tmp_path)).creator("unknown") is None


def test_where_no_disk_can_tell_it_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert JobFiles(str(tmp_path / "file")).claim("c-1")


def test_old_files_go(tmp_path: Path) -> None:
    files = JobFiles(str(tmp_path))
    files.claim("old")
    (old,) = (tmp_path / "jobs").iterdir()
    os.utime(old, (0, os.stat(old).st_mtime - jobs.KEPT_SECONDS - 60))
    for number in range(600):
        files.claim(f"c-{number}")
    assert not old.exists() and len(list((tmp_path / "jobs").iterdir())) == 600
