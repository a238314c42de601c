"""One call as one line of text: how a record is written down at once, and how the line becomes a ledger row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import orjson

from attribkit.attribution import WELL_KNOWN, Attribution, shortened
from attribkit.calls import CallKind, CallRecord, PlainCall
from attribkit.ledger.base import LedgerRow, Loss
from attribkit.money import to_pico, usd_text
from attribkit.pricing.meters import PRICES
from attribkit.usage.model import INPUT_METERS, OUTPUT_METERS

__all__ = ["NewerLine", "line_of", "loss_line", "plain_line", "read_line", "row_of"]

T = TypeVar("T")

# A line is a JSON array: [1, [what is new for each call], [what many calls share], {meters}, [cost lines]]. What they
# share ends in the well-known attribution fields and the free dimensions as JSON text. Or [1, "lost", [a Loss]].
# A line of format 2 says in addition, at the end of what is new, what the tenant is charged; where that is the cost
# itself, format 1 is written. A line of format 3 is of a call whose cost is counts times unit prices, and leaves the
# products to whoever reads it: [3, [what is new], [[meter, count], ...], [[what many share, without the attribution],
# {meter: unit price}], [attribution]]. A change of meaning takes the next number; lines of older numbers stay readable.
_FORMAT = 1
_WITH_CHARGE = 2
_PLAIN = 3
_START_WITH_CHARGE = f"[{_WITH_CHARGE},"
_START = f"[{_FORMAT},"
_START_PLAIN = f"[{_PLAIN},"
_STARTS = (_START, _START_WITH_CHARGE, _START_PLAIN)
_LOST = f'{_START}"lost",'
_OWN, _SHARED = 14, 24

_NEWLINE = orjson.OPT_APPEND_NEWLINE
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
    if stated is None:
        stated = usage.stated_usd
    charged = None if usd is None else str(usd)
    fields = _attributions.get(attribution)
    if fields is None:
        fields = _kept(_attributions, attribution, _attribution_values(attribution))
    values: list[Any] = [
        _FORMAT,
        [
            record[0],
            record[1],
            record[23],
            record[24],
            *record[2:6],
            record[21],
            record[22],
            usage[1],
            charged,
            charged if listed is usd else None if listed is None else str(listed),
            None if stated is None else str(stated),
        ],
        [
            *record[6:21],
            record[28],
            usage[2],
            _encode(usage[3]) if usage[3] else None,
            usage[9],
            *(status, reason, version, priced_as, price_date),
            *fields,
        ],
        dict(usage[0]),
        [[name, count, str(price), str(amount)] for name, count, price, amount in lines],
    ]
    if cost[9] is not None:
        values[0] = _WITH_CHARGE
        values[1].append(str(cost[9]))
    try:
        return orjson.dumps(values, str, _NEWLINE)
    except TypeError:  # a count beyond 64 bits, a lone surrogate, a key that is no text
        return f"{_encode(_plain(values))}\n".encode()


def plain_line(call: PlainCall) -> bytes:
    """Return a call whose cost is not worked out yet as one line of JSON, with its newline."""
    kind, attribution, own, meters = call
    shared = kind.text
    if shared is None:
        shared = kind.text = _fragment(_kind_values(kind))
    fields = _attribution_texts.get(attribution)
    if fields is None:
        fields = _kept(_attribution_texts, attribution, _fragment(_attribution_values(attribution)))
    try:
        return orjson.dumps((_PLAIN, own, meters, shared, fields), None, _NEWLINE)
    except TypeError:  # a lone surrogate in the id of the response
        known = _kind_values(kind), _attribution_values(attribution)
        return f"{_encode(_plain((_PLAIN, own, meters, *known)))}\n".encode()


def _kind_values(kind: CallKind) -> tuple[list[Any], dict[str, str]]:
    record = kind.record
    usage, (_, status, _, version, reason, _, _, priced_as, price_date, *_) = record.usage, record.cost
    shared = [*record[6:21], record[28], usage[2], None, None, status, reason, version, priced_as, price_date]
    return shared, {meter: str(price) for meter, price in kind.prices.items()}


def _fragment(value: Any) -> orjson.Fragment:
    """Return JSON text that is put into many lines as it is."""
    try:
        return orjson.Fragment(orjson.dumps(value))
    except TypeError:
        return orjson.Fragment(_encode(_plain(value)).encode())


_attribution_texts: dict[Attribution, orjson.Fragment] = {}


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
    return [_FORMAT, [*own, response_id, None, reasoning, usd, usd, None], [*facts, *fields], dict(counts), lines]


def _plain(value: Any) -> Any:
    """Return `value` with counts beyond 64 bits, which orjson would read as floats, and odd keys as text."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return str(value) if type(value) is int and not -_MOST <= value <= _MOST else value


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
    if not line.startswith(_STARTS):
        _refuse(line)
    line = line.rstrip("\n")
    if line.startswith(_LOST):
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
        shared = _kept(_read, key, _Shared.of(facts))
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
            *(_storable(response_id), _storable(request_id), trace_id, span_id),
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
        facts = [_short(_storable(value)) for value in facts]
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
    if max(tokens_in, tokens_out, reasoning) <= _MOST and min(tokens_in, tokens_out, reasoning) >= -_MOST:
        return tokens_in, tokens_out, cache_read, write_5m, write_1h, reasoning
    return tuple(map(_bounded_int, (tokens_in, tokens_out, cache_read, write_5m, write_1h, reasoning)))


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate
        return _encode(value)


def _storable(value: Any) -> Any:
    """Return a text with its lone surrogates, which no UTF-8 store takes, written as `\\udXXX`; others as they are."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


def _short(value: Any) -> Any:
    return shortened(value, _LONGEST_TEXT) if isinstance(value, str) else value


def _bounded_int(value: int) -> int | None:
    return value if -_MOST <= value <= _MOST else None


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
    if line.startswith("[") and number.isdigit() and int(number) > _PLAIN:
        raise NewerLine(f"format {number}, and this attribkit reads up to {_PLAIN}")
    raise ValueError("it is not a line of a spool")
