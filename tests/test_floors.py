"""The house has floors: a room imports only rooms on lower floors, and its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "attribkit"
FLOORS = (
    ("errors", "money", "ids", "faults", "late"),
    ("attribution", "usage", "cost", "storage"),
    ("calls", "context", "wire", "settings", "pricing"),
    ("sinks", "gateways", "budgets"),
    ("ledger", "telemetry", "pipeline"),
    ("instrumentation", "reports", "audit"),
    ("runtime", "dashboard"),
    ("testing", "asgi", "wsgi", "grpc", "otel", "__init__"),
    ("demo", "verify"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
FILES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def rooms_imported_by(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = (
                [f"{node.module}.{a.name}" for a in node.names] if node.module == "attribkit" else [node.module or ""]
            )
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "attribkit":
                rooms.add(parts[1] if len(parts) > 1 else "__init__")
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = room_of(path)
    assert here in FLOOR, f"{here} has no floor: give it one in this test"
    for there in rooms_imported_by(path):
        assert there == here or FLOOR[there] < FLOOR[here], f"{path.relative_to(ROOT)} may not import {there}"
