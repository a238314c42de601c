"""What rides in the message of a job queue: the carrier, as text, and the scope that it opens in the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.context import EMPTY, Scope, in_force, restored
from attribkit.late import Late

if TYPE_CHECKING:
    from attribkit import wire
else:
    wire = Late("attribkit.wire")

__all__ = ["HEADER", "Messages"]

HEADER = "attribkit"
"""The header, or option, of a message that holds the carrier."""


class Messages:
    """Writes and reads carriers of jobs; signed for one job's name when there is a key. A job may wait for weeks: no
    carrier is too old."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def text(self, queue: str, job: object) -> str | None:
        """Return the carrier of what is in force for a job of this name, None when there is nothing to say."""
        attribution = in_force().attribution
        if not attribution:
            return None
        carrier: dict[str, str] = {}
        wire.inject(carrier, attribution, key=self._key, audience=f"{queue}:{job}")
        return carrier.get("baggage")

    def scope(self, text: object, queue: str, job: object) -> Scope:
        """Return the scope that a job runs in. One that nobody, or nobody credible, speaks for has none: whatever the
        worker was started in is not the job's."""
        if not isinstance(text, str) or not text:
            return EMPTY
        found = wire.extract({"baggage": text}, key=self._key, audience=f"{queue}:{job}")
        return Scope(found, "extracted") if found else EMPTY

    def performed(self, queue: str, said: Callable[..., tuple[object, object]]) -> Callable[..., Any]:
        """Return a wrapper around what performs a job in the worker: the job's scope is in force there.

        `said(instance, *args, **kwargs)` gives the text that rides with the job, and the job's name.
        """

        def perform(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            scope = EMPTY
            try:
                text, job = said(instance, *args, **kwargs)
                scope = self.scope(text, queue, job)
            except Exception as fault:
                faults.note(f"{queue}.performed", fault)
            with restored(scope):
                return wrapped(*args, **kwargs)

        return perform
