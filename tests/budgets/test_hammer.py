"""Many processes on one budget, some of them killed: the command that does it at full size, run small."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from budgets.conftest import SHARED

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "limits.py"


def ran(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(COMMAND), *words, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)
    return dict(row)


@pytest.mark.parametrize("store", SHARED)
@pytest.mark.parametrize("kill", [0, 2])
def test_a_limit_is_used_up_and_not_passed(store: str, kill: int, request: pytest.FixtureRequest) -> None:
    if store != "sqlite":
        request.getfixturevalue(f"{store}_url")  # it skips, or fails in CI, where there is no server
    shape = ("--processes", "4", "--threads", "6", "--limit", "4", "--patience", "3", "--kill", str(kill))
    row = ran("--hammer", "--stores", store, *shape)
    assert row["held"] and row["used_up"] and row["exact"] and not row["unjust"] and not row["faults"]
    assert 0 <= Decimal(row["left_usd"]) < Decimal("0.005")


def test_two_thousand_budgets_at_once() -> None:
    assert ran("--many", "1000", "--stores", "sqlite")["held"]


def test_a_quiet_tenant_is_never_refused_beside_a_noisy_one() -> None:
    row = ran("--neighbour", "--stores", "sqlite", "--calls", "100")
    assert row["quiet_calls"] == 300 and row["refused_beside"] > 0
