"""Attribution as span attributes: made once for each attribution, and put on a span at little cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attribkit.attribution import Attribution
from attribkit.telemetry.names import ALIASES, FIELD_PREFIX

__all__ = ["AttributionAttributes", "put", "text"]

_MAX_CACHED = 1024
_bounded_attributes: Any = None


def text(value: str) -> str:
    """Return `value` as what UTF-8 can carry: one lone surrogate would cost an exporter its whole batch."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


class AttributionAttributes:
    """Turns an attribution into span attributes: `attribkit.` + field, and the aliases. Remembers what it made.

    `seen_as` may change what spans get to see (pseudonyms, fewer fields); it runs once for each attribution.
    """

    def __init__(
        self,
        aliases: Mapping[str, str] = ALIASES,
        seen_as: Callable[[Attribution], Attribution] | None = None,
    ) -> None:
        self.aliases = dict(aliases)
        self._seen_as = seen_as
        self._made: dict[Attribution, dict[str, str]] = {}
        self._last: tuple[Attribution | None, dict[str, str]] = (None, {})

    def __call__(self, attribution: Attribution) -> dict[str, str]:
        """Return the attributes of `attribution`. The dict is shared: it must not be changed."""
        last = self._last
        if last[0] is attribution:
            return last[1]
        made = self._made.get(attribution)
        if made is None:
            made = self._make(attribution)
        self._last = (attribution, made)
        return made

    def seen(self, attribution: Attribution) -> Attribution:
        """Return what telemetry may know of `attribution`."""
        return attribution if self._seen_as is None else self._seen_as(attribution)

    def _make(self, attribution: Attribution) -> dict[str, str]:
        made = {}
        for field, value in self.seen(attribution).fields:
            value = text(value)
            made[FIELD_PREFIX + field] = value
            alias = self.aliases.get(field)
            if alias is not None:
                made[alias] = value
        if len(self._made) >= _MAX_CACHED:
            self._made.clear()
        self._made[attribution] = made
        return made


def put(span: Any, items: Mapping[str, Any]) -> None:
    """Set clean attributes (str, int, float, bool) on a recording span.

    The SDK checks, copies and locks for each attribute (about 6,000 instructions on 1.45: twenty of them cost more than
    the span). What we set is clean already, so where the span is the SDK's own and bounds no lengths, they go into its
    store in one step; any other span gets `set_attributes`.
    """
    global _bounded_attributes
    if _bounded_attributes is None:
        from opentelemetry.attributes import BoundedAttributes

        _bounded_attributes = BoundedAttributes
    try:
        store = span._attributes
        if type(store) is _bounded_attributes and store.max_value_len is None and not store._immutable:
            most = store.maxlen
            with store._lock:
                held = store._dict
                if most is None or len(held) + len(items) <= most:
                    held.update(items)
                    return
    except AttributeError:
        pass
    span.set_attributes(items)
