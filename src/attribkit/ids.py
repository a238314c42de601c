"""Time-ordered identifiers: UUID version 7 (RFC 9562), unique over processes and forks."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from struct import Struct
from time import time_ns

__all__ = ["new_id"]

_pack = Struct(">Qq").pack
_low: Callable[[], int]
_high: int


def _begin() -> None:
    """Draw what this process's ids have in common: 12 random bits, and 61 from which their low halves count up.
    Counting costs a fifth of drawing each time. A signed half has the variant of the RFC, and counts faster."""
    global _high, _low
    drawn = int.from_bytes(os.urandom(10), "big")
    _high = 0x7000 | drawn >> 68
    _low = count((drawn & (1 << 61) - 1) - (1 << 63)).__next__


_begin()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


def new_id() -> str:
    """Return a fresh id as 32 hex digits; ids of one process sort as they were made, while the clock goes forward."""
    return _pack(time_ns() // 1_000_000 << 16 | _high, _low()).hex()
