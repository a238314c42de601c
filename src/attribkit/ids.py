"""Time-ordered identifiers: UUID version 7 (RFC 9562), unique over processes and forks."""

from __future__ import annotations

import os
import random
import time

__all__ = ["new_id"]

# An own generator: an app that calls random.seed() must not make two processes draw the same ids.
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """Return a fresh id as 32 hex digits; ids of one process sort by the millisecond, and nearly always below it."""
    ns = time.time_ns()
    ms = ns // 1_000_000
    high = ms << 16 | 0x7000 | (ns - ms * 1_000_000) >> 8  # 12 bits of what is below the millisecond
    return (high << 64 | 0x8000_0000_0000_0000 | _random.getrandbits(62)).to_bytes(16, "big").hex()
