"""The documentation is true: its Python runs, its commands exist, every setting and command has an entry."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from docs.pages import LANGUAGES, PAGES, ROOT, blocks, section

from attribkit.cli.main import COMMANDS
from attribkit.instrumentation.catalog import GROUPS
from attribkit.settings import Settings

CLI = (sys.executable, "-c", "from attribkit.cli.main import app; app()")
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture(scope="module")
def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_fence_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: {block.language!r}"


RUNNABLE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=[page.name for page in RUNNABLE])
def test_python_blocks_run(page: Path, gateway: Any, tmp_path: Path) -> None:
    environ = {**os.environ, "OPENAI_BASE_URL": gateway.base_url, "OPENAI_API_KEY": "none", "COLUMNS": "100"}
    command = [sys.executable, "-W", "default", str(Path(__file__).with_name("run_page.py")), str(page)]
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert "attribkit" not in ran.stderr, f"a page that makes attribkit complain: {ran.stderr}"


# -- commands ---------------------------------------------------------------------------------------------------------


def flags(command: str) -> set[str]:
    whole = typer.main.get_command(importlib.import_module(COMMANDS[command].module).app)
    parts = [whole, *getattr(whole, "commands", {}).values()]
    parameters = [parameter for part in parts for parameter in part.params if parameter.param_type_name == "option"]
    return {option for parameter in parameters for option in parameter.opts} | {"--help", "-h"}


def commands(page: Path) -> list[tuple[int, list[str]]]:
    found = []
    for block in blocks(page):
        if block.language == "sh":
            for number, line in enumerate(block.text.replace("\\\n", " ").splitlines(), block.line + 1):
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words:
                    found.append((number, words))
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path, extras: set[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for line, words in commands(page):
        where = f"{page.name}:{line}: {' '.join(words)}"
        program, *rest = words
        if program == "attribkit":
            if rest[0].startswith("-"):
                assert set(rest) <= {"--help", "--version"}, where
            else:
                assert rest[0] in COMMANDS, where
                given = {word.partition("=")[0] for word in rest[1:] if word.startswith("-")}
                assert given <= flags(rest[0]), where
        elif program == "make":
            assert all(word in targets for word in rest if "=" not in word), where
        elif program.startswith("python"):
            assert rest[0] == "-m" or (ROOT / rest[0]).exists(), where
            if rest[0] == "-m":
                assert importlib.util.find_spec(rest[1]) is not None, where
        elif program == "pip":
            for extra in re.findall(r"\[([a-z,]+)\]", " ".join(rest)):
                assert set(extra.split(",")) <= extras, where
        else:
            assert program in ("export", "cd", "git", "."), where


def test_every_command_and_each_of_its_options_has_an_entry() -> None:
    page = ROOT / "docs" / "commands.md"
    for name in COMMANDS:
        entry = section(page, f"## attribkit {name}")
        for flag in flags(name) - {"--help", "-h"}:
            assert f"`{flag}`" in entry, f"docs/commands.md: attribkit {name} {flag}"
        assert f"attribkit {name}" in (ROOT / "README.md").read_text()


# -- settings ---------------------------------------------------------------------------------------------------------


def test_every_setting_has_an_entry() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\S.*?) \| (\S.*?) \| (\S.*?) \|$", (ROOT / "docs" / "settings.md").read_text(), re.M
    )
    entries = {name: (variable, default, meaning) for name, variable, default, meaning in rows}
    assert [name for name in entries if name in Settings.model_fields] == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        variable, default, meaning = entries[name]
        program_only = name in ("tracer_provider", "meter_provider")
        assert variable == ("keyword only" if program_only else f"`ATTRIBKIT_{name.upper()}`")
        expected = {"None": "none", "True": "true", "()": "empty", "{}": "empty"}
        assert default == expected.get(repr(field.default), f"`{field.default}`"), name
        assert meaning


def test_every_patch_group_has_an_entry() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section(ROOT / "docs" / "settings.md", "## hops"), re.M) == list(GROUPS)


# -- the house --------------------------------------------------------------------------------------------------------


def test_every_room_is_on_its_floor() -> None:
    import test_floors

    page = (ROOT / "docs" / "architecture.md").read_text()
    told = {room: int(floor) for floor, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.M)}
    there = {test_floors.room_of(path) for path in test_floors.FILES} - {"__init__", "__main__"}
    assert told == {room: test_floors.FLOOR[room] for room in there}


# -- links ------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_every_page_is_reachable_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme or f"(docs/{page.name}#" in readme, page.name


# -- the first screen -------------------------------------------------------------------------------------------------


def test_the_quickstart_is_short_and_does_what_it_says(gateway: Any, tmp_path: Path) -> None:
    first = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    assert len([line for line in first.text.splitlines() if line.strip()]) < 15
    seen = gateway.requests()
    environ = {**os.environ, "OPENAI_BASE_URL": gateway.base_url, "OPENAI_API_KEY": "none"}
    subprocess.run([sys.executable, "-c", first.text], cwd=tmp_path, env=environ, check=True, capture_output=True)
    (request,) = gateway.requests(since=seen[-1].seq if seen else 0)
    assert (request.attribution["tenant_id"], request.attribution["workflow"]) == ("acme", "support")
    command = [
        sys.executable,
        "-c",
        "from attribkit.cli.main import app; app()",
        "report",
        "--by",
        "tenant_id",
        "--json",
    ]
    report = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (row,) = json.loads(report.stdout)["rows"]
    assert (row["tenant_id"], row["calls"]) == ("acme", 1)


def test_the_tables_are_those_of_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("langgraph")
    command = [
        sys.executable,
        "-c",
        "from attribkit.cli.main import app; app()",
        "demo",
        "--json",
        "--dir",
        str(tmp_path),
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    facts = json.loads(ran.stdout)
    first = next(block for block in blocks(ROOT / "README.md") if block.language == "text")
    figures = r"(\w+)(?: +(\w+))? +(\d+) +(0\.\d{6})(?: +([\d.]+) %)?"
    for line in first.text.splitlines():
        found = re.fullmatch(rf" {figures} +{figures} *", line)
        if found is not None:
            assert said(facts["before"], found[1]) >= {(found[2], int(found[3]), found[4])}
            assert said(facts["after"], found[6]) >= {(found[7], int(found[8]), found[9])}
    told = len(re.findall(rf"^ {figures} +{figures}", first.text, re.M))
    assert told == len(facts["after"]["rows"]) + 2


def said(half: Any, tenant: str) -> set[tuple[str | None, int, str]]:
    if tenant in ("nobody", "total"):
        rows = [row for row in half["rows"] if row["tenant_id"] is None] if tenant == "nobody" else half["rows"]
        usd = sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0))
        return {(None, sum(row["calls"] for row in rows), f"{usd:.6f}")}
    return {
        (row["workflow"], row["calls"], f"{Decimal(row['cost_usd']):.6f}")
        for row in half["rows"]
        if row["tenant_id"] == tenant
    }
