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
    """Return a fresh id; ids of one process sort by the millisecond, and nearly always below it."""
    ns = time.time_ns()
    bits = _random.getrandbits(62)
    ms, below = divmod(ns, 1_000_000)
    text = f"{ms:012x}7{below * 4096 // 1_000_000:03x}{0x8000000000000000 | bits:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
