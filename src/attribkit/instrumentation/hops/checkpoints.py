"""LangGraph's checkpoints: each carries in its metadata, under one key of ours, who its run was for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attribkit.attribution import Attribution
from attribkit.context import Scope, adopted, enter, scope
from attribkit.instrumentation.hops.langchain import named

__all__ = ["CHECKPOINT_KEY", "begins", "restored_by", "write"]

CHECKPOINT_KEY = "attribkit"
"""The key in a checkpoint's metadata under which its run's attribution stands, as a JSON object."""

_EDITS = frozenset({"update", "fork"})
_EMPTY = Attribution()


# -- what a checkpoint says -------------------------------------------------------------------------------------------

_written: tuple[Attribution, str] = _EMPTY, ""
"""The latest attribution and how it is written: the checkpoints of a run come in a row."""


def _text(attribution: Attribution) -> str:
    global _written
    known, text = _written
    if known is not attribution:
        text = json.dumps(attribution.as_dict())
        _written = attribution, text
    return text


def _read(metadata: object) -> dict[str, str] | None:
    """Return the fields that a checkpoint carries, None when it carries none that can be read."""
    text = metadata.get(CHECKPOINT_KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(text, str):
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return Attribution.of(fields).as_dict() if isinstance(fields, dict) else None


# -- resuming ---------------------------------------------------------------------------------------------------------


def _resumes(loop: Any) -> bool:
    """Return whether a run goes on with what its thread has begun: as LangGraph itself decides it."""
    if loop.is_nested or not loop.checkpoint["channel_versions"]:
        return False
    given = loop.input
    if given is None or type(given).__name__ == "Command":
        return True
    run = (loop.config.get("metadata") or {}).get("run_id")
    return run is not None and run == loop.checkpoint_metadata.get("run_id")


def _restore(loop: Any, found: Mapping[str, str]) -> None:
    """Put in force what a checkpoint carries, as far as nothing here says otherwise.

    The resume's own config metadata is the surest: it was written for this very run. An open scope wins for the fields
    it has; where it names another tenant than the checkpoint, neither is certain, and the run goes without one.
    """
    here = scope()
    told = (named(loop.config.get("metadata")) or {}).get("tenant_id")
    if told is not None:
        if told != found.get("tenant_id"):
            return
        found = {key: value for key, value in found.items() if key != "tenant_id"}
    there = adopted(here, found)
    if there is not here:
        enter(Scope(there.attribution, "restored" if there.hop == "adopted" else there.hop, here.operation))


def begins(loop: Any) -> None:
    """The checkpoint has been loaded and nothing has run yet: if the run resumes, restore what it carries, or remember
    its parent if it is but an edit of the thread's state."""
    if _resumes(loop):
        metadata = loop.checkpoint_metadata
        found = _read(metadata)
        if found:
            _restore(loop, found)
        elif metadata.get("source") in _EDITS:
            loop._attribkit_parent = loop.prev_checkpoint_config


def restored_by(loop: Any, saved: Any) -> Any:
    """Restore what `saved` carries; return the parent to look at next when it is but another edit of the state."""
    if saved is None:
        return None
    found = _read(saved.metadata)
    if found:
        _restore(loop, found)
        return None
    return saved.parent_config if saved.metadata.get("source") in _EDITS else None


# -- writing ----------------------------------------------------------------------------------------------------------


def write(loop: Any, metadata: Any) -> None:
    """Write who the run is for into a checkpoint that is about to be saved."""
    if CHECKPOINT_KEY not in metadata:
        text = _of_run(loop, metadata)
        if text:
            metadata[CHECKPOINT_KEY] = text


def _of_run(loop: Any, metadata: Mapping[str, Any]) -> str | None:
    here = scope()
    own = named(loop.config.get("metadata"))
    if own:
        here = adopted(here, own)
    if here.attribution.tenant_id is None and metadata.get("source") != "input":
        before = loop.checkpoint_metadata.get(CHECKPOINT_KEY)
        if isinstance(before, str):  # a resume whose tenant is disputed does not change whose thread it is
            return before
    return _text(here.attribution) if here.attribution else None
