"""`capture()`: attribkit over an in-memory ledger and the loopback gateway, for the length of a test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attribkit.calls import CallRecord
from attribkit.errors import ConfigurationError
from attribkit.testing.process import CapturedRequest, Gateway

if TYPE_CHECKING:
    from attribkit.ledger.memory import MemoryLedger

__all__ = ["Capture", "capture"]


class Capture:
    """What a test can look at: what reached the gateway, and what was recorded."""

    def __init__(self, gateway: Gateway, ledger: MemoryLedger, dialect: str) -> None:
        self.gateway, self.ledger, self._dialect = gateway, ledger, dialect
        self.url, self.base_url = gateway.url, gateway.base_url
        self._forgotten = 0

    @property
    def records(self) -> tuple[CallRecord, ...]:
        """One record for each attempt on the wire, in the order in which they ended."""
        return tuple(self.ledger.calls[self._forgotten :])

    @property
    def requests(self) -> list[CapturedRequest]:
        """Every request that reached the gateway, in the order of arrival."""
        return self.gateway.requests()

    def clear(self) -> None:
        """Forget records, requests, spend and posted behaviours. `ledger` itself keeps its rows."""
        self._forgotten = len(self.ledger.calls)
        self.gateway.reset()

    def assert_attributed(self, *names: str, **fields: str) -> None:
        """Assert that there was a model call, and that each carries `fields`, and any value for each of `names`.

        Looked at are the records and, where the dialect says all fields in headers (Portkey, LiteLLM, TrueFoundry),
        what the gateway was told with each.
        AssertionError names each call that lacks something, with what it has.
        """
        records = self.records
        if not records:
            raise AssertionError("no model call was recorded")
        wanted: dict[str, str | None] = {**dict.fromkeys(names), **fields}
        wrong = []
        for number, record in enumerate(records, 1):
            have = record.attribution.as_dict()
            for fault in _faults(wanted, have):
                wrong.append(f"call {number} of {len(records)} ({record.api} {record.requested_model}): {fault}")
        if self._dialect in ("portkey", "litellm", "truefoundry"):
            known = {record.response_id for record in records if record.response_id}
            for request in self.requests:
                if request.response_id in known and request.method == "POST":
                    for fault in _faults(wanted, request.attribution):
                        wrong.append(f"request {request.seq} {request.method} {request.path}, on the wire: {fault}")
        if wrong:
            raise AssertionError("\n".join(("calls without the attribution they should have:", *wrong)))


def _faults(wanted: dict[str, str | None], have: dict[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        found = have.get(name)
        # A gateway's limit may have shortened a long value, so only what certainly fits is compared in full.
        if found is None:
            yield f"no {name}"
        elif value is not None and found != value and (len(value) <= 64 or found[:48] != value[:48]):
            yield f"{name}={found!r}, not {value!r}"


_shared: tuple[int, Gateway] | None = None
_lock = threading.Lock()


def _gateway() -> Gateway:
    """Return this process's gateway, started when first asked for and ended with the process."""
    global _shared
    with _lock:
        if _shared is None or _shared[0] != os.getpid() or not _shared[1].running:
            _shared = (os.getpid(), Gateway())
        return _shared[1]


@contextmanager
def capture(*, dialect: str = "portkey", **settings: Any) -> Iterator[Capture]:
    """Run attribkit on the loopback gateway with an in-memory ledger; take it off again at the end.

    `settings` are those of `attribkit.instrument()`, save `ledger`. `dialect` is how the gateway is told who a call is
    for. The gateway's process is started once and shared by all captures of this process; each begins with it empty.
    attribkit that runs already is taken off meanwhile, and put back on as it was. One capture at a time.
    """
    from attribkit import runtime
    from attribkit.ledger.memory import MemoryLedger

    if "ledger" in settings:
        raise ConfigurationError("capture() keeps its own ledger in memory: leave ledger= out", name="ledger")
    gateway = _gateway()
    gateway.reset()
    ledger = MemoryLedger()
    before = runtime.active()
    runtime.uninstrument()
    try:
        gateways = {gateway.url: dialect, **settings.pop("gateways", {})}
        runtime.instrument({**settings, "gateways": gateways, "ledger": ledger})
        yield Capture(gateway, ledger, dialect)
    finally:
        runtime.uninstrument()
        if before is not None:
            runtime.instrument(before.keywords)
