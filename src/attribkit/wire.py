"""Attribution over process borders: W3C baggage entries, bounded, and signed when a key is set."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Iterable, Mapping, MutableMapping
from urllib.parse import quote, unquote_to_bytes

from attribkit.attribution import MAX_FIELDS, MAX_KEY, MAX_VALUE, Attribution

__all__ = ["MAX_BAGGAGE", "CarrierRefused", "extract", "inject", "refusals"]

MAX_BAGGAGE = 8192
"""Bytes of a baggage header, as W3C Baggage sets them (https://www.w3.org/TR/baggage/#limits)."""

_PREFIX = "attribkit."
_SIGNATURE = "attribkit-signature"
_KEY = re.compile(rf"[A-Za-z0-9_.\-]{{1,{MAX_KEY}}}\Z")
_ENCODED = re.compile(r"(?:[A-Za-z0-9_.\-~]|%[0-9A-F]{2})+\Z")
_SAFE = "_.-~"

_lock = threading.Lock()
_refused: dict[str, int] = {}


class CarrierRefused(ValueError):
    """Why a carrier was not believed. Not raised to the app: `extract` counts it and returns nothing."""


def inject(
    carrier: MutableMapping[str, str], attribution: Attribution, *, key: bytes | None = None, audience: str = ""
) -> None:
    """Write `attribution` into `carrier["baggage"]`, beside the entries of others that are there.

    With a `key` the entries are signed (HMAC-SHA-256) for `audience`: a receiver that expects another audience refuses
    them. Fields that do not fit in 8,192 bytes are left out from the end of the alphabet, and are not signed.
    """
    name = next((each for each in carrier if each.lower() == "baggage"), "baggage")
    kept = [entry.strip() for entry in carrier.get(name, "").split(",") if entry.strip() and not _ours(entry)]
    room = MAX_BAGGAGE - sum(len(entry) + 1 for entry in kept) - 100
    entries = []
    for field, value in attribution.fields:
        entry = f"{_PREFIX}{field}={quote(value, safe=_SAFE, errors='replace')}"
        if len(entry) + 1 > room:
            break
        room -= len(entry) + 1
        entries.append(entry)
    if not entries:
        if kept:
            carrier[name] = ",".join(kept)
        else:
            carrier.pop(name, None)
        return
    if key is not None:
        entries.append(f"{_SIGNATURE}={_signed(entries, key, audience)}")
    carrier[name] = ",".join([*entries, *kept])


def extract(
    carrier: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
    *,
    key: bytes | None = None,
    audience: str = "",
) -> Attribution:
    """Return the attribution that `carrier` holds, an empty one when it holds none.

    With a `key`, what is unsigned, signed otherwise or for another audience, malformed or oversized is refused whole:
    the result is empty and the refusal is counted (`refusals`). Without one, malformed entries are refused whole too.
    """
    try:
        return _extracted(carrier, key, audience)
    except CarrierRefused as refusal:
        reason = str(refusal)
        with _lock:
            first = reason not in _refused
            _refused[reason] = _refused.get(reason, 0) + 1
        if first:
            import logging

            logging.getLogger("attribkit").warning("a carrier was refused: %s; this is logged once", reason)
        return Attribution()


def refusals() -> dict[str, int]:
    """Return how many carriers were refused, by reason."""
    with _lock:
        return dict(_refused)


def _ours(entry: str) -> bool:
    return entry.strip().startswith((_PREFIX, _SIGNATURE))


def _extracted(
    carrier: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]], key: bytes | None, audience: str
) -> Attribution:
    pairs: Iterable[tuple[str | bytes, str | bytes]] = carrier.items() if isinstance(carrier, Mapping) else carrier
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
        expected = f"{_SIGNATURE}={_signed(fields, key, audience)}"
        if not hmac.compare_digest(expected.encode(), signatures[0].encode("utf-8", "surrogateescape")):
            raise CarrierRefused("the signature does not fit its fields and audience")
    found: dict[str, str] = {}
    for entry in fields:
        name, separator, value = entry.removeprefix(_PREFIX).partition("=")
        if not separator or not _KEY.match(name) or not _ENCODED.match(value) or name in found:
            raise CarrierRefused("malformed")
        try:
            text = unquote_to_bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise CarrierRefused("malformed") from None
        if len(text) > MAX_VALUE:
            raise CarrierRefused(f"a value over {MAX_VALUE} characters")
        found[name] = text
    return Attribution.of(found)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _signed(entries: list[str], key: bytes, audience: str) -> str:
    message = "\n".join(["attribkit-1", audience, *sorted(entries)])
    return hmac.new(key, message.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
