"""What a probe works with: its tenants, whose prompts carry a marker, and what is expected of each marker."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from attribkit.errors import AttribkitError

__all__ = ["MARKER", "Expectation", "Lab", "NotHere", "Tenant"]

MARKER = re.compile(rb"vk[0-9a-f]{12}z")
_NAMES = ("acme", "globex", "initech", "umbrella")


class NotHere(AttribkitError):
    """Raised by a probe that cannot run on this system; the message says why."""


class Expectation(NamedTuple):
    """What has to hold for the requests whose body has the marker."""

    marker: str
    tenant_id: str | None
    """None: the work is for nobody, and may name no tenant."""
    workflow_id: str | None
    requests: int
    """How many attempts have to leave."""
    keep: tuple[str, ...]
    """Texts in the user's own headers that have to arrive too."""
    recorded: bool = True
    """False where the row comes with the result, later: only the wire is compared."""


class Tenant:
    """One customer of the imagined app. `fields` is what its requests open a scope with."""

    def __init__(self, lab: Lab, tenant_id: str | None, workflow_id: str | None) -> None:
        self._lab, self.tenant_id, self.workflow_id = lab, tenant_id, workflow_id

    @property
    def fields(self) -> dict[str, str]:
        """The fields of this tenant's scope."""
        return {"tenant_id": self.tenant_id or "", "workflow_id": self.workflow_id or "", "feature": "verify"}

    def ask(
        self,
        text: str = "Summarise the ticket.",
        *,
        requests: int = 1,
        keep: tuple[str, ...] = (),
        recorded: bool = True,
    ) -> str:
        """Return a prompt for this tenant. `requests` attempts with it have to leave, each for this tenant alone."""
        marker = f"vk{secrets.token_hex(6)}z"
        self._lab.expected.append(Expectation(marker, self.tenant_id, self.workflow_id, requests, keep, recorded))
        return f"{text} ({marker})"


class Lab:
    """One run of one probe."""

    def __init__(self, gateway_url: str, names: tuple[str, ...] = ()) -> None:
        self.url = gateway_url
        self.expected: list[Expectation] = []
        self._names = names
        self._lock = threading.Lock()
        self._made = 0

    def tenant(self) -> Tenant:
        """Return another tenant."""
        with self._lock:
            number = self._made
            self._made += 1
        if number < len(self._names):
            name = self._names[number]
        else:
            name = f"{_NAMES[number % len(_NAMES)]}-{secrets.token_hex(4)}"
        return Tenant(self, name, f"wf-{secrets.token_hex(6)}")

    def tenants(self, count: int) -> list[Tenant]:
        """Return `count` tenants."""
        return [self.tenant() for _ in range(count)]

    def nobody(self) -> Tenant:
        """Return what asks for work that belongs to no tenant."""
        return Tenant(self, None, None)

    def until(self, condition: Callable[[], Any], seconds: float = 8.0) -> None:
        """Wait until `condition()` is true; TimeoutError after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("what this program waits for did not happen")
            time.sleep(0.005)
