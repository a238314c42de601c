"""What the loopback gateway writes down: every request as it arrived, and its own spend log."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from attribkit.testing.httpd import Request
from attribkit.testing.tokens import Tokens

__all__ = ["Charge", "Journal", "attribution_in"]

KEPT = 100_000
_MILLION = Decimal(1_000_000)


class Charge(NamedTuple):
    """What one reply is billed for."""

    model: str
    tier: str | None
    tokens: Tokens
    batch: bool = False
    owner: tuple[tuple[str, str], ...] | None = None
    """Who it is for; None: whoever this request's headers name."""


@cache
def _prices() -> dict[str, Any]:
    return dict(json.loads(files("attribkit.testing").joinpath("prices.json").read_text()))


def _usd(charge: Charge) -> Decimal | None:
    """Price a charge by the gateway's own list; None for a model that is not in it.

    The list and this function are the gateway's, not attribkit's price engine: the two can be held against each other.
    """
    card = _prices()["models"].get(charge.model)
    if card is None:
        return None
    if charge.tier in ("flex", "priority"):
        card = card.get(charge.tier)
        if card is None:
            return None
    t = charge.tokens
    usd = (
        Decimal(card["input"]) * (t.input - t.cached)
        + Decimal(card.get("cached", "0")) * t.cached
        + Decimal(card.get("output", "0")) * t.output
    ) / _MILLION
    return usd / 2 if charge.batch else usd


def _strings(fields: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(fields, dict):
        return ()
    return tuple((str(k), v if isinstance(v, str) else json.dumps(v)) for k, v in fields.items())


def attribution_in(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return what a request's headers say about who it is for, as a gateway's log would keep it.

    Read are x-portkey-metadata, x-litellm-spend-logs-metadata, cf-aig-metadata and x-tfy-metadata (JSON),
    x-litellm-tags (key:value, comma list) and helicone-property-*. What cannot be parsed says nothing.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name in ("x-portkey-metadata", "x-litellm-spend-logs-metadata", "cf-aig-metadata", "x-tfy-metadata"):
            try:
                found.update(_strings(json.loads(value)))
            except ValueError:
                continue
        elif name == "x-litellm-tags":
            for tag in value.split(","):
                key, colon, text = tag.strip().partition(":")
                if colon:
                    found.setdefault(key, text)
        elif name.startswith("helicone-property-"):
            found[name.removeprefix("helicone-property-").replace("-", "_")] = value
    return tuple(found.items())


class Journal:
    """Requests in the order of their arrival, and charges in the order in which they were made."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._charges: list[tuple[tuple[tuple[str, str], ...], Charge, Decimal | None]] = []
        self._seq = 0

    def clear(self) -> None:
        """Forget requests and charges. Sequence numbers go on."""
        self._entries.clear()
        self._charges.clear()

    def arrived(self, request: Request) -> dict[str, Any]:
        """Write a request down and return its entry, to be completed when the answer is known."""
        self._seq += 1
        entry: dict[str, Any] = {
            "seq": self._seq,
            "time": time.time(),
            "connection": request.connection,
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "status": None,
            "outcome": "open",
            "chunks": 0,
            "response_id": None,
            "model": None,
            "tier": None,
            "usage": None,
            "cost_usd": None,
        }
        try:
            entry["body"] = request.body.decode("utf-8")
        except UnicodeDecodeError:
            entry["body_base64"] = base64.b64encode(request.body).decode()
        self._entries.append(entry)
        return entry

    def charge(self, charge: Charge, owner: tuple[tuple[str, str], ...]) -> str | None:
        """Add to the spend log; return the cost in USD as text, None when the list has no price."""
        usd = _usd(charge)
        self._charges.append((charge.owner if charge.owner is not None else owner, charge, usd))
        return None if usd is None else format(usd.normalize(), "f")

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Return the entries after number `seq`."""
        return [entry for entry in self._entries if entry["seq"] > seq]

    def spend(self, by: Iterable[str]) -> dict[str, Any]:
        """Return the spend log added up by metadata keys; what lacks a key stands under null."""
        keys = tuple(by)
        groups: dict[tuple[str | None, ...], dict[str, Any]] = {}
        total = _empty()
        for owner, charge, usd in self._charges:
            known: Mapping[str, str] = dict(owner)
            group = groups.setdefault(tuple(known.get(key) for key in keys), _empty())
            for row in (group, total):
                row["calls"] += 1
                row["input_tokens"] += charge.tokens.input
                row["output_tokens"] += charge.tokens.output
                row["unpriced_calls"] += usd is None
                row["cost_usd"] += usd or 0
        rows = [{**dict(zip(keys, names, strict=True)), **row} for names, row in groups.items()]
        rows.sort(key=lambda row: row["cost_usd"], reverse=True)
        for row in (*rows, total):
            row["cost_usd"] = format(row["cost_usd"].normalize(), "f")
        return {"rows": rows, "total": total}


def _empty() -> dict[str, Any]:
    return {"calls": 0, "input_tokens": 0, "output_tokens": 0, "unpriced_calls": 0, "cost_usd": Decimal(0)}
