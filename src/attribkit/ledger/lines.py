"""One call as one line of text: how a record is written down at once, and how the line becomes a ledger row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from attribkit.attribution import WELL_KNOWN, Attribution, shortened
from attribkit.calls import CallRecord
from attribkit.ledger.base import COLUMNS, LedgerRow, Loss
from attribkit.money import to_pico, usd_text
from attribkit.usage.model import INPUT_METERS, OUTPUT_METERS

__all__ = ["NewerLine", "line_of", "loss_line", "read_line", "row_of"]

# A line is a JSON array: [1, {meters}, [cost lines], 25 facts of the call, hop, 4 of its usage, 9 of its cost,
# the well-known attribution fields, the free dimensions as JSON text]; or [1, "lost", [the fields of a Loss]].
# A change of meaning takes the next number; lines of older numbers stay readable.
_FORMAT = 1
_START = f"[{_FORMAT},"
_LOST = f'{_START}"lost",'
_FACTS, _USAGE, _COST = 25, 4, 9
_VALUES = _FACTS + 1 + _USAGE + _COST + len(WELL_KNOWN) + 1

_MOST = 2**63 - 1
_LONG_LINE, _LONGEST_TEXT = 32_768, 4_096
_INPUT, _OUTPUT = frozenset(INPUT_METERS), frozenset(OUTPUT_METERS)
_CACHE_READ = frozenset({"cache_read", "audio_cache_read", "image_cache_read"})

_encode = json.JSONEncoder(default=str, check_circular=False, separators=(",", ":")).encode
_scan = json.JSONDecoder().raw_decode

# One text for each attribution in use: it is the same for all calls of a scope.
_texts: dict[Attribution, str] = {}
_TEXTS = 1024


class NewerLine(ValueError):
    """A line that a newer attribkit wrote; it is good, and not for this version to read."""


def line_of(record: CallRecord) -> bytes:
    """Return the record as one line of ASCII JSON, with its newline."""
    usage, cost, attribution = record[25], record[26], record[27]
    text = _texts.get(attribution)
    if text is None:
        text = _attribution_text(attribution)
    stated = cost.stated_usd if cost.stated_usd is not None else usage.stated_usd
    usd = None if cost.usd is None else str(cost.usd)
    listed = usd if cost.list_usd is cost.usd else None if cost.list_usd is None else str(cost.list_usd)
    values = _encode(
        [
            _FORMAT,
            dict(usage.meters),
            [(meter, quantity, str(price), str(amount)) for meter, quantity, price, amount in cost.lines],
            *record[:_FACTS],
            record[28],
            usage.known,
            usage.reasoning_tokens,
            usage.estimated,
            usage.problems or None,
            usd,
            listed,
            None if stated is None else str(stated),
            cost.status,
            cost.reason,
            cost.price_version,
            cost.priced_as,
            cost.price_date,
            None,
        ]
    )
    return f"{values[:-1]},{text}\n".encode()


def _attribution_text(attribution: Attribution) -> str:
    free = {key: _storable(value) for key, value in attribution.fields}
    known = [free.pop(name, None) for name in WELL_KNOWN]
    text = _encode([*known, _encode(free) if free else None])[1:]
    if len(_texts) >= _TEXTS:
        _texts.clear()
    _texts[attribution] = text
    return text


def loss_line(loss: Loss) -> bytes:
    """Return a report of lost calls as one line."""
    return f"{_LOST}{_encode(loss)}]\n".encode()


def row_of(record: CallRecord) -> LedgerRow:
    """Return the record as a ledger row, by way of its line: so there is one translation."""
    row = read_line(line_of(record).decode())
    assert isinstance(row, LedgerRow)
    return row


def read_line(line: str) -> LedgerRow | Loss:
    """Return what one line says. Raises ValueError for garbage, NewerLine for a line of a later format."""
    if not line.startswith(_START):
        _refuse(line)
    line = line.rstrip("\n")
    if line.startswith(_LOST):
        return _loss(line)
    meters, after_meters = _scan(line, len(_START))
    _, after_lines = _scan(line, after_meters + 1)
    values = json.loads(f"[{line[after_lines + 1 :]}")
    if len(values) != _VALUES or not isinstance(meters, dict):
        raise ValueError(f"{len(values)} values where {_VALUES} belong")
    if "\\ud" in line:
        values = [_storable(value) if isinstance(value, str) else value for value in values]
    if len(line) > _LONG_LINE:
        values = [_bounded(value) for value in values]
    (
        *facts,
        hop,
        known,
        reasoning,
        estimated,
        problems,
        usd,
        listed,
        stated,
        status,
        reason,
        version,
        priced_as,
        price_date,
        _,
    ) = values[: _VALUES - len(WELL_KNOWN) - 1]
    if type(facts[0]) is not str or not facts[0] or type(facts[3]) is not int:
        raise ValueError("it has no call_id or no start")

    cost_pico = _pico(usd)
    if usd is not None and cost_pico is None:
        status, reason = "unpriced", f"{usd_text(Decimal(usd))} USD is more than a ledger row can hold"
    return LedgerRow._make(
        (
            *facts,
            hop,
            *values[_VALUES - len(WELL_KNOWN) - 1 :],
            *(_tokens(meters) if known else _NO_TOKENS),
            _bounded_int(reasoning) if known else None,
            line[len(_START) : after_meters] if meters else None,
            estimated,
            _encode(problems) if problems else None,
            cost_pico,
            cost_pico if listed == usd else _pico(listed),
            _pico(stated),
            status,
            reason,
            version,
            priced_as,
            price_date,
            line[after_meters + 1 : after_lines],
        )
    )


_NO_TOKENS = (None,) * 5


def _tokens(meters: dict[str, Any]) -> tuple[int | None, ...]:
    """Return input, output, cache read and the two cache write counts; a count beyond 64 bits as None."""
    tokens_in = tokens_out = 0
    cache_read = write_5m = write_1h = 0
    for name, quantity in meters.items():
        if name in _INPUT:
            count = _whole(quantity)
            tokens_in += count
            if name in _CACHE_READ:
                cache_read += count
            elif name == "cache_write_5m":
                write_5m = count
            elif name == "cache_write_1h":
                write_1h = count
        elif name in _OUTPUT:
            tokens_out += _whole(quantity)
    return tuple(map(_bounded_int, (tokens_in, tokens_out, cache_read, write_5m, write_1h)))


def _whole(quantity: int | str) -> int:
    return quantity if type(quantity) is int else int(Decimal(quantity))


def _storable(text: str) -> str:
    """Return `text` with lone surrogates, which no UTF-8 store takes, written as `\\udXXX`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _bounded_int(value: int) -> int | None:
    return value if -_MOST <= value <= _MOST else None


def _pico(usd: str | None) -> int | None:
    if usd is None:
        return None
    return _bounded_int(to_pico(Decimal(usd)))


def _bounded(value: object) -> object:
    return shortened(value, _LONGEST_TEXT) if isinstance(value, str) else value


def _loss(line: str) -> Loss:
    loss = Loss._make(json.loads(line)[2])
    if not (isinstance(loss.loss_id, str) and isinstance(loss.process, str)):
        raise ValueError("a loss without an id")
    return loss._replace(since_ns=int(loss.since_ns), until_ns=int(loss.until_ns), calls=int(loss.calls))


def _refuse(line: str) -> None:
    number = line[1:].partition(",")[0]
    if line.startswith("[") and number.isdigit() and int(number) > _FORMAT:
        raise NewerLine(f"format {number}, and this attribkit reads up to {_FORMAT}")
    raise ValueError("it is not a line of a spool")


assert len(COLUMNS) == _FACTS + 1 + len(WELL_KNOWN) + 1 + 5 + 1 + 3 + 8 + 1
