"""What rides in the message of a job queue: the carrier, as text, and the scope that it opens in the worker."""

from __future__ import annotations

from attribkit import wire
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope

__all__ = ["HEADER", "Messages"]

HEADER = "attribkit"
"""The header, or option, of a message that holds the carrier."""


class Messages:
    """Writes and reads carriers of jobs; signed for one job's name when there is a key. A job may wait for weeks: no
    carrier is too old."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def text(self, attribution: Attribution, audience: str) -> str | None:
        """Return the carrier for a job, None when there is nothing to say."""
        if not attribution:
            return None
        carrier: dict[str, str] = {}
        wire.inject(carrier, attribution, key=self._key, audience=audience)
        return carrier.get("baggage")

    def scope(self, text: object, audience: str) -> Scope:
        """Return the scope that a job runs in. One that nobody, or nobody credible, speaks for has none: whatever the
        worker was started in is not the job's."""
        if not isinstance(text, str) or not text:
            return EMPTY
        found = wire.extract({"baggage": text}, key=self._key, audience=audience)
        return Scope(found, "extracted") if found else EMPTY
