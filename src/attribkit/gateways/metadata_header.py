"""What targets have in common that read the whole attribution from one JSON header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import Headers, Silent
from attribkit.gateways.fitting import HEADER_ROOM, PER_HEADER, entries, json_object

__all__ = ["MetadataHeader"]


class MetadataHeader(Silent):
    header: ClassVar[str]
    max_value: ClassVar[int] = 1024
    """Characters of a value."""
    most: ClassVar[int] = 1 << 30
    """Entries."""
    max_header: ClassVar[int] = HEADER_ROOM
    """Bytes of the header's value."""

    def _entries(self, attribution: Attribution) -> list[tuple[str, str]]:
        return entries(attribution, self.order)

    def _metadata(self, attribution: Attribution) -> tuple[str, tuple[str, ...]]:
        room = min(self.max_header, HEADER_ROOM - len(self.header) - PER_HEADER)
        return json_object(self._entries(attribution), limit=self.max_value, room=room, most=self.most)

    def headers(self, attribution: Attribution) -> Headers:
        return ((self.header, self._metadata(attribution)[0]),) if attribution else ()

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return self._metadata(attribution)[1]
