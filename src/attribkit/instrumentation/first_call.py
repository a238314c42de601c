"""Wrappers whose room is loaded with the first call of one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attribkit import faults
from attribkit.instrumentation.patching import Wrapper

__all__ = ["FirstCall"]


class FirstCall:
    """Makes the object whose methods are the wrappers: once, at the first call of one of them."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: list[Any] = []

    def wrapper(self, name: str) -> Wrapper:
        """Return a wrapper that calls the method of this name. Where that cannot be loaded, the call goes on alone."""
        around: Wrapper | None = None

        def first(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal around
            if around is None:
                try:
                    around = getattr(self.one(), name)
                except Exception as fault:
                    faults.note(f"patches.{name}", fault)
                    return wrapped(*args, **kwargs)
            return around(wrapped, instance, args, kwargs)

        return first

    def one(self) -> Any:
        """Return that object."""
        if not self._made:
            self._made.append(self._make())  # of two that are made at a time the first counts
        return self._made[0]
