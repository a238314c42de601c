"""The wheel, built from a clean copy of what is tracked, and installed into an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "attribkit"
DEPTH = len(PACKAGE.parts)


def run(*command: object, cwd: Path) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run([str(word) for word in command], cwd=cwd, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, f"{command}:\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(PACKAGE, source / "src" / "attribkit", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    if find_spec("hatchling") is not None:
        build = ("build", "--wheel", "--no-isolation", "--outdir", folder / "dist")
    else:
        build = ("pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", folder / "dist")
    run(sys.executable, "-m", *build, source, cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel; what it depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    pip = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet")
    run(sys.executable, *pip, "--disable-pip-version-check", wheel, cwd=folder)
    (site / "zz_dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


def test_every_file_of_the_package_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    there = {
        str(path.relative_to(PACKAGE.parent))
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and not any(part == "__pycache__" or part[0] == "." for part in path.relative_to(PACKAGE).parts)
    }
    assert there - names == set()
    assert any(name.endswith(".sql") for name in names)
    assert "attribkit/py.typed" in names and "attribkit/pricing/data/openai.json" in names
    assert {name for name in names if not name.startswith("attribkit/")} == {
        name for name in names if ".dist-info/" in name
    }


def test_its_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    text = archive.read(metadata).decode()
    head = text.split("\n\n", 1)[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Name: attribkit\nVersion: {project['version']}\n" in head
    assert "License-Expression: MIT" in head
    assert "Requires-Python: >=3.11" in head
    assert "# attribkit" in text
    (licence,) = (name for name in archive.namelist() if name.endswith("LICENSE"))
    assert archive.read(licence).decode().startswith("MIT License")
    for requirement in project["dependencies"]:
        assert "==" not in requirement and "<" not in requirement, "lower bounds only: it has to install beside others"


def test_it_runs_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    where = run(installed, "-c", "import attribkit; print(attribkit.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parents[1])
    assert run(installed.parent / "attribkit", "--version", cwd=tmp_path).strip() == project["version"]
    script = """
import attribkit
from attribkit.ledger import Question, open_ledger

print(attribkit.price({"prompt_tokens": 1_000_000, "completion_tokens": 0}, model="gpt-4.1").usd)
print(attribkit.instrument(ledger="sqlite:///costs.db").ledger)
attribkit.uninstrument()
print(open_ledger("sqlite:///costs.db").query(Question())[0].attempts)
"""
    assert run(installed, "-c", script, cwd=tmp_path).split() == ["2.000000", "sqlite:///costs.db", "0"]
    doctor = json.loads(run(installed.parent / "attribkit", "doctor", "--json", cwd=tmp_path))
    assert doctor["versions"]["attribkit"] == project["version"]
