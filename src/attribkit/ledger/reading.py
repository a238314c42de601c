"""What a line of a spool says, as a ledger row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from attribkit.attribution import WELL_KNOWN, shortened
from attribkit.calls import CallRecord
from attribkit.ledger.base import LedgerRow, Loss
from attribkit.ledger.lines import FORMAT, LOST, MOST, PLAIN, WITH_CHARGE, encode, kept, line_of, storable
from attribkit.money import to_pico, usd_text
from attribkit.pricing.meters import PRICES
from attribkit.usage.model import INPUT_METERS, OUTPUT_METERS

__all__ = ["NewerLine", "read_line", "row_of"]

_START_PLAIN = f"[{PLAIN},"
_STARTS = (f"[{FORMAT},", f"[{WITH_CHARGE},", _START_PLAIN)
_SHARED = 24
_LONG_LINE, _LONGEST_TEXT = 32_768, 4_096
_INPUT, _OUTPUT = frozenset(INPUT_METERS), frozenset(OUTPUT_METERS)
_CACHE_READ = frozenset({"cache_read", "audio_cache_read", "image_cache_read"})


class NewerLine(ValueError):
    """A line that a newer attribkit wrote; it is good, and not for this version to read."""


def row_of(record: CallRecord) -> LedgerRow:
    """Return the record as a ledger row, by way of its line: so there is one translation."""
    row = read_line(line_of(record).decode())
    assert isinstance(row, LedgerRow)
    return row


def read_line(line: str) -> LedgerRow | Loss:
    """Return what one line says. Raises ValueError for garbage, NewerLine for a line of a later format."""
    if not line.startswith(_STARTS):
        _refuse(line)
    line = line.rstrip("\n")
    if line.startswith(LOST):
        return _loss(line)
    try:
        values = orjson.loads(line)
    except ValueError:
        values = json.loads(line)  # lone surrogates, and what is no JSON at all
    if line.startswith(_START_PLAIN):
        values = _worked_out(values)
    _, own, facts, meters, cost_lines = values
    if not isinstance(own, list) or not isinstance(meters, dict) or not isinstance(cost_lines, list):
        raise ValueError("it is not a whole line")
    try:
        key = tuple(facts)
        shared = _read.get(key)
    except TypeError:
        if not isinstance(facts, list):
            raise ValueError("it is not a whole line") from None
        facts = [_text(value) if isinstance(value, (list, dict)) else value for value in facts]
        key, shared = tuple(facts), None
    if shared is None:
        shared = kept(_read, key, _Shared.of(facts))
    if len(line) > _LONG_LINE:
        own = [_short(value) for value in own]
    call_id, operation_id, trace_id, span_id, attempt, started, duration, first_chunk, *own = own
    response_id, request_id, reasoning, usd, listed, stated, *charged = own
    if type(reasoning) is not int:
        reasoning = int(reasoning)
    if type(call_id) is not str or not call_id or type(started) is not int or type(attempt) is not int:
        raise ValueError("it has no call_id, no start or no attempt")
    cost_pico = _pico(usd)
    verdict = shared.verdict
    if usd is not None and cost_pico is None:
        verdict = ("unpriced", f"{usd_text(Decimal(usd))} USD is more than a ledger row can hold", *verdict[2:])
    return tuple.__new__(
        LedgerRow,
        (
            *(call_id, operation_id, attempt, started, duration, first_chunk),
            *shared.call,
            *(storable(response_id), storable(request_id), trace_id, span_id),
            *shared.attribution,
            *(_tokens(meters, reasoning) if shared.known else _NO_TOKENS),
            _text(meters) if meters else None,
            *shared.usage,
            cost_pico,
            cost_pico if listed == usd else _pico(listed),
            _pico(stated),
            *verdict,
            _text(cost_lines),
            _pico(charged[0]) if charged else cost_pico,
        ),
    )


def _worked_out(values: list[Any]) -> list[Any]:
    """Return what a line of format 3 says as one of format 1 says it: with the products, and their sum."""
    _, own, counts, (facts, prices), fields = values
    lines = []
    total: Decimal | None = None
    for meter, count in counts:
        price = prices[meter]
        amount = PRICES.multiply(Decimal(price), count)
        lines.append([meter, count, price, str(amount)])
        total = amount if total is None else PRICES.add(total, amount)
    usd = None if total is None else str(total)
    call_id, operation_id, attempt, started, duration, first_chunk, response_id, reasoning = own
    own = [call_id, operation_id, None, None, attempt, started, duration, first_chunk]
    return [FORMAT, [*own, response_id, None, reasoning, usd, usd, None], [*facts, *fields], dict(counts), lines]


class _Shared(NamedTuple):
    """What many lines share, in the order of a row's columns."""

    call: tuple[Any, ...]
    """client to error"""
    attribution: tuple[Any, ...]
    """hop, the well-known fields, the dimensions"""
    known: bool
    usage: tuple[Any, ...]
    """estimated, problems"""
    verdict: tuple[Any, ...]
    """the cost's status, reason, price version, catalog row and its date"""

    @classmethod
    def of(cls, facts: list[Any]) -> _Shared:
        if len(facts) != _SHARED + len(WELL_KNOWN) + 1:
            raise ValueError("it is not a whole line")
        facts = [_short(storable(value)) for value in facts]
        batch, stream, status, http_status, error, hop, known, problems, estimated = facts[10:19]
        return cls(
            call=(*facts[:10], int(batch), int(stream), status, http_status, error),
            attribution=(hop, *facts[_SHARED:]),
            known=known,
            usage=(estimated, problems),
            verdict=tuple(facts[19:_SHARED]),
        )


