"""What every store keeps: exact sums, no row twice, one state of things for one report."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from ledger.made import cost, record

import attribkit
from attribkit.attribution import Attribution
from attribkit.cost import Cost
from attribkit.errors import ConfigurationError, LedgerBusy, LedgerError, LedgerUnwritable
from attribkit.ledger import LedgerRow, Loss, Question, open_ledger
from attribkit.ledger.memory import MemoryLedger
from attribkit.ledger.reading import row_of
from attribkit.ledger.sqlite import SqliteLedger
from attribkit.money import from_pico

DAY = 86_400 * 10**9


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteLedger]:
    made = SqliteLedger(str(tmp_path / "costs.db")) if request.param == "file" else MemoryLedger()
    yield made
    made.close()


def rows(*calls: object) -> list[LedgerRow]:
    return [row_of(call) for call in calls]  # type: ignore[arg-type]


def test_a_row_is_there_once_however_often_it_is_written(store: SqliteLedger) -> None:
    one, two = rows(record(), record())
    assert store.write([one, two]) == 2
    assert store.write([two, one, two]) == 0
    assert list(store.records()) == sorted([one, two])


def test_a_group_is_an_operation_once_and_its_attempts(store: SqliteLedger) -> None:
    first = record(status="error", cost=Cost.free("429"))
    again = record(operation_id=first.operation_id, attempt=1)
    store.write(rows(first, again, record()))
    (group,) = store.query(Question())
    assert (group.key, group.calls, group.attempts) == ((), 2, 3)
    by_status = {group.key: (group.calls, group.attempts) for group in store.query(Question(("status",)))}
    assert by_status == {("ok",): (2, 2), ("error",): (1, 1)}


def test_nothing_adds_up_to_one_empty_group(store: SqliteLedger) -> None:
    assert store.query(Question()) == [((), 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    assert store.query(Question(("tenant_id",))) == []


def test_sums_of_a_hundred_thousand_rows_are_exact(tmp_path: Path) -> None:
    rng = random.Random(7)
    store = SqliteLedger(str(tmp_path / "costs.db"))
    expected: dict[str, Decimal] = defaultdict(Decimal)
    tokens: dict[str, int] = defaultdict(int)
    pattern = row_of(record())
    batch = []
    for number in range(100_000):
        tenant = f"tenant-{number % 7}"
        pico = rng.choice(
            (rng.randrange(10**6), rng.randrange(10**12), rng.randrange(-(10**9), 0), rng.randrange(2**63))
        )
        count = rng.choice((rng.randrange(10**4), rng.randrange(2**63)))
        with_sum = pattern._replace(call_id=f"{number:032x}", tenant_id=tenant, cost_pico=pico, input_tokens=count)
        batch.append(with_sum)
        expected[tenant] += from_pico(pico)
        tokens[tenant] += count
    assert sum(store.write(batch[start : start + 1000]) for start in range(0, len(batch), 1000)) == 100_000
    groups = store.query(Question(("tenant_id",)))
    assert {group.key[0]: from_pico(group.cost_pico) for group in groups} == expected
    assert {group.key[0]: group.input_tokens for group in groups} == tokens
    (total,) = store.query(Question())
    assert from_pico(total.cost_pico) == sum(expected.values())
    assert total.cost_pico > 2**63


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_beyond_64_bits_is_exact(store: SqliteLedger, sign: int) -> None:
    most = sign * (2**63 - 1)
    pattern = row_of(record())
    store.write([pattern._replace(call_id=str(number), cost_pico=most, output_tokens=most) for number in range(9)])
    (group,) = store.query(Question())
    assert (group.cost_pico, group.output_tokens) == (9 * most, 9 * most)


def test_groups_by_every_kind_of_field(store: SqliteLedger) -> None:
    call = record(
        {"tenant_id": "acme", "plan": "pro", "model": "shadowed", "a.b-c": "x"},
        started_ns=20_000 * DAY + 3_600 * 5 * 10**9,
        served_model=None,
        served_tier=None,
        requested_tier="flex",
        http_status=429,
    )
    store.write(rows(call))

    def key(field: str) -> str | None:
        return store.query(Question((field,)))[0].key[0]

    assert key("plan") == "pro"
    assert key("a.b-c") == "x"
    assert key("nobody-has-it") is None
    assert key("model") == "gpt-4o"
    assert key("dimensions.model") == "shadowed"
    assert key("service_tier") == "flex"
    assert (key("day"), key("hour"), key("month")) == ("2024-10-04", "2024-10-04T05:00Z", "2024-10")
    assert key("http_status") == "429"
    assert [key(name) for name in ("provider", "gateway", "host", "api", "hop", "status")] == [
        *("openai", "portkey", "127.0.0.1:8787", "chat", "inherited", "ok"),
    ]


def test_asks_only_for_some_rows(store: SqliteLedger) -> None:
    store.write(
        rows(
            record({"tenant_id": "acme", "plan": "pro"}, started_ns=10),
            record({"tenant_id": "acme"}, started_ns=20),
            record({"tenant_id": "globex"}, started_ns=30),
            record({}, started_ns=40),
        )
    )

    def count(**question: object) -> int:
        return store.query(Question(**question))[0].attempts  # type: ignore[arg-type]

    assert count(since_ns=20) == 3
    assert count(until_ns=20) == 1
    assert count(since_ns=10, until_ns=40) == 3
    assert count(where={"tenant_id": "acme"}) == 2
    assert count(where={"tenant_id": None}) == 1
    assert count(where={"tenant_id": ["globex", None]}) == 2
    assert count(where={"tenant_id": []}) == 0
    assert count(where={"tenant_id": "acme", "plan": None}) == 1
    assert count(where={"plan": "pro"}) == 1
    assert [row.started_ns for row in store.records(Question(where={"tenant_id": "acme"}))] == [10, 20]


@pytest.mark.parametrize("field", ["", "a b", "x' OR 1=1 --", 'q"q', "k" * 65, "a;b"])
def test_a_name_that_no_field_can_have_is_refused(store: SqliteLedger, field: str) -> None:
    for question in (Question((field,)), Question(where={field: "x"})):
        with pytest.raises(ConfigurationError, match="cannot be a field"):
            store.query(question)


def test_values_are_never_sql(store: SqliteLedger) -> None:
    hostile = "'; DROP TABLE attribkit_calls; --"
    store.write(rows(record({"tenant_id": hostile})))
    assert store.query(Question(("tenant_id",), where={"tenant_id": hostile}))[0].key == (hostile,)


def test_records_come_in_the_order_of_their_ids_page_by_page(store: SqliteLedger) -> None:
    made = rows(*(record() for _ in range(1203)))
    store.write(made[600:])
    store.write(made[:600])
    assert list(store.records()) == sorted(made)
    one = next(store.records())
    assert one.attribution == Attribution.of({"tenant_id": "acme", "workflow": "onboarding"})
    assert one.model == "gpt-4o-2024-08-06"
    assert one.as_dict()["meters"] == {"input": 1200, "cache_read": 300, "output": 250}
    assert isinstance(one.stream, bool)


def test_losses_are_kept_once_and_found_by_time(store: SqliteLedger) -> None:
    loss = Loss("id", 100, 200, 7, "host:1")
    store.write_losses([loss])
    store.write_losses([loss, Loss("other", 500, 600, 1, "host:2")])
    assert [found.loss_id for found in store.losses()] == ["id", "other"]
    assert store.losses(since_ns=200, until_ns=500) == [loss]
    assert store.losses(since_ns=201, until_ns=500) == []


def test_a_snapshot_does_not_move(tmp_path: Path) -> None:
    ours, theirs = SqliteLedger(str(tmp_path / "a.db")), SqliteLedger(str(tmp_path / "a.db"))
    ours.write(rows(record()))
    with ours.snapshot():
        assert ours.query(Question())[0].attempts == 1
        theirs.write(rows(record()))
        assert ours.query(Question())[0].attempts == 1
    assert ours.query(Question())[0].attempts == 2


def test_a_row_that_no_store_can_hold_fails_alone(tmp_path: Path) -> None:
    from attribkit.ledger.delivery import deliver
    from attribkit.ledger.lines import line_of

    store = SqliteLedger(str(tmp_path / "a.db"))
    lines = [line_of(record()) for _ in range(50)]
    lines[20] = line_of(record(started_ns=2**64))
    lines[30] = line_of(record(host=None))
    delivered = deliver(store, lines)
    assert delivered.rows == len(list(store.records())) == 48
    assert len(delivered.rejected) == 2


# Files


def test_tables_of_others_in_the_same_file_stay_as_they_are(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as app:
        app.execute("PRAGMA user_version = 42")
        app.execute("CREATE TABLE calls (mine TEXT)")
    app.close()
    store = open_ledger(f"sqlite:///{tmp_path}/app.db")
    store.write(rows(record()))
    store.close()
    app = sqlite3.connect(tmp_path / "app.db")
    assert app.execute("PRAGMA user_version").fetchone() == (42,)
    assert app.execute("SELECT count(*) FROM calls").fetchone() == (0,)
    app.close()


def test_a_ledger_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    store = SqliteLedger(str(tmp_path / "a.db"))
    store.write(rows(record()))
    store.close()
    with sqlite3.connect(tmp_path / "a.db") as newer:
        newer.execute("UPDATE attribkit_schema SET version = 99")
    newer.close()
    with pytest.raises(LedgerError, match="version 99 and this attribkit knows 2"):
        SqliteLedger(str(tmp_path / "a.db")).query(Question())


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("this is a shopping list, and longer than a page header would be " * 20)
    with pytest.raises(LedgerError, match=r"a\.db: file is not a database"):
        SqliteLedger(str(tmp_path / "a.db")).query(Question())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnwritable, match="its folder does not exist"):
        SqliteLedger(str(tmp_path / "no" / "a.db")).query(Question())


def test_a_missing_ledger_is_not_made_by_asking(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger; attribkit\.instrument"):
        open_ledger(f"sqlite:///{tmp_path}/a.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_held_elsewhere_is_waited_for_and_then_told(tmp_path: Path) -> None:
    SqliteLedger(str(tmp_path / "a.db")).write(rows(record()))
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = SqliteLedger(str(tmp_path / "a.db"), patience=0.05)
    with pytest.raises(LedgerBusy, match="another process holds the database's lock"):
        store.write(rows(record()))
    assert store.query(Question())[0].attempts == 1, "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    assert store.write(rows(record())) == 1


def test_many_processes_make_the_ledger_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from ledger.made import record; from attribkit.ledger.sqlite import SqliteLedger;"
        "from attribkit.ledger.reading import row_of;"
        "sys.stdin.readline(); SqliteLedger(sys.argv[1], patience=20).write([row_of(record()) for _ in range(5)])"
    )
    places = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(attribkit.__file__).parents[1])])
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "a.db")], stdin=subprocess.PIPE, env={"PYTHONPATH": places}
        )
        for _ in range(6)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write(b"go\n")
        maker.stdin.close()
    assert [maker.wait() for maker in makers] == [0] * 6
    assert SqliteLedger(str(tmp_path / "a.db")).query(Question())[0].attempts == 30


def test_a_database_is_let_go_of_around_a_fork(tmp_path: Path) -> None:
    store = SqliteLedger(str(tmp_path / "a.db"))
    store.write(rows(record()))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if store.write(rows(record())) == 1 else 1)
        except BaseException:
            os._exit(2)
    store.write(rows(record()))
    assert os.waitpid(child, 0)[1] == 0
    assert store.query(Question())[0].attempts == 3
    with store.snapshot():
        child = os.fork()
        if child == 0:
            try:
                store.close()
                store.write(rows(record()))
            except LedgerUnwritable:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "forked out of a transaction: the child may not use the file"
    store.close()
    connection = sqlite3.connect(tmp_path / "a.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


# URLs


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "postgresql://user:secret@host/db",
            "PostgreSQL is not supported by this version; use sqlite:///PATH, memory://",
        ),
        ("clickhouse://h", "ClickHouse is not supported by this version"),
        ("oracle://h", "there is no such store; use sqlite:///PATH, memory://"),
        ("costs.db", "write sqlite:///costs.db"),
        ("/var/lib/costs.db", "write sqlite:////var/lib/costs.db"),
        ("sqlite://costs.db", "a SQLite URL is sqlite:/// and a path"),
        ("sqlite:///costs.db?mode=ro", "a SQLite URL is sqlite:/// and a path"),
    ],
)
def test_a_url_that_names_no_store_says_what_would(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_ledger(url)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_urls_name_files_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in (("sqlite:///a.db", tmp_path / "a.db"), (f"sqlite:///{tmp_path}/b.db", tmp_path / "b.db")):
        store = open_ledger(url)
        store.write(rows(record()))
        assert path.exists()
    for url in ("memory://", "sqlite://", "sqlite:///:memory:"):
        assert isinstance(open_ledger(url), MemoryLedger)


def test_a_memory_ledger_is_a_sink() -> None:
    ledger = MemoryLedger()
    call = record(cost=cost("0.5"))
    ledger.finished(call)
    assert ledger.calls == [call]
    assert [row.usd for row in ledger.rows()] == [Decimal("0.5")]
    assert ledger.flush()
