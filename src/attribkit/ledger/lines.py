"""One call as one line of text: how a record is written down at once, and how the line becomes a ledger row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, TypeVar

import orjson

from attribkit.attribution import WELL_KNOWN, Attribution, shortened
from attribkit.calls import CallRecord
from attribkit.ledger.base import COLUMNS, LedgerRow, Loss
from attribkit.money import from_pico, to_pico, usd_text
from attribkit.usage.model import INPUT_METERS, OUTPUT_METERS

__all__ = ["NewerLine", "line_of", "loss_line", "read_line", "row_of"]

T = TypeVar("T")

# A line is a JSON array: [1, a row's columns in their order], with meters and cost lines as they are instead of as
# text; or [1, "lost", [a Loss]]. A change of meaning takes the next number; lines of older numbers stay readable.
_FORMAT = 1
_START = f"[{_FORMAT},"
_LOST = f'{_START}"lost",'
_METERS, _LINES = COLUMNS.index("meters"), COLUMNS.index("cost_lines")
_STARTED = COLUMNS.index("started_ns")
_PLAIN = frozenset((str, int, float, bool, type(None)))

_MOST = 2**63 - 1
_LONG_LINE, _LONGEST_TEXT = 32_768, 4_096
_INPUT, _OUTPUT = frozenset(INPUT_METERS), frozenset(OUTPUT_METERS)
_CACHE_READ = frozenset({"cache_read", "audio_cache_read", "image_cache_read"})

_encode = json.JSONEncoder(default=str, check_circular=False, separators=(",", ":")).encode


# Values that many calls share, made once each. Bounded: when there are many, all are forgotten.
_KEPT = 1024
_attributions: dict[Attribution, tuple[str | None, ...]] = {}


def _kept(values: dict[Any, T], key: object, value: T) -> T:
    if len(values) >= _KEPT:
        values.clear()
    values[key] = value
    return value


def _attribution_values(attribution: Attribution) -> tuple[str | None, ...]:
    free = {key: _storable(value) for key, value in attribution.fields}
    known = [free.pop(name, None) for name in WELL_KNOWN]
    return (*known, _encode(free) if free else None)


class NewerLine(ValueError):
    """A line that a newer attribkit wrote; it is good, and not for this version to read."""


def line_of(record: CallRecord) -> bytes:
    """Return the record as one line of JSON, with its newline."""
    usage, cost, attribution = record[25], record[26], record[27]
    usd, status, lines, version, reason, listed, stated, priced_as, price_date = cost[:9]
    fields = _attributions.get(attribution)
    if fields is None:
        fields = _kept(_attributions, attribution, _attribution_values(attribution))
    if stated is None:
        stated = usage[8]
    charged = None if usd is None else to_pico(usd)
    tokens = _tokens(usage[0], usage[1]) if usage[2] else _NO_TOKENS
    values = [
        _FORMAT,
        *record[:25],
        record[28],
        *fields,
        *tokens,
        dict(usage[0]),
        usage[9],
        _encode(usage[3]) if usage[3] else None,
        charged,
        charged if listed is usd else None if listed is None else to_pico(listed),
        None if stated is None else to_pico(stated),
        status,
        reason,
        version,
        priced_as,
        price_date,
        [[name, count, str(price), str(amount)] for name, count, price, amount in lines],
    ]
    try:
        return orjson.dumps(values, str, orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a count beyond 64 bits, a lone surrogate, a key that is no text
        values[_METERS + 1] = {str(name): count for name, count in usage.meters}
        return f"{_encode(values)}\n".encode()


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
    try:
        values = orjson.loads(line)
    except ValueError:
        values = json.loads(line)  # lone surrogates, and what is no JSON at all
    if len(values) != len(COLUMNS) + 1:
        raise ValueError("it is not a whole line")
    values = values[1:]
    meters, lines = values[_METERS], values[_LINES]
    if not isinstance(meters, dict) or not isinstance(lines, list):
        raise ValueError("it is not a whole line")
    values[_METERS], values[_LINES] = _text(meters) if meters else None, _text(lines)
    if not _PLAIN.issuperset(map(type, values)):
        values = [value if type(value) in _PLAIN else _text(value) for value in values]
    if not isinstance(values[0], str) or not values[0] or type(values[_STARTED]) is not int:
        raise ValueError("it has no call_id or no start")
    if "\\ud" in line or len(line) > _LONG_LINE:
        values = [value if at in (_METERS, _LINES) else _short(_storable(value)) for at, value in enumerate(values)]
    row = LedgerRow._make(values)
    if max(value for value in values if isinstance(value, int)) > _MOST:
        row = _bounded(row)
    return row


def _bounded(row: LedgerRow) -> LedgerRow:
    """Return the row without the numbers that no ledger column can hold; a cost that is too much is no price."""
    fits = {name: None for name, value in row._asdict().items() if isinstance(value, int) and abs(value) > _MOST}
    if "cost_pico" in fits and row.cost_pico is not None:
        too_much = f"{usd_text(from_pico(row.cost_pico))} USD is more than a ledger row can hold"
        row = row._replace(cost_status="unpriced", cost_reason=too_much)
    return row._replace(**fits)


_NO_TOKENS = (None,) * 6


def _tokens(meters: tuple[tuple[str, int | Decimal], ...], reasoning: int) -> tuple[int | None, ...]:
    """Return input, output, cache read, the two cache writes and reasoning."""
    tokens_in = tokens_out = cache_read = write_5m = write_1h = 0
    for name, quantity in meters:
        if name == "input":
            tokens_in += int(quantity)
        elif name in _OUTPUT:
            tokens_out += int(quantity)
        elif name in _INPUT:
            count = int(quantity)
            tokens_in += count
            if name in _CACHE_READ:
                cache_read += count
            elif name == "cache_write_5m":
                write_5m = count
            elif name == "cache_write_1h":
                write_1h = count
    return tokens_in, tokens_out, cache_read, write_5m, write_1h, reasoning


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _encode(value)


def _storable(value: Any) -> Any:
    """Return a text with its lone surrogates, which no UTF-8 store takes, written as `\\udXXX`; others as they are."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


def _short(value: Any) -> Any:
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
