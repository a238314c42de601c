"""Makes a span current for a while, and puts back what was current before, in whichever Context that happens."""

from __future__ import annotations

from typing import Any

__all__ = ["Nested", "enter", "leave"]


_context: Any = None
_set_span_in_context: Any = None


def _load() -> Any:
    """Import the API once; an import statement on each step costs as much as the step."""
    global _context, _set_span_in_context
    from opentelemetry import context
    from opentelemetry.trace import set_span_in_context

    _context, _set_span_in_context = context, set_span_in_context
    return context


Nested = tuple[Any, Any, Any]
"""What `leave` needs to undo one `enter`: the token, what was entered, and what was before."""


def enter(span: Any) -> Nested:
    """Make `span` the current span: spans that start from now on become its children."""
    context = _context or _load()
    before = context.get_current()
    entered = _set_span_in_context(span, before)
    return context.attach(entered), entered, before


def leave(nested: Nested) -> None:
    """Put back what was current before.

    A token of another Context (a generator closed elsewhere, a task's copy) is of no use, and `context.detach` would
    log a stack trace for it: there, what was current before is set again if ours is still in force, and anything else
    is left alone.
    """
    token, entered, before = nested
    context = _context or _load()
    runtime = getattr(context, "_RUNTIME_CONTEXT", None)
    if runtime is not None:
        try:
            runtime.detach(token)
            return
        except Exception:
            pass
    if context.get_current() is entered:
        context.attach(before)
