"""The pages of the documentation, and what is in their fences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = ("python", "sh", "toml", "json", "text")
"""Python runs, commands are held against what there is, the others are shown."""


class Block(NamedTuple):
    language: str
    line: int
    """Of the fence, from 1: a line of `text` is that many lines further down."""
    text: str


def blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    language, start, text = None, 0, list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"\s*(```+|~~~+)(.*)", line)
        if fence is None:
            text.append(line)
        elif language is None:
            language, start, text = fence[2].strip(), number, []
        else:
            found.append(Block(language, start, "\n".join(text) + "\n"))
            language = None
    assert language is None, f"{path}:{start}: a fence that is not closed"
    return found


def section(path: Path, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level."""
    text = path.read_text(encoding="utf-8")
    level = heading.split(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.M | re.S)
    assert found is not None, f"{path.name} has no heading {heading!r}"
    return found[1]
