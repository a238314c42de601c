"""The frames of the running stack, and who of the app stands on it."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType

__all__ = ["OURS", "frames_above", "module_of", "user_of"]

OURS = ("wrapt", "attribkit.context", "attribkit.instrumentation.")


def frames_above(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of the running stack, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def module_of(frame: FrameType) -> str:
    """Return the name of the module whose code runs in a frame, "" where it has none."""
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def user_of(frame: FrameType | None) -> tuple[str, str]:
    """Return the module and the function that call, attribkit's own left out."""
    while frame is not None and module_of(frame).startswith(OURS):
        frame = frame.f_back
    return ("", "") if frame is None else (module_of(frame), frame.f_code.co_name)
