"""The table of probe groups: one file each, in the order in which they are shown."""

from __future__ import annotations

import importlib
from typing import cast

from attribkit.verify.probe import Group

__all__ = ["GROUPS", "load"]

GROUPS: dict[str, str] = {
    "openai": "attribkit.verify.probes.openai_sdk",
    "asyncio": "attribkit.verify.probes.event_loops",
    "queues": "attribkit.verify.probes.queues",
    "threads": "attribkit.verify.probes.threads",
    "processes": "attribkit.verify.probes.processes",
    "langchain": "attribkit.verify.probes.langchain",
    "langgraph": "attribkit.verify.probes.langgraph",
}
"""Group -> the module that has it as `GROUP`. A further group is a file and a line here."""


def load(name: str) -> Group:
    """Return a group. No library that it needs is imported yet."""
    return cast(Group, importlib.import_module(GROUPS[name]).GROUP)
