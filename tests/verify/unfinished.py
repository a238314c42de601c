"""Hops whose patches are there, and that this version is known to lose all the same."""

from __future__ import annotations

UNFINISHED = frozenset({"asyncio/generators_with_scopes", "langchain/stream_outside"})
