"""Kinds of LangChain models: which of them stand on a client that a patch sees."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Kinds"]


class Kinds:
    """What has been learnt of the kinds of models. One an `instrument()`."""

    def __init__(self) -> None:
        self.below: dict[tuple[type, bool], bool] = {}
        """Kinds of model, streaming or not, below which operations have begun; True for those of an integration
        package, where it stays so: they need no meter."""

    def seen_below(self, model: Any, stream: bool) -> bool:
        """Return whether a patched client is known to see all calls of this kind of model."""
        return self.below.get((type(model), stream), False) and not _cache_in_use(model)

    def begun_below(self, model: Any, stream: bool) -> bool:
        """Return whether one has seen a call of this kind of model, and will see the next."""
        return (type(model), stream) in self.below and not _cache_in_use(model)

    def learn(self, model: Any, stream: bool) -> None:
        """A patched client has seen a call of this kind of model."""
        kind = type(model)
        if (kind, stream) not in self.below:
            self.below[kind, stream] = kind.__module__.startswith("langchain_")


_globals: Any = None
"""LangChain's module of settings, once it is imported."""


def _cache_in_use(model: Any) -> bool:
    global _globals
    cache = getattr(model, "cache", None)
    if cache is not None:
        return cache is not False
    if _globals is None:
        _globals = sys.modules.get("langchain_core.globals")
    try:
        return _globals._llm_cache is not None
    except AttributeError:
        return False
