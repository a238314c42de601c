"""Arize Phoenix and MLflow price generated calls with their own code; every amount that differs has a reason."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from counterparts.started import INSTALLED, ROOT, needed

pytestmark = [pytest.mark.counterpart, pytest.mark.large]


def test_every_difference_has_a_reason() -> None:
    python = needed(INSTALLED / "oracles/bin/python", "Arize Phoenix and MLflow", "install_large.sh")
    done = subprocess.run(
        [str(python), str(ROOT / "tools" / "compare_prices.py"), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    found = {name.split()[0]: engine for name, engine in json.loads(done.stdout).items()}
    for name in ("arize-phoenix", "mlflow"):
        engine = found[name]
        different = sum(reason["calls"] for reason in engine["different"].values())
        assert "unexplained" not in engine["different"]
        assert engine["same"] + engine["no_price_there"] + different == engine["calls"] > 5_000
        assert engine["same"] > 1_500
