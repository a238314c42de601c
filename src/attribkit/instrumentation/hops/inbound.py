"""What the carrier of an inbound request is worth: the one rule that all doors into a service share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from attribkit import faults, wire
from attribkit.context import Scope
from attribkit.settings import Settings

__all__ = ["Inbound"]

_MAX_AGE = 300.0


class Started(Protocol):
    """What a door asks of the attribkit that runs."""

    settings: Settings
    carrier_key: bytes | None


class Inbound:
    """Reads carriers with the given key and audience, by default those of the attribkit that `active()` returns."""

    def __init__(
        self,
        active: Callable[[], Started | None],
        key: str | bytes | None = None,
        audience: str | tuple[str, ...] | None = None,
    ) -> None:
        self._active = active
        self._key = key.encode() if isinstance(key, str) else key
        self._audience = (audience,) if isinstance(audience, str) else audience

    def scope(self, carrier: Iterable[tuple[str | bytes, Any]], host: Callable[[], str]) -> Scope | None:
        """Return the scope that a carrier opens, None when it holds nothing or is refused. Never raises.

        `host()` is the name by which the caller reached us, the audience where no other is set.
        """
        try:
            active = self._active()
            key, audience = self._key, self._audience
            max_age: float | None = _MAX_AGE
            if active is not None:
                key = key or active.carrier_key
                audience = audience or active.settings.audience
                max_age = active.settings.carrier_max_age
                if key is None and wire.extract(carrier):
                    wire.refuse("there is no carrier_key to check it with")
            if key is None:
                return None
            audiences = tuple(wire.audience_at(name) for name in audience or (host(),))
            found = wire.extract(carrier, key=key, audience=audiences, max_age=max_age)
            return Scope(found, "extracted") if found else None
        except Exception as fault:
            faults.note("inbound", fault)
            return None
