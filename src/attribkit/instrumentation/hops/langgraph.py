"""LangGraph: a run keeps its scope wherever it is drained, and a thread's checkpoints bring it back on a resume.

A graph that was interrupted is often resumed in another thread, process or day, where nobody has opened a scope. So
each checkpoint carries, in its metadata and under one key of ours, who the run was for. A resume (`Command`, or None as
input) where no tenant is in force takes it from there.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.context import Scope, adopted, bound, enter, scope
from attribkit.instrumentation.hops.langchain import captured, named
from attribkit.instrumentation.patching import Patch

__all__ = ["CHECKPOINT_KEY", "patches"]

CHECKPOINT_KEY = "attribkit"
"""The key in a checkpoint's metadata under which its run's attribution stands, as a JSON object."""

_PARENTS = 32
"""How many edits of a thread's state are gone back over to the run that they edited."""
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


def _first(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The checkpoint has been loaded and nothing has run yet: inside the run's own stream, which keeps its scope."""
    try:
        if instance.checkpointer and _resumes(instance):
            metadata = instance.checkpoint_metadata
            found = _read(metadata)
            if found:
                _restore(instance, found)
            elif metadata.get("source") in _EDITS:
                instance._attribkit_parent = instance.prev_checkpoint_config
    except Exception as fault:
        faults.note("langgraph.restore", fault)
    return wrapped(*args, **kwargs)


def _enter(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    try:
        parent = getattr(instance, "_attribkit_parent", None)
        for _ in range(_PARENTS):
            saved = instance.checkpointer.get_tuple(parent) if parent else None
            parent = _follow(instance, saved)
    except Exception as fault:
        faults.note("langgraph.restore", fault)
    return result


async def _aenter(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await wrapped(*args, **kwargs)
    try:
        parent = getattr(instance, "_attribkit_parent", None)
        for _ in range(_PARENTS):
            saved = await instance.checkpointer.aget_tuple(parent) if parent else None
            parent = _follow(instance, saved)
    except Exception as fault:
        faults.note("langgraph.restore", fault)
    return result


def _follow(loop: Any, saved: Any) -> Any:
    """Restore what `saved` carries; return the parent to look at next when it is but another edit of the state."""
    if saved is None:
        return None
    found = _read(saved.metadata)
    if found:
        _restore(loop, found)
        return None
    return saved.parent_config if saved.metadata.get("source") in _EDITS else None


def _put_checkpoint(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Write who the run is for into the checkpoint that is about to be saved."""
    try:
        if instance.checkpointer:
            metadata = args[0] if args else kwargs["metadata"]
            if CHECKPOINT_KEY not in metadata:
                text = _of_run(instance, metadata)
                if text:
                    metadata[CHECKPOINT_KEY] = text
    except Exception as fault:
        faults.note("langgraph.checkpoint", fault)
    return wrapped(*args, **kwargs)


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


# -- streams and coroutines -------------------------------------------------------------------------------------------


def _run(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A run of a graph is a generator or a coroutine: it keeps the scope in which it was made, and what it restores."""
    return bound(wrapped(*args, **kwargs), captured())


def _loop_module() -> str:
    """Return where this version of LangGraph has its loops; no part of it is imported for that."""
    spec = importlib.util.find_spec("langgraph")
    places = spec.submodule_search_locations or () if spec is not None else ()
    old = any(Path(place, "pregel", "loop.py").exists() for place in places)
    return "langgraph.pregel.loop" if old else "langgraph.pregel._loop"


def patches() -> tuple[Patch, ...]:
    """Return the rows that carry a scope through a graph's run, its checkpoints and its resumes."""
    loops = _loop_module()

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(module, path, wrapper, "langgraph", "langgraph")

    return (
        row("langgraph.pregel", "Pregel.stream", _run),
        row("langgraph.pregel", "Pregel.astream", _run),
        row("langgraph.pregel", "Pregel.ainvoke", _run),
        Patch("langgraph.pregel", "Pregel.astream_events", _run, "langgraph", "langgraph", False, True),
        row(loops, "PregelLoop._first", _first),
        row(loops, "PregelLoop._put_checkpoint", _put_checkpoint),
        row(loops, "SyncPregelLoop.__enter__", _enter),
        row(loops, "AsyncPregelLoop.__aenter__", _aenter),
    )
