"""A short soak: two tenants over every hop at once in one process. `make test-soak` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from verify.unfinished import UNFINISHED


def test_two_tenants_over_every_hop_at_once() -> None:
    command = [
        sys.executable,
        str(Path(__file__).with_name("soak.py")),
        "--seconds",
        "5",
        "--without",
        ",".join(UNFINISHED),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.stdout, ended.stderr[-3000:]
    told = json.loads(ended.stdout)
    assert told["problems"] == [], (told, ended.stderr[-3000:])
    assert told["wrong"] == told["leaked"] == 0
    assert told["requests"] == told["rows"] > 20
    assert ended.returncode == 0
