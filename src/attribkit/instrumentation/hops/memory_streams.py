"""The memory streams of anyio: an item brings the scope in which it was sent, as one of a queue does.

Both ends and their clones share one state, beside which the scopes stand. `send` and `receive` call `send_nowait` and
`receive_nowait` where they need not wait; what they hand over otherwise passes neither.
"""

from __future__ import annotations

import sys
from typing import Any

from attribkit.context import EMPTY
from attribkit.context import scope as in_variable
from attribkit.instrumentation.hops.frames import user_of
from attribkit.instrumentation.hops.queues.notes import note_attempt, note_got, note_put
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]

_MODULE = "anyio.streams.memory"


def _by_stream() -> bool:
    """Return whether the stream's own `send` or `receive` calls."""
    return user_of(sys._getframe(2))[0] == _MODULE


def _send_nowait(wrapped: Any, stream: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    item = args[0] if args else kwargs.get("item")
    beside = None if _by_stream() else note_put(stream._state, item)
    if beside is None:
        return wrapped(*args, **kwargs)
    try:
        return wrapped(*args, **kwargs)
    except BaseException:
        beside.undo(item)
        raise


async def _send(wrapped: Any, stream: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    item = args[0] if args else kwargs.get("item")
    beside = note_put(stream._state, item)
    try:
        return await wrapped(*args, **kwargs)
    except BaseException:
        if beside is not None:
            beside.undo(item)
        raise


def _receive_nowait(wrapped: Any, stream: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _by_stream():
        return wrapped(*args, **kwargs)
    here = in_variable()
    if here is not EMPTY:
        note_attempt(stream._state, False)
    item = wrapped(*args, **kwargs)
    note_got(stream._state, item, here)
    return item


async def _receive(wrapped: Any, stream: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = in_variable()
    if here is not EMPTY:
        note_attempt(stream._state, False)
    item = await wrapped(*args, **kwargs)
    note_got(stream._state, item, here)
    return item


def patches() -> tuple[Patch, ...]:
    """Return the rows of anyio's memory streams."""

    def row(path: str, wrapper: Any) -> Patch:
        return Patch(_MODULE, path, wrapper, "queues", "anyio", hot=True)

    return (
        row("MemoryObjectSendStream.send_nowait", _send_nowait),
        row("MemoryObjectSendStream.send", _send),
        row("MemoryObjectReceiveStream.receive_nowait", _receive_nowait),
        row("MemoryObjectReceiveStream.receive", _receive),
    )
