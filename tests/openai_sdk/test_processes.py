"""From the call to the ledger file, over sudden deaths and forks: every call that returned has its row, none twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from openai_sdk.shapes import MODEL, user

import attribkit
from attribkit.ledger.open import open_ledger

KILLS = int(os.environ.get("ATTRIBKIT_KILLS", "12"))


def rows(url: str) -> list[Any]:
    store = open_ledger(url, create=False)
    try:
        return list(store.records())
    finally:
        store.close()


def test_killed_at_a_random_moment(gateway: Any, tmp_path: Path) -> None:
    """ATTRIBKIT_KILLS=200 for the long run."""
    url = f"sqlite:///{tmp_path}/killed.db"
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), gateway.base_url, url, str(KILLS)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120 + 5 * KILLS)
    assert ran.returncode == 0, ran.stderr
    returned = dict(line.split() for line in ran.stdout.splitlines() if len(line.split()) == 2)
    assert len(returned) >= KILLS // 2
    kept = rows(url)
    assert max(Counter(row.call_id for row in kept).values()) == 1
    owners = {row.response_id: row.tenant_id for row in kept}
    assert len(owners) == len(kept)
    missing = returned.keys() - owners.keys()
    assert not missing, f"{len(missing)} of {len(returned)} calls that returned have no row"
    assert all(owners[response] == tenant for response, tenant in returned.items())
    assert all(row.cost_status == "priced" for row in kept)


def test_forks_keep_their_own_rows_and_leave_the_parents_stream_alone(observe: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/forks.db"
    seen = observe(ledger=url)
    client = seen.client()
    with attribkit.attributed(tenant_id="parent"):
        stream = client.chat.completions.create(model=MODEL, messages=user("long"), stream=True)
        next(stream)
    children = []
    for name in ("one", "two", "three"):
        child = os.fork()
        if not child:
            code = 1
            try:
                del stream
                with attribkit.attributed(tenant_id=name):
                    for _ in range(5):
                        seen.client().chat.completions.create(model=MODEL, messages=user("hi"))
                code = 0
            finally:
                os._exit(code)  # as a worker of multiprocessing ends: nothing is flushed
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    list(stream)
    attribkit.uninstrument()
    kept = rows(url)
    assert Counter(row.tenant_id for row in kept) == {"one": 5, "two": 5, "three": 5, "parent": 1}
    assert {row.status for row in kept} == {"ok"}
    assert len(seen.requests()) == len(kept)