_read: dict[tuple[Any, ...], _Shared] = {}


_NO_TOKENS = (None,) * 6


def _tokens(meters: dict[str, Any], reasoning: int) -> tuple[int | None, ...]:
    """Return input, output, cache read, the two cache writes and reasoning; a count beyond 64 bits as None."""
    tokens_in = tokens_out = cache_read = write_5m = write_1h = 0
    for name, quantity in meters.items():
        count = quantity if type(quantity) is int else int(Decimal(quantity))
        if name == "input":
            tokens_in += count
        elif name in _OUTPUT:
            tokens_out += count
        elif name in _INPUT:
            tokens_in += count
            if name in _CACHE_READ:
                cache_read += count
            elif name == "cache_write_5m":
                write_5m = count
            elif name == "cache_write_1h":
                write_1h = count
    if max(tokens_in, tokens_out, reasoning) <= MOST and min(tokens_in, tokens_out, reasoning) >= -MOST:
        return tokens_in, tokens_out, cache_read, write_5m, write_1h, reasoning
    return tuple(map(_bounded_int, (tokens_in, tokens_out, cache_read, write_5m, write_1h, reasoning)))


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate
        return encode(value)


def _short(value: Any) -> Any:
    return shortened(value, _LONGEST_TEXT) if isinstance(value, str) else value


def _bounded_int(value: int) -> int | None:
    return value if -MOST <= value <= MOST else None


def _pico(usd: str | None) -> int | None:
    if usd is None:
        return None
    whole, _, fraction = usd.partition(".")
    if len(fraction) <= 12:
        try:
            return _bounded_int(int(f"{whole}{fraction:0<12}"))
        except ValueError:  # 1E-9 and the like
            pass
    return _bounded_int(to_pico(Decimal(usd)))


def _loss(line: str) -> Loss:
    loss = Loss._make(json.loads(line)[2])
    if not (isinstance(loss.loss_id, str) and isinstance(loss.process, str)):
        raise ValueError("a loss without an id")
    return loss._replace(since_ns=int(loss.since_ns), until_ns=int(loss.until_ns), calls=int(loss.calls))


def _refuse(line: str) -> None:
    number = line[1:].partition(",")[0]
    if line.startswith("[") and number.isdigit() and int(number) > PLAIN:
        raise NewerLine(f"format {number}, and this attribkit reads up to {PLAIN}")
    raise ValueError("it is not a line of a spool")
