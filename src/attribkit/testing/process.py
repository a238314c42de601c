"""The loopback gateway as a process of its own, seen from a test."""

from __future__ import annotations

import atexit
import base64
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

from attribkit.testing.journal import attribution_in

__all__ = ["CapturedRequest", "Gateway", "SpendRow"]

_SOURCE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class CapturedRequest:
    """One request as it reached the gateway, with what was answered."""

    seq: int
    """Counts the gateway's requests; never starts again."""
    time: float
    """Arrival, Unix seconds."""
    connection: int
    """Counts the gateway's connections: equal numbers mean keep-alive."""
    method: str
    target: str
    """Path and query as sent."""
    headers: tuple[tuple[str, str], ...]
    """Raw and in order."""
    body: bytes
    status: int | None
    """The status answered; None while the answer is held back."""
    outcome: str
    """open (not answered yet), answered, refused, hung, dropped (by the gateway), left (by the client)."""
    chunks: int
    """Events of a stream that were sent."""
    response_id: str | None
    model: str | None
    """The model that was named in the answer."""
    tier: str | None
    """The service tier that was named in the answer."""
    usage: Any
    """The usage object of the answer, also where a stream was not asked for it."""
    cost_usd: Decimal | None
    """What the gateway's own price list makes of it; None where it charged nothing or knows no price."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """Return the first header called `name`, in any case; None when there is none."""
        values = self.header_values(name)
        return values[0] if values else None

    def header_values(self, name: str) -> list[str]:
        """Return the values of every header called `name`, in any case."""
        name = name.lower()
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def json(self) -> Any:
        """The body read as JSON; ValueError when it is none."""
        return json.loads(self.body)

    @property
    def attribution(self) -> dict[str, str]:
        """Who the request is for, as its headers say in the dialect of Portkey, LiteLLM, Helicone, Cloudflare or
        TrueFoundry; {} when they say nothing."""
        return dict(attribution_in(self.headers))


@dataclass(frozen=True, slots=True)
class SpendRow:
    """One line of the gateway's own spend log."""

    names: tuple[str | None, ...]
    """The values of the metadata keys that were asked for; None where a request did not name one."""
    calls: int
    input_tokens: int
    output_tokens: int
    unpriced_calls: int
    cost_usd: Decimal


class Gateway:
    """Starts the loopback gateway in a process of its own, and ends it.

    Use it as a context manager, or call `close()`. The process also ends when the one that started it does. With
    `relay_to` (a URL) it answers nothing itself: it sends every request on to that gateway and writes both sides down.
    """

    def __init__(self, *, port: int = 0, relay_to: str | None = None) -> None:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("ATTRIBKIT_", "OTEL_", "COV_"))
        }
        path = [str(_SOURCE), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        command = [sys.executable, "-m", "attribkit.testing.gateway", "--port", str(port), "--parent", str(os.getpid())]
        if relay_to is not None:
            command += ["--relay-to", relay_to]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment
        )
        self._owner = os.getpid()
        self._lock = threading.Lock()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(5)
            self._said.seek(0)
            said = self._said.read().decode("utf-8", "replace").strip()
            self._end()
            raise RuntimeError(f"the loopback gateway did not start: {said or 'it said nothing'}")
        ready = json.loads(line)
        self.url: str = ready["url"]
        """Without a path: "http://127.0.0.1:40123"."""
        self.port: int = ready["port"]
        self.base_url: str = f"{self.url}/v1"
        """What an OpenAI client takes as its base URL."""
        atexit.register(self.close)

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self) -> None:
        process = self._process
        for pipe in (process.stdin, process.stdout, self._said):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Stop the process and wait for its end. Does nothing the second time, or in a forked child."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._process.returncode is not None:
                return
            self._end()
        atexit.unregister(self.close)

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process.poll() is None

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/_control/{path}", text, {"connection": "close"})
            response = connection.getresponse()
            reply = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(reply["error"])
        return reply

    def requests(self, *, since: int = 0) -> list[CapturedRequest]:
        """Return the requests that arrived after number `since`, in the order of their arrival."""
        found = []
        for entry in self._ask("GET", f"requests?since={since}")["requests"]:
            encoded = entry.pop("body_base64", None)
            entry["body"] = base64.b64decode(encoded) if encoded is not None else entry["body"].encode()
            entry["headers"] = tuple((name, value) for name, value in entry["headers"])
            entry["cost_usd"] = None if entry["cost_usd"] is None else Decimal(entry["cost_usd"])
            found.append(CapturedRequest(**entry))
        return found

    def reset(self) -> None:
        """Forget requests, spend, behaviours and stored objects."""
        self._ask("POST", "reset", {})

    def behave(self, *, contains: str = "", path: str = "", count: int | None = None, **behaviour: Any) -> None:
        """Answer the next `count` requests (all, when None) otherwise: those whose body holds `contains` and whose path
        ends in `path`. The keywords are the fields of `attribkit.testing.behaviour.Behaviour`: `status=429`,
        `drop=3`, `html=502`, `usage={...}`, ... ValueError for one that is not there.
        """
        self._ask("POST", "behaviour", {"contains": contains, "path": path, "count": count, **behaviour})

    def spend(self, by: Iterable[str] = ("tenant_id", "workflow")) -> list[SpendRow]:
        """Return the gateway's own spend log by metadata keys, the largest first."""
        keys = tuple(by)
        rows = self._ask("GET", f"spend?by={','.join(keys)}")["rows"]
        return [
            SpendRow(
                tuple(row[key] for key in keys),
                row["calls"],
                row["input_tokens"],
                row["output_tokens"],
                row["unpriced_calls"],
                Decimal(row["cost_usd"]),
            )
            for row in rows
        ]
