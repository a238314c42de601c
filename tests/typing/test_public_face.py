"""The types that a user sees: mypy reads `public_face.py` as strictly as it can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_type_checker_accepts_what_users_write(tmp_path: Path) -> None:
    face = Path(__file__).with_name("public_face.py")
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = True\nmypy_path = {ROOT / 'src'}\nfollow_imports = silent\n")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    ran = subprocess.run([*command, str(face)], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
