"""An item on its way to another process, with the fields of the scope in which it was put.

It arrives as the item itself, also where attribkit is not turned on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Fields", "Parcel", "arrivals"]

Fields = tuple[tuple[str, str], ...]
_thread = threading.local()


class Parcel:
    """What is pickled in the item's place."""

    __slots__ = ("fields", "item")

    def __init__(self, item: object, fields: Fields) -> None:
        self.item = item
        self.fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        return _delivered, (self.item, self.fields)


def _delivered(item: object, fields: Fields) -> object:
    arrived = getattr(_thread, "arrived", None)
    if arrived is not None:
        arrived.append((item, fields))
    return item


@contextmanager
def arrivals() -> Iterator[list[tuple[object, Fields]]]:
    """Collect what this thread unpickles in the block, with its fields."""
    before = getattr(_thread, "arrived", None)
    arrived: list[tuple[object, Fields]] = []
    _thread.arrived = arrived
    try:
        yield arrived
    finally:
        _thread.arrived = before
