"""Puts attribkit on in a process of a probe: the user's own hops, the loopback gateway, rows and spans written down."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import attribkit
from attribkit.runtime import Report
from attribkit.verify.notes import Notebook

__all__ = ["environment", "note_in", "start"]

_URL, _DIRECTORY = "VERIFY_GATEWAY_URL", "VERIFY_DIRECTORY"
_DROPPED = ("OPENAI_", "AZURE_OPENAI_", "OTEL_", "LANGSMITH_", "LANGCHAIN_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def environment(url: str, hops: Mapping[str, bool]) -> dict[str, str]:
    """Return the environment of a process whose calls go to the loopback gateway at `url`, and nowhere else."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_DROPPED)}
    return {
        **kept,
        _URL: url,
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "no-key-needed",
        "LANGSMITH_TRACING": "false",
        "LANGCHAIN_TRACING_V2": "false",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "ATTRIBKIT_HOPS": json.dumps(dict(hops)),
    }


def start(notebook: Notebook | None = None) -> Report:
    """Call `instrument()` as the environment says, with what is observed written to `notebook`.

    Without it, the notebook is in the directory of the process that started this one: a child program calls this where
    a user's would call `instrument()`.
    """
    if notebook is None:
        notebook = Notebook(os.environ[_DIRECTORY])
    settings: dict[str, Any] = {
        "gateways": {os.environ[_URL]: "portkey"},
        "ledger": notebook,
        "tracer_provider": notebook.tracer_provider(),
        "metrics": False,
        "budgets": (),
        "budget_store": None,
        "require": (),
        "on_missing": "record",
        "tiers": (),
        "prices": None,
    }
    return attribkit.instrument(**settings)


def note_in(notebook: Notebook, directory: str) -> None:
    """Let this process and those that it starts write to another directory."""
    notebook.directory = directory
    os.environ[_DIRECTORY] = directory
