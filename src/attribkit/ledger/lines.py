"""One call as one line of text: how a record is written down at once, and how the line becomes a ledger row."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from attribkit.attribution import WELL_KNOWN, Attribution, shortened
from attribkit.calls import CallRecord
from attribkit.ledger.base import LedgerRow, Loss
from attribkit.money import to_pico, usd_text
from attribkit.usage.model import INPUT_METERS, OUTPUT_METERS

__all__ = ["NewerLine", "line_of", "loss_line", "read_line", "row_of"]

T = TypeVar("T")

# A line is a JSON array: [1, [what is new for each call], [what many calls share], {meters}, [cost lines]]. What they
# share ends in the well-known attribution fields and the free dimensions as JSON text. Or [1, "lost", [a Loss]].
# A change of meaning takes the next number; lines of older numbers stay readable.
_FORMAT = 1
_START = f"[{_FORMAT},"
_LOST = f'{_START}"lost",'
_OWN, _SHARED = 14, 24

_MOST = 2**63 - 1
_LONG_LINE, _LONGEST_TEXT = 32_768, 4_096
_INPUT, _OUTPUT = frozenset(INPUT_METERS), frozenset(OUTPUT_METERS)
_CACHE_READ = frozenset({"cache_read", "audio_cache_read", "image_cache_read"})

_encode = json.JSONEncoder(default=str, check_circular=False, separators=(",", ":")).encode
_quoted: Callable[[str], str] = json.encoder.encode_basestring_ascii
_scan = json.JSONDecoder().raw_decode


# Texts of values that many calls share, made once each. Bounded: when there are many, all are forgotten.
_KEPT = 1024
_attributions: dict[Attribution, str] = {}
_shared: dict[tuple[object, ...], str] = {}
_names: dict[str, str] = {}


def _kept(values: dict[Any, T], key: object, value: T) -> T:
    if len(values) >= _KEPT:
        values.clear()
    values[key] = value
    return value


def _attribution_text(attribution: Attribution) -> str:
    free = {key: _storable(value) for key, value in attribution.fields}
    known = [free.pop(name, None) for name in WELL_KNOWN]
    return _encode([*known, _encode(free) if free else None])[1:-1]


class NewerLine(ValueError):
    """A line that a newer attribkit wrote; it is good, and not for this version to read."""


def line_of(record: CallRecord) -> bytes:
    """Return the record as one line of ASCII JSON, with its newline.

    It is put together from texts that are kept, for a scope, a client and a model make many calls, and from the few
    values that are new. Encoding all of it anew would double the work.
    """
    usage, cost = record.usage, record.cost
    usd, status, lines, version, reason, listed, stated, priced_as, price_date = cost[:9]
    if stated is None:
        stated = usage.stated_usd
    call_id, operation_id, attempt, started, duration, first_chunk = record[:6]
    response_id, request_id, trace_id, span_id = record[21:25]
    attribution = record.attribution
    shared = record[6:21], record.hop, usage[2:4], usage.estimated, status, reason, version, priced_as, price_date
    try:
        meters = [
            f"{_names.get(name) or _name(name)}:{count if type(count) is int else _amount(count)}"
            for name, count in usage.meters
        ]
        amounts = [
            f"[{_names.get(name) or _name(name)},{count if type(count) is int else _amount(count)},"
            f'"{price!s}","{amount!s}"]'
            for name, count, price, amount in lines
        ]
        charged = "null" if usd is None else _amount(usd)
        ids = f'"{call_id}","{operation_id}","{trace_id}","{span_id}"'
        if not (
            ids.isascii() and ids.isprintable() and ids.count('"') == 8 and "\\" not in ids and trace_id and span_id
        ):
            ids = _encode((call_id, operation_id, trace_id, span_id))[1:-1]
        text = (
            f"{_START}[{ids},{attempt},{started},"
            f"{'null' if duration is None else duration},"
            f"{'null' if first_chunk is None else first_chunk},"
            f"{'null' if response_id is None else _quoted(response_id)},"
            f"{'null' if request_id is None else _quoted(request_id)},"
            f"{usage.reasoning_tokens},"
            f"{charged},{charged if listed is usd else 'null' if listed is None else _amount(listed)},"
            f"{'null' if stated is None else _amount(stated)}],"
            f"[{_shared.get(shared) or _kept(_shared, shared, _shared_text(shared))},"
            f"{_attributions.get(attribution) or _kept(_attributions, attribution, _attribution_text(attribution))}],"
            f"{{{','.join(meters)}}},[{','.join(amounts)}]]\n"
        )
    except TypeError:
        # A value of a type that does not belong there: encode it all, with what JSON does not know as its text.
        own = (call_id, operation_id, trace_id, span_id, *record[2:6], *record[21:23])
        own_text = _encode((*own, usage.reasoning_tokens, usd, listed, stated))
        meters_text = _encode({str(name): count for name, count in usage.meters})
        shared_text = f"[{_shared_text(shared)},{_attribution_text(attribution)}]"
        text = f"{_START}{own_text},{shared_text},{meters_text},{_encode(lines)}]\n"
    return text.encode()


def _shared_text(values: tuple[Any, ...]) -> str:
    facts, hop, (known, problems), *rest = values
    return _encode((*facts, hop, known, problems, *rest))[1:-1]


def _name(meter: str) -> str:
    return _kept(_names, meter, _quoted(meter))


def _amount(amount: object) -> str:
    return f'"{amount!s}"'


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
    own, after_own = _scan(line, len(_START))
    # A JSON array is never the beginning of another: a text that was read as one before is one here.
    after_shared = line.find("],{", after_own) + 1
    shared = _read.get(line[after_own + 1 : after_shared])
    if shared is None:
        facts, after_shared = _scan(line, after_own + 1)
        shared = _kept(_read, line[after_own + 1 : after_shared], _Shared.of(facts))
    meters, after_meters = _scan(line, after_shared + 1)
    cost_lines = line[after_meters + 1 : -1]
    if not isinstance(meters, dict) or cost_lines[:1] != "[" or line[-2:] != "]]":
        raise ValueError("it is not a whole line")
    if len(line) > _LONG_LINE:
        own = [_short(value) for value in own]
    call_id, operation_id, trace_id, span_id, attempt, started, duration, first_chunk, *own = own
    response_id, request_id, reasoning, usd, listed, stated = own
    if type(call_id) is not str or not call_id or type(started) is not int:
        raise ValueError("it has no call_id or no start")
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
            line[after_shared + 1 : after_meters] if meters else None,
            *shared.usage,
            cost_pico,
            cost_pico if listed == usd else _pico(listed),
            _pico(stated),
            *verdict,
            cost_lines,
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
            usage=(estimated, _encode(problems) if problems else None),
            verdict=tuple(facts[19:_SHARED]),
        )


_read: dict[str, _Shared] = {}


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
    if line.startswith("[") and number.isdigit() and int(number) > _FORMAT:
        raise NewerLine(f"format {number}, and this attribkit reads up to {_FORMAT}")
    raise ValueError("it is not a line of a spool")
