"""record -> line -> row: the same values, whatever they are."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ledger.made import cost, record

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.calls import CallRecord
from attribkit.cost import Cost, CostLine
from attribkit.ledger.base import COLUMNS, LedgerRow, Loss
from attribkit.ledger.lines import line_of, loss_line
from attribkit.ledger.reading import NewerLine, read_line, row_of
from attribkit.ledger.sqlite import SqliteLedger
from attribkit.money import from_pico, to_pico
from attribkit.usage.model import Usage

text = st.text(max_size=40)
maybe = st.none() | text
money = st.decimals(min_value=Decimal("-9000"), max_value=Decimal(9_000_000), places=12)
counts = st.integers(0, 2**70)
meters = st.dictionaries(
    st.sampled_from(["input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "audio_output", "images"])
    | text,
    counts | st.decimals(min_value=0, max_value=10**6, places=3),
    max_size=6,
).map(lambda found: tuple(found.items()))
usages = st.builds(
    Usage,
    meters=meters,
    reasoning_tokens=counts,
    known=st.booleans(),
    problems=st.lists(text, max_size=2).map(tuple),
    estimated=maybe,
    stated_usd=st.none() | money,
)
costs = st.builds(
    Cost,
    usd=st.none() | money,
    status=st.sampled_from(["priced", "free", "unpriced", "estimated"]),
    lines=st.lists(st.builds(CostLine, text, counts, money, money), max_size=3).map(tuple),
    price_version=text,
    reason=maybe,
    list_usd=st.none() | money,
    stated_usd=st.none() | money,
    charged_usd=st.none() | money,
    priced_as=maybe,
    price_date=maybe,
)
records = st.builds(
    CallRecord,
    call_id=st.uuids().map(str) | st.text(min_size=1),
    operation_id=text,
    attempt=st.integers(0, 9),
    started_ns=st.integers(0, 2**62),
    duration_ns=st.none() | st.integers(0, 2**40),
    first_chunk_ns=st.none() | st.integers(0, 2**40),
    client=text,
    provider=text,
    gateway=maybe,
    host=text,
    api=text,
    requested_model=maybe,
    served_model=maybe,
    requested_tier=maybe,
    served_tier=maybe,
    region=maybe,
    batch=st.booleans(),
    stream=st.booleans(),
    status=st.sampled_from(["ok", "error", "cancelled", "abandoned", "rejected"]),
    http_status=st.none() | st.integers(100, 599),
    error=maybe,
    response_id=maybe,
    gateway_request_id=maybe,
    trace_id=st.none() | st.uuids().map(lambda one: one.hex) | text,
    span_id=st.none() | st.uuids().map(lambda one: one.hex[:16]) | text,
    usage=usages,
    cost=costs,
    attribution=st.dictionaries(st.sampled_from(WELL_KNOWN) | text, text, max_size=6).map(Attribution.of),
    hop=st.sampled_from(["inherited", "carried", "none"]),
)


def pico(usd: Decimal | None) -> int | None:
    return None if usd is None else to_pico(usd)


QUICK = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)


@settings(QUICK, max_examples=150)
@given(records)
def test_a_row_holds_what_the_record_said(call: CallRecord) -> None:
    line = line_of(call)
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.decode()
    row = read_line(line.decode())
    assert isinstance(row, LedgerRow)

    for name in CallRecord._fields:
        if name not in ("usage", "cost", "attribution"):
            assert getattr(row, name) == getattr(call, name), name
    assert row.attribution == call.attribution
    if call.usage.known:
        stored = (row.input_tokens, row.output_tokens, row.reasoning_tokens)
        stated = (call.usage.input_tokens, call.usage.output_tokens, call.usage.reasoning_tokens)
        assert stored == tuple(count if count < 2**63 else None for count in stated)
    else:
        assert row.input_tokens is row.output_tokens is row.reasoning_tokens is None
    read = json.loads(row.meters or "{}")
    assert {name: Decimal(count) for name, count in read.items()} == {
        name: Decimal(count) for name, count in call.usage.meters
    }
    assert json.loads(row.usage_problems or "[]") == list(call.usage.problems)
    assert row.usage_estimated == call.usage.estimated
    assert (row.cost_pico, row.list_pico) == (pico(call.cost.usd), pico(call.cost.list_usd))
    stated_usd = call.cost.stated_usd if call.cost.stated_usd is not None else call.usage.stated_usd
    assert row.stated_pico == pico(stated_usd)
    assert row.charged_pico == (row.cost_pico if call.cost.charged_usd is None else pico(call.cost.charged_usd))
    assert (row.cost_status, row.cost_reason) == (call.cost.status, call.cost.reason)
    assert (row.price_version, row.priced_as, row.price_date) == call.cost[3:4] + call.cost[7:9]
    lines = [
        CostLine(name, Decimal(count), Decimal(price), Decimal(usd))
        for name, count, price, usd in json.loads(row.cost_lines)
    ]
    assert tuple(lines) == call.cost.lines


@settings(QUICK, max_examples=30)
@given(st.lists(records, max_size=5, unique_by=lambda call: call.call_id))
def test_a_store_gives_back_the_rows_it_took(calls: list[CallRecord]) -> None:
    store = SqliteLedger(None)
    rows = [row_of(call) for call in calls]
    assert store.write(rows) == len(rows)
    assert store.write(rows) == 0
    assert sorted(store.records()) == sorted(rows)


def test_lone_surrogates_are_written_as_text_that_every_store_takes() -> None:
    call = record({"tenant_id": "a\ud800", "plan": "\udfff"}, response_id="id\udc00", served_model="m\ud83d")
    row = row_of(call)
    assert (row.tenant_id, row.response_id, row.served_model) == (r"a\ud800", r"id\udc00", r"m\ud83d")
    store = SqliteLedger(None)
    assert store.write([row]) == 1
    assert next(store.records()).attribution.get("plan") == r"\udfff"


def test_values_of_other_types_become_their_text() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    row = row_of(record(response_id=Odd(), served_model=Odd(), error=["not", "hashable"]))
    assert (row.response_id, row.served_model) == ("odd", "odd")


def test_a_cost_beyond_64_bits_is_unpriced_and_says_so() -> None:
    row = row_of(record(cost=cost("9300000.000000000001")))
    assert row.cost_pico is None and row.usd is None
    assert row.cost_status == "unpriced"
    assert row.cost_reason == "9300000.000000000001 USD is more than a ledger row can hold"


def test_two_to_the_seventieth_tokens_stay_exact_in_the_meters() -> None:
    row = row_of(record(usage=Usage((("input", 2**70), ("output", 5)))))
    assert (row.input_tokens, row.output_tokens) == (None, 5)
    assert json.loads(row.meters or "")["input"] == str(2**70)


@pytest.mark.parametrize(
    ("usd", "expected"),
    [("1E-9", 1000), ("0.1234567890125", 123456789012), ("-0.5", -500_000_000_000), ("7", 7 * 10**12)],
)
def test_money_is_whole_pico_dollars(usd: str, expected: int) -> None:
    row = row_of(record(cost=cost(usd)))
    assert row.cost_pico == expected
    assert row.usd == from_pico(expected)


def test_a_very_long_value_is_shortened() -> None:
    row = row_of(record(served_model="m" * 100_000, response_id="r" * 100_000))
    assert len(row.served_model or "") == len(row.response_id or "") == 4096
    assert (row.served_model or "").startswith("mmm")


def test_losses_have_lines_too() -> None:
    loss = Loss("0001", 5, 7, 3, "host:1")
    assert read_line(loss_line(loss).decode()) == loss


def test_a_line_of_a_newer_version_is_told_from_garbage() -> None:
    with pytest.raises(NewerLine, match="format 4"):
        read_line('[4,{"anything":1}]\n')


@pytest.mark.parametrize(
    "garbage", ["", "\n", "{}", "[1]", "[1,", "[1,[],[],{},[]]", '[1,"lost",[1]]', "\x00" * 50, "[one", "[1,[[[["]
)
def test_garbage_is_refused(garbage: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (garbage may fail in any way)
        read_line(garbage)
    assert not isinstance(caught.value, NewerLine)


@settings(QUICK, max_examples=100)
@given(st.data())
def test_a_cut_line_is_never_read(data: st.DataObject) -> None:
    line = line_of(record()).decode()
    cut = data.draw(st.integers(0, len(line) - 2))
    with pytest.raises(Exception):  # noqa: B017, PT011
        read_line(line[:cut] + "\n")


def test_many_different_scopes_leave_memory_bounded() -> None:
    from attribkit.ledger import lines, reading

    for number in range(5000):
        read_line(line_of(record({"tenant_id": f"t{number}"}, served_model=f"m{number}")).decode())
    for kept in (lines._attributions, reading._read):
        assert len(kept) <= 1024


def test_the_table_has_the_columns_of_the_row(tmp_path: Path) -> None:
    store = SqliteLedger(str(tmp_path / "a.db"))
    store.write([])
    list(store.records())
    store.close()
    connection = sqlite3.connect(tmp_path / "a.db")
    there = [row[1] for row in connection.execute("PRAGMA table_info(attribkit_calls)")]
    connection.close()
    assert tuple(there) == COLUMNS
    assert set(WELL_KNOWN) <= set(COLUMNS)


def test_a_line_reads_records_by_these_positions() -> None:
    """A field that moves, or a new one, needs a look at line_of: and then a new number in these tuples."""
    assert CallRecord._fields[6:21] == (
        *("client", "provider", "gateway", "host", "api", "requested_model", "served_model", "requested_tier"),
        *("served_tier", "region", "batch", "stream", "status", "http_status", "error"),
    )
    assert CallRecord._fields[21:25] == ("response_id", "gateway_request_id", "trace_id", "span_id")
    assert len(CallRecord._fields) == 29
    assert Usage._fields[2:4] == ("known", "problems")
    assert Cost._fields == (
        *("usd", "status", "lines", "price_version", "reason", "list_usd", "stated_usd", "priced_as", "price_date"),
        *("charged_usd", "price_built"),
    )
