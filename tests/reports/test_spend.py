"""Spend by any field: exact, over the right calls, with what nobody owns said aloud."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger.made import cost, record

from attribkit.cost import Cost
from attribkit.errors import ConfigurationError
from attribkit.ledger.base import ROW_FIELDS, Loss
from attribkit.ledger.memory import MemoryLedger
from attribkit.reports.periods import instant, nanoseconds
from attribkit.reports.queries import KNOWN_FIELDS, spend
from attribkit.reports.render import as_csv, as_json, as_text, notes, table

NOW = datetime(2026, 11, 21, 13, 30, 5, 123456, tzinfo=UTC)


@pytest.fixture
def ledger() -> MemoryLedger:
    made = MemoryLedger()
    retried = record({"tenant_id": "acme", "workflow": "a"}, status="error", cost=Cost.free("429: not billed"))
    for call in (
        retried,
        record({"tenant_id": "acme", "workflow": "a"}, operation_id=retried.operation_id, attempt=1, cost=cost("1.5")),
        record({"tenant_id": "acme", "workflow": "b", "plan": "pro"}, cost=cost("0.000000000001")),
        record({"tenant_id": "globex", "workflow": "a"}, cost=cost("2")),
        record({"tenant_id": "globex", "workflow": "a"}, cost=Cost.unknown("no such model")),
        record({"workflow": "a"}, cost=cost("0.5")),
    ):
        made.finished(call)
    return made


def test_by_tenant_the_costliest_first(ledger: MemoryLedger) -> None:
    report = spend(ledger)
    assert [(row.key, row.spend.calls, row.spend.attempts, row.spend.cost) for row in report.rows] == [
        (("globex",), 2, 2, Decimal(2)),
        (("acme",), 2, 3, Decimal("1.500000000001")),
        ((None,), 1, 1, Decimal("0.5")),
    ]
    assert report.total[:4] == (5, 6, Decimal("4.000000000001"), 1)
    assert report.unattributed.calls == 1
    assert report.unattributed_share_of_cost == pytest.approx(0.125)
    assert report.unattributed_share_of_calls == 0.2
    assert report.unpriced_share_of_calls == 0.2


def test_by_several_fields_with_conditions_and_a_top(ledger: MemoryLedger) -> None:
    report = spend(ledger, by=("tenant_id", "workflow"), where={"tenant_id": ["acme", "globex"]}, top=2)
    assert [row.key for row in report.rows] == [("globex", "a"), ("acme", "a")]
    assert report.omitted == 1
    assert report.total.cost == Decimal("3.500000000001"), "the total is over all groups"
    assert report.unattributed.calls == 0
    by_plan = spend(ledger, by=["plan"], sort="calls")
    assert [(row.key[0], row.spend.calls) for row in by_plan.rows] == [(None, 4), ("pro", 1)]
    assert [row.key for row in spend(ledger, by=["workflow"], sort="name").rows] == [("a",), ("b",)]


def test_without_fields_there_is_only_the_total(ledger: MemoryLedger) -> None:
    report = spend(ledger, by=())
    assert report.rows == ()
    assert report.total.calls == 5


def test_every_known_field_can_be_asked_for(ledger: MemoryLedger) -> None:
    for field in (*KNOWN_FIELDS, *ROW_FIELDS):
        report = spend(ledger, by=(field,))
        assert sum((row.spend.cost for row in report.rows), Decimal(0)) == report.total.cost, field


def test_since_is_included_and_until_is_not() -> None:
    ledger = MemoryLedger()
    for hour in range(24):
        ledger.finished(record(started_ns=nanoseconds(datetime(2026, 11, 1, hour))))
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert spend(ledger, since=noon).total.calls == 12
    assert spend(ledger, until=noon).total.calls == 12
    assert spend(ledger, since=noon, until=noon + timedelta(hours=1)).total.calls == 1
    east = datetime(2026, 11, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert spend(ledger, until=east).total.calls == 7
    assert [row.key[0] for row in spend(ledger, by=["hour"], sort="name", top=1).rows] == ["2026-11-01T00:00Z"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.decimals(0, 9_000_000, places=12)), max_size=25))
def test_groups_add_up_to_the_total_to_the_last_digit(calls: list[tuple[str | None, Decimal]]) -> None:
    ledger = MemoryLedger()
    expected: dict[str | None, Decimal] = defaultdict(Decimal)
    for tenant, usd in calls:
        ledger.finished(record({"tenant_id": tenant}, cost=cost(usd)))
        expected[tenant] += usd
    report = spend(ledger)
    assert {row.key[0]: row.spend.cost for row in report.rows} == expected
    assert report.total.cost == sum(expected.values(), Decimal(0))
    read = json.loads(as_json(report))
    assert sum((Decimal(row["cost_usd"]) for row in read["rows"]), Decimal(0)) == Decimal(read["total"]["cost_usd"])


def test_a_name_with_a_slip_is_refused(ledger: MemoryLedger) -> None:
    with pytest.raises(ConfigurationError, match="no call in the ledger has it; did you mean tenant_id"):
        spend(ledger, by=("tennant_id",))
    with pytest.raises(ConfigurationError, match="named twice"):
        spend(ledger, by=("model", "model"))
    with pytest.raises(ConfigurationError, match="at least 1"):
        spend(ledger, top=0)
    with pytest.raises(ConfigurationError, match="sort by one of cost, calls"):
        spend(ledger, sort="price")
    assert spend(ledger, by=("plan",), where={"tenant_id": "globex"}).rows[0].key == (None,), "others have it"


def test_json_has_just_these_keys(ledger: MemoryLedger) -> None:
    ledger.write_losses([Loss("1", 0, 2**62, 3, "host:1")])
    read = json.loads(as_json(spend(ledger, by=("tenant_id", "workflow"))))
    figures = ["calls", "attempts", "cost_usd", "unpriced_calls", "input_tokens", "output_tokens"]
    assert [list(row) for row in read["rows"]] == [["tenant_id", "workflow", *figures]] * 4
    assert read["rows"][0] == {
        **{"tenant_id": "globex", "workflow": "a", "calls": 2, "attempts": 2, "cost_usd": "2"},
        **{"unpriced_calls": 1, "input_tokens": 3000, "output_tokens": 500},
    }
    assert read["rows"][2] | {"cost_usd": "0.5"} == read["rows"][2] and read["rows"][2]["tenant_id"] is None
    assert read["rows"][3]["cost_usd"] == "0.000000000001"
    assert read["total"] == {
        **{"calls": 5, "attempts": 6, "cost_usd": "4.000000000001", "unpriced_calls": 1},
        **{"input_tokens": 9000, "output_tokens": 1500, "estimated_calls": 0, "lost_calls": 3},
        **{"unattributed_share_of_cost": 0.125, "unattributed_share_of_calls": 0.2, "unpriced_share_of_calls": 0.2},
    }


def test_csv_is_exact_and_leaves_unset_fields_empty(ledger: MemoryLedger) -> None:
    ledger.finished(record({"tenant_id": 'a,"b"\n'}, cost=cost("0.25")))
    lines = list(csv.DictReader(io.StringIO(as_csv(spend(ledger)))))
    assert [line["tenant_id"] for line in lines] == ["globex", "acme", "", 'a,"b"\n']
    assert lines[1]["cost_usd"] == "1.500000000001"


def test_text_is_for_the_eye(ledger: MemoryLedger) -> None:
    text = as_text(spend(ledger, top=2))
    assert text.splitlines() == [
        "tenant_id   calls  attempts  cost USD  unpriced  in tok  out tok",
        "globex          2         2  2.000000         1   3,000      500",
        "acme            2         3  1.500000         -   4,500      750",
        "... 1 more",
        "total           5         6  4.000000         1   9,000    1,500",
        "",
        "unattributed: 12.5% of cost, 20.0% of calls (1 without tenant_id)",
        "unpriced: 1 of 5 calls (20.0%) have no price and are not in the cost",
    ]


def test_no_price_is_not_zero_and_a_trifle_is_not_nothing(ledger: MemoryLedger) -> None:
    text = as_text(spend(ledger, by=("tenant_id", "cost_status"), where={"tenant_id": "globex"}))
    assert "no price" in text
    assert "<0.000001" in as_text(spend(ledger, by=("workflow",)))


def test_an_empty_range_says_so(ledger: MemoryLedger) -> None:
    report = spend(ledger, since=NOW + timedelta(days=9999))
    assert notes(report) == ["no calls in this range"]
    assert report.unattributed_share_of_calls is None
    assert json.loads(as_json(report))["total"]["unpriced_share_of_calls"] is None


def test_what_a_terminal_would_obey_is_escaped() -> None:
    ledger = MemoryLedger()
    ledger.finished(record({"tenant_id": "\x1b[31mred\x07\n[bold]"}))
    text = as_text(spend(ledger))
    assert "\x1b" not in text and "\\x1b[31mred\\x07\\n[bold]" in text
    shown = drawn(spend(ledger), 120)
    assert "\\x1b[31mred\\x07\\n[bold]" in shown


def drawn(report: object, width: int) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table(report, width=width))  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_has_bars_and_fits(ledger: MemoryLedger, width: int) -> None:
    shown = drawn(spend(ledger), width)
    assert "█" in shown and "50.0%" in shown and "(none)" in shown and "total" in shown
    assert max(map(len, shown.splitlines())) <= width
    assert "█" not in drawn(spend(ledger, by=("tenant_id", "workflow", "model")), 60)
    assert "… " not in shown


def test_lost_calls_are_told(ledger: MemoryLedger) -> None:
    ledger.write_losses([Loss("1", 0, 2**62, 1234, "host:1")])
    assert notes(spend(ledger))[-1] == "lost: 1,234 calls are in no figure: the disk was full for too long"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:30", datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),
        ("2026-11-01T08:30:00+02:00", datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
        ("2026-11-01 08:30Z", datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),
        ("7d", NOW - timedelta(days=7)),
        ("24h", NOW - timedelta(hours=24)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2w", NOW - timedelta(weeks=2)),
        ("today", datetime(2026, 11, 21, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 11, 20, tzinfo=UTC)),
        ("month", datetime(2026, 11, 1, tzinfo=UTC)),
        ("year", datetime(2026, 1, 1, tzinfo=UTC)),
        ("now", NOW),
    ],
)
def test_instants_as_people_write_them(text: str, expected: datetime) -> None:
    assert instant(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "7", "7y", "999999w", "2026-13-01", "2026-11-01T25:00"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no time; write an ISO date or time"):
        instant(text, now=NOW)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))
def test_nanoseconds_are_exact(when: datetime) -> None:
    assert nanoseconds(when) % 1000 == 0
    assert datetime(1970, 1, 1) + timedelta(microseconds=nanoseconds(when) // 1000) == when


def test_a_report_sees_one_state_of_a_busy_ledger() -> None:
    rng = random.Random(3)
    ledger = MemoryLedger()
    for _ in range(50):
        ledger.finished(record({"tenant_id": rng.choice("abc")}, cost=cost(Decimal(rng.randrange(10**12)).scaleb(-12))))
    report = spend(ledger, by=("tenant_id",))
    assert sum((row.spend.cost for row in report.rows), Decimal(0)) == report.total.cost
