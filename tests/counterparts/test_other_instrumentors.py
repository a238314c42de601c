"""Other GenAI instrumentors beside attribkit: their spans carry the attribution, ours is no second one, one row each.

Those that are not installed are skipped; `install.sh` puts them into a virtual environment of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from counterparts.started import HERE, INSTALLED, needed

pytestmark = pytest.mark.counterpart
MODULES = {
    "otel-genai": "opentelemetry.instrumentation.genai.openai",
    "otel-openai-v2": "opentelemetry.instrumentation.openai_v2",
    "openinference": "openinference.instrumentation.openai",
    "openllmetry": "opentelemetry.instrumentation.openai",
    "logfire": "logfire",
    "langfuse": "langfuse",
    "openlit": "openlit",
}
OLDER = ("openlit", "otel-openai-v2")
"""Those that do not stand on today's OpenAI SDK or GenAI utilities: in an environment of their own."""


LARGE = [pytest.param(name, marks=pytest.mark.large) for name in OLDER]


def python_of(name: str) -> Path:
    return INSTALLED / ("instrumentors-older" if name in OLDER else "instrumentors") / "bin" / "python"


@cache
def fault(name: str) -> str:
    """Return what its environment says of an instrumentor that cannot be imported there; nothing when it can."""
    tried = subprocess.run(
        [str(python_of(name)), "-c", f"import {MODULES[name]}"], capture_output=True, text=True, check=False
    )
    return tried.stderr[-2000:] if tried.returncode else ""


def ran(name: str, order: str, undo: str) -> list[dict[str, Any]]:
    needed(python_of(name), name, f"install{'_large' * (name in OLDER)}.sh")
    assert fault(name) == ""
    source = str(HERE.parents[1] / "src")
    done = subprocess.run(
        [str(python_of(name)), "-W", "ignore", str(HERE / "with_another.py"), name, order, undo],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.returncode == 0, done.stderr
    steps: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return steps


@pytest.mark.parametrize("undo", ["first", "last"])
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", [*(name for name in MODULES if name not in OLDER), *LARGE])
def test_beside_another(name: str, order: str, undo: str) -> None:
    both, alone, none = ran(name, order, undo)
    assert both["requests"] == ["acme", "acme"]
    assert [row[:2] for row in both["rows"]] == [["acme", "priced"]] * 2
    late = "streaming response"  # Logfire logs the end of a stream as a span of its own
    calls = [span for span in both["spans"] if span["scope"] != "attribkit" and late not in span["name"]]
    assert len(calls) == 2 and "attribkit" not in {span["scope"] for span in both["spans"]}, "ours is no second span"
    assert {span["attributes"]["attribkit.tenant_id"] for span in calls} == {"acme"}
    if undo == "last":
        assert (alone["requests"], alone["rows"]) == ([None, None], [])
        assert len(alone["spans"]) >= 2
    else:
        assert alone["requests"] == ["acme", "acme"] and len(alone["rows"]) == 2
    assert (none["requests"], none["rows"]) == ([None, None], [])
