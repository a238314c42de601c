"""What this version is known to lose all the same."""

from __future__ import annotations

UNFINISHED = frozenset[str]()
"""Hops whose patches are there, and that leak."""
