"""Helicone: one header for each property, session headers, and a request id that the caller may choose.

docs.helicone.ai/helicone-headers/header-directory, /features/sessions (a session needs its id, name and path),
/helicone-headers/predefining-request-id (a UUID). Property names are header names: an underscore becomes a dash, since
common proxies drop headers with underscores. Limits of values are not documented; ours is 256 characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import CallIds, Headers, Silent
from attribkit.gateways.fitting import HEADER_ROOM, PER_HEADER, entries, fitted, in_text, text_writer
from attribkit.gateways.service_tiers import asked

__all__ = ["Helicone"]

_LIMIT = 256
_in_path = text_writer("/")


class Helicone(Silent):
    name: ClassVar[str] = "helicone"
    request_id_header: ClassVar[str | None] = "helicone-id"

    def _said(self, attribution: Attribution) -> tuple[Headers, tuple[str, ...]]:
        said: dict[str, str] = {}
        left: list[str] = []
        room = HEADER_ROOM
        for key, value in entries(attribution, self.order):
            text = fitted(value, _LIMIT, in_text)
            if key == "user_id":
                new = {"helicone-user-id": text}
            elif key == "session_id":
                new = self._session(text, attribution)
            else:
                name = "helicone-property-" + key.lower().replace("_", "-")
                new = {name: text}
                if key == "workflow_id" and attribution.get("session_id") is None:
                    new |= self._session(text, attribution)
            cost = sum(len(name) + len(text) + PER_HEADER for name, text in new.items())
            if cost > room or new.keys() & said.keys():
                left.append(key)
            else:
                room -= cost
                said |= new
        return tuple(said.items()), tuple(left)

    def _session(self, session_id: str, attribution: Attribution) -> dict[str, str]:
        """Return a session's three headers. The run of a workflow is one where the app names no session."""
        workflow = attribution.get("workflow") or "session"
        steps = (workflow, attribution.get("agent"))
        return {
            "helicone-session-id": session_id,
            "helicone-session-name": fitted(workflow, _LIMIT, in_text),
            "helicone-session-path": "".join(f"/{fitted(step, _LIMIT, _in_path)}" for step in steps if step),
        }

    def headers(self, attribution: Attribution) -> Headers:
        return self._said(attribution)[0]

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return self._said(attribution)[1]

    def call_headers(self, ids: CallIds) -> Headers:
        return (("helicone-request-id", ids.call_id),)

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked(self.tiers.get(tier, tier), api, body)
