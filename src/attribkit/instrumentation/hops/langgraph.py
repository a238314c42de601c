"""LangGraph: a run keeps its scope wherever it is drained, and a thread's checkpoints bring it back on a resume.

A graph that was interrupted is often resumed in another thread, process or day, where nobody has opened a scope. So
each checkpoint carries who the run was for. A resume (`Command`, or None as input) where no tenant is in force takes it
from there.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.context import bound
from attribkit.instrumentation.hops.langchain import captured
from attribkit.instrumentation.hops.runnables import made_here
from attribkit.instrumentation.patching import Patch
from attribkit.late import Late

if TYPE_CHECKING:
    from attribkit.instrumentation.hops import checkpoints
else:
    checkpoints = Late(f"{__package__}.checkpoints")

__all__ = ["patches"]

_REMOTE = ("stream", "astream", "ainvoke")
_PARENTS = 32
"""How many edits of a thread's state are gone back over to the run that they edited."""


def _first(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Inside the run's own stream, which keeps its scope."""
    try:
        if instance.checkpointer:
            checkpoints.begins(instance)
    except Exception as fault:
        faults.note("langgraph.restore", fault)
    return wrapped(*args, **kwargs)


def _enter(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    try:
        parent = getattr(instance, "_attribkit_parent", None)
        for _ in range(_PARENTS):
            if not parent:
                break
            parent = checkpoints.restored_by(instance, instance.checkpointer.get_tuple(parent))
    except Exception as fault:
        faults.note("langgraph.restore", fault)
    return result


async def _aenter(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await wrapped(*args, **kwargs)
    try:
        parent = getattr(instance, "_attribkit_parent", None)
        for _ in range(_PARENTS):
            if not parent:
                break
            parent = checkpoints.restored_by(instance, await instance.checkpointer.aget_tuple(parent))
    except Exception as fault:
        faults.note("langgraph.restore", fault)
    return result


def _put_checkpoint(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        if instance.checkpointer:
            checkpoints.write(instance, args[0] if args else kwargs["metadata"])
    except Exception as fault:
        faults.note("langgraph.checkpoint", fault)
    return wrapped(*args, **kwargs)


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
        *(
            row("langgraph.pregel.remote", f"RemoteGraph.{name}", made_here)
            for name in ("stream", "astream", "ainvoke")
        ),
    )
