"""attribkit's own faults: counted, logged once each, and never the app's problem."""

from __future__ import annotations

import threading

__all__ = ["counts", "note", "reset", "strict"]

_lock = threading.Lock()
_counts: dict[str, int] = {}
_strict = False


def strict(on: bool) -> None:
    """Raise our own faults instead of swallowing them. For attribkit's own tests."""
    global _strict
    _strict = on


def note(where: str, error: BaseException) -> None:
    """Count a fault of ours at `where` and log its first occurrence; the caller goes on as if we were not there.

    The log names the exception's type and place, not its message: that can hold content.
    """
    if _strict:
        raise error
    key = f"{where}: {type(error).__name__}"
    with _lock:
        seen = _counts.get(key, 0)
        _counts[key] = seen + 1
    if not seen:
        import logging

        trace, line = error.__traceback__, 0
        file = "?"
        while trace is not None:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
            trace = trace.tb_next
        logging.getLogger("attribkit").error(
            "%s in %s (%s:%d); the call goes on without it, and this is logged once",
            type(error).__name__,
            where,
            file,
            line,
        )


def counts() -> dict[str, int]:
    """Return how often each fault has happened, by place and type."""
    with _lock:
        return dict(_counts)


def reset() -> None:
    """Forget all faults."""
    with _lock:
        _counts.clear()
