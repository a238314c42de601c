"""One call as one line of text: how it is written down at once. `reading` makes ledger rows of such lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.calls import CallKind, CallRecord, Meters, Own

if TYPE_CHECKING:
    from attribkit.ledger.base import Loss

__all__ = [
    "FORMAT",
    "LOST",
    "MOST",
    "PLAIN",
    "WITH_CHARGE",
    "encode",
    "kept",
    "line_of",
    "loss_line",
    "plain_line",
    "storable",
]

T = TypeVar("T")

# A line is a JSON array: [1, [what is new for each call], [what many calls share], {meters}, [cost lines]]. What they
# share ends in the well-known attribution fields and the free dimensions as JSON text. Or [1, "lost", [a Loss]].
# A line of format 2 says in addition, at the end of what is new, what the tenant is charged; where that is the cost
# itself, format 1 is written. A line of format 3 is of a call whose cost is counts times unit prices, and leaves the
# products to whoever reads it: [3, [what is new], [[meter, count], ...], [[what many share, without the attribution],
# {meter: unit price}], [attribution]]. A change of meaning takes the next number; lines of older numbers stay readable.
FORMAT = 1
WITH_CHARGE = 2
PLAIN = 3
LOST = f'[{FORMAT},"lost",'

MOST = 2**63 - 1
_NEWLINE = orjson.OPT_APPEND_NEWLINE

encode = json.JSONEncoder(default=str, check_circular=False, separators=(",", ":")).encode


# Values that many calls share, made once each. Bounded: when there are many, all are forgotten.
_KEPT = 1024
_attributions: dict[Attribution, tuple[str | None, ...]] = {}


def kept(values: dict[Any, T], key: object, value: T) -> T:
    """Remember `value`; when there are many, all others are forgotten."""
    if len(values) >= _KEPT:
        values.clear()
    values[key] = value
    return value


def _attribution_values(attribution: Attribution) -> tuple[str | None, ...]:
    free = {key: storable(value) for key, value in attribution.fields}
    known = [free.pop(name, None) for name in WELL_KNOWN]
    return (*known, encode(free) if free else None)


def line_of(record: CallRecord) -> bytes:
    """Return the record as one line of JSON, with its newline."""
    usage, cost, attribution = record[25], record[26], record[27]
    usd, status, lines, version, reason, listed, stated, priced_as, price_date = cost[:9]
    if stated is None:
        stated = usage.stated_usd
    charged = None if usd is None else str(usd)
    fields = _attributions.get(attribution)
    if fields is None:
        fields = kept(_attributions, attribution, _attribution_values(attribution))
    values: list[Any] = [
        FORMAT,
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
            encode(usage[3]) if usage[3] else None,
            usage[9],
            *(status, reason, version, priced_as, price_date),
            *fields,
        ],
        dict(usage[0]),
        [[name, count, str(price), str(amount)] for name, count, price, amount in lines],
    ]
    if cost[9] is not None:
        values[0] = WITH_CHARGE
        values[1].append(str(cost[9]))
    try:
        return orjson.dumps(values, str, _NEWLINE)
    except TypeError:  # a count beyond 64 bits, a lone surrogate, a key that is no text
        return f"{encode(_plain(values))}\n".encode()


def plain_line(kind: CallKind, attribution: Attribution, own: Own, meters: Meters) -> bytes:
    """Return a call whose cost is not worked out yet as one line of JSON, with its newline."""
    shared, last = kind.text, _latest
    if shared is None:
        shared = kind.text = _fragment(_kind_values(kind))
    fields = last[1] if last[0] is attribution else _attribution_text(attribution)
    try:
        return orjson.dumps((PLAIN, own, meters, shared, fields), None, _NEWLINE)
    except TypeError:  # a lone surrogate in the id of the response
        known = _kind_values(kind), _attribution_values(attribution)
        return f"{encode(_plain((PLAIN, own, meters, *known)))}\n".encode()


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
        return orjson.Fragment(encode(_plain(value)).encode())


def _attribution_text(attribution: Attribution) -> orjson.Fragment:
    global _latest
    text = _attribution_texts.get(attribution)
    if text is None:
        text = kept(_attribution_texts, attribution, _fragment(_attribution_values(attribution)))
    _latest = attribution, text
    return text


_attribution_texts: dict[Attribution, orjson.Fragment] = {}
_latest: tuple[Attribution | None, Any] = None, None
"""The attribution that was asked for last: calls of one scope come in a row."""


def _plain(value: Any) -> Any:
    """Return `value` with counts beyond 64 bits, which orjson would read as floats, and odd keys as text."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return str(value) if type(value) is int and not -MOST <= value <= MOST else value


def loss_line(loss: Loss) -> bytes:
    """Return a report of lost calls as one line."""
    return f"{LOST}{encode(loss)}]\n".encode()


def storable(value: Any) -> Any:
    """Return a text with its lone surrogates, which no UTF-8 store takes, written as `\\udXXX`; others as they are."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()
