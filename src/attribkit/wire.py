"""Attribution over process borders: W3C baggage entries, bounded, and signed when a key is set."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from attribkit.attribution import MAX_FIELDS, MAX_KEY, MAX_VALUE, Attribution

__all__ = ["MAX_BAGGAGE", "CarrierRefused", "audience_at", "extract", "holds", "inject", "refusals", "refuse"]

MAX_BAGGAGE = 8192
"""Bytes of a baggage header, as W3C Baggage sets them (https://www.w3.org/TR/baggage/#limits)."""

_PREFIX = "attribkit."
_SIGNATURE = "attribkit-signature"
_KEY = rf"[A-Za-z0-9_.\-]{{1,{MAX_KEY}}}\Z"
_ENCODED = r"(?:[A-Za-z0-9_.\-~]|%[0-9A-F]{2})+\Z"
_SAFE = "_.-~"
_SIGNED = r"([0-9]{1,12})\.([0-9a-f]{64})\Z"
_SKEW = 60
"""Seconds by which the clock of a sender may be ahead of ours."""

_lock = threading.Lock()
_refused: dict[str, int] = {}


class CarrierRefused(ValueError):
    """Why a carrier was not believed. Not raised to the app: `extract` counts it and returns nothing."""


def inject(
    carrier: MutableMapping[str, str] | MutableSequence[Any],
    attribution: Attribution,
    *,
    key: bytes | None = None,
    audience: str = "",
) -> None:
    """Write `attribution` into `carrier["baggage"]`, beside the entries of others that are there.

    A list of pairs, as Kafka clients take for headers, gets one pair; its value is bytes unless those there are text.
    With a `key` the entries are signed (HMAC-SHA-256) with the time, for `audience`: a receiver that expects another
    audience refuses them. Fields that do not fit in 8,192 bytes are left out from the end of the alphabet, and are not
    signed.
    """
    if isinstance(carrier, MutableSequence):
        _inject_into_list(carrier, attribution, key, audience)
        return
    name = next((each for each in carrier if each.lower() == "baggage"), "baggage")
    text = _written(carrier.get(name, ""), attribution, key, audience)
    if text:
        carrier[name] = text
    else:
        carrier.pop(name, None)


def _inject_into_list(
    carrier: MutableSequence[Any], attribution: Attribution, key: bytes | None, audience: str
) -> None:
    theirs = [pair for pair in carrier if _text(pair[0]).lower() == "baggage"]
    text = _written(",".join(_text(pair[1]) for pair in theirs), attribution, key, audience)
    first = theirs[0] if theirs else carrier[0] if carrier else ("", b"")
    name: Any = "baggage" if isinstance(first[0], str) else b"baggage"
    value: Any = text if isinstance(first[1], str) else text.encode()
    carrier[:] = [pair for pair in carrier if pair not in theirs]
    if text:
        carrier.append((name, value))


def _written(there: str, attribution: Attribution, key: bytes | None, audience: str) -> str:
    """Return the baggage header that says `attribution` beside the entries of others in `there`."""
    kept = [entry.strip() for entry in there.split(",") if entry.strip() and not _ours(entry)]
    room = MAX_BAGGAGE - sum(len(entry) + 1 for entry in kept) - 120
    entries = []
    for field, value in attribution.fields:
        entry = f"{_PREFIX}{field}={quote(value, safe=_SAFE, errors='replace')}"
        if len(entry) + 1 > room:
            break
        room -= len(entry) + 1
        entries.append(entry)
    if entries and key is not None:
        issued = str(int(time.time()))
        entries.append(f"{_SIGNATURE}={issued}.{_signed(entries, key, audience, issued)}")
    return ",".join([*entries, *kept])


def extract(
    carrier: Mapping[str, Any] | Iterable[tuple[str | bytes, Any]] | None,
    *,
    key: bytes | None = None,
    audience: str | tuple[str, ...] = "",
    max_age: float | None = None,
) -> Attribution:
    """Return the attribution that `carrier` holds, an empty one when it holds none.

    With a `key`, what is unsigned, signed otherwise or for none of the audiences, signed over `max_age` seconds ago,
    malformed or oversized is refused whole: the result is empty and the refusal is counted (`refusals`). Without one,
    malformed entries are refused whole too.
    """
    try:
        return _extracted(carrier, key, (audience,) if isinstance(audience, str) else audience, max_age)
    except CarrierRefused as refusal:
        refuse(str(refusal))
        return Attribution()


def refuse(reason: str) -> None:
    """Count a carrier that was not believed, and log the first one for each reason."""
    with _lock:
        first = reason not in _refused
        _refused[reason] = _refused.get(reason, 0) + 1
    if first:
        import logging

        logging.getLogger("attribkit").warning("a carrier was refused: %s; this is logged once", reason)


def holds(baggage: str) -> bool:
    """Tell whether a baggage header has entries of ours, whatever they are worth."""
    return any(_ours(entry) for entry in baggage.split(","))


def audience_at(host: str) -> str:
    """Return the audience that a carrier to `host`, or `host:port`, is signed for: as in the Host header of HTTP, lower
    case, without a default port."""
    host = host.strip().lower()
    for port in (":80", ":443"):
        if host.endswith(port) and (":" not in host.removesuffix(port) or host.removesuffix(port).endswith("]")):
            host = host.removesuffix(port)
    return host.removesuffix(".")


def refusals() -> dict[str, int]:
    """Return how many carriers were refused, by reason."""
    with _lock:
        return dict(_refused)


def _ours(entry: str) -> bool:
    return entry.strip().startswith((_PREFIX, _SIGNATURE))


def _extracted(carrier: Any, key: bytes | None, audiences: tuple[str, ...], max_age: float | None) -> Attribution:
    pairs = carrier.items() if isinstance(carrier, Mapping) else carrier or ()
    header = ",".join(_text(value) for name, value in pairs if _text(name).lower() == "baggage")
    entries = [entry.strip() for entry in header.split(",") if _ours(entry)]
    if not entries:
        return Attribution()
    if len(header) > MAX_BAGGAGE:
        raise CarrierRefused("over 8,192 bytes")
    signatures = [entry for entry in entries if entry.startswith(_SIGNATURE)]
    fields = [entry for entry in entries if not entry.startswith(_SIGNATURE)]
    if len(fields) > MAX_FIELDS:
        raise CarrierRefused(f"over {MAX_FIELDS} fields")
    if key is not None:
        if len(signatures) != 1:
            raise CarrierRefused("not signed" if not signatures else "signed more than once")
        _check(signatures[0].removeprefix(f"{_SIGNATURE}="), fields, key, audiences, max_age)
    found: dict[str, str] = {}
    for entry in fields:
        name, separator, value = entry.removeprefix(_PREFIX).partition("=")
        if not separator or not re.match(_KEY, name) or not re.match(_ENCODED, value) or name in found:
            raise CarrierRefused("malformed")
        try:
            text = unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise CarrierRefused("malformed") from None
        if len(text) > MAX_VALUE:
            raise CarrierRefused(f"a value over {MAX_VALUE} characters")
        found[name] = text
    return Attribution.of(found)


def _check(signature: str, fields: list[str], key: bytes, audiences: tuple[str, ...], max_age: float | None) -> None:
    found = re.match(_SIGNED, signature)
    if found is None:
        raise CarrierRefused("its signature is malformed")
    issued, digest = found.groups()
    if not any(hmac.compare_digest(_signed(fields, key, each, issued), digest) for each in audiences):
        raise CarrierRefused("the signature does not fit its fields and audience")
    if max_age is not None and not -_SKEW <= time.time() - int(issued) <= max_age:
        raise CarrierRefused("it was signed too long ago, or by a clock that is ahead of ours")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _signed(entries: list[str], key: bytes, audience: str, issued: str) -> str:
    message = "\n".join(["attribkit-1", audience, issued, *sorted(entries)])
    return hmac.new(key, message.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
