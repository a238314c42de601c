"""In the real ClickHouse engine: the tables, the loader and the queries of integrations/clickhouse."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from counterparts.started import ROOT, ClickHouse, clickhouse
from ledger.made import record

import attribkit
from attribkit.ledger.base import COLUMNS, Question
from attribkit.ledger.open import open_ledger, open_sink
from attribkit.money import to_pico

pytestmark = [pytest.mark.counterpart, pytest.mark.large]
HERE = ROOT / "integrations/clickhouse"


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    with clickhouse(tmp_path) as running:
        yield running


def kept(tmp_path: Path) -> str:
    """Return the URL of a ledger with calls of three tenants and of nobody."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    sink, chance = open_sink(url), random.Random(11)
    for number in range(400):
        tenant = (None, "acme", "globex", "Zürich '東京'\n\"\\")[number % 4]
        who = {"tenant_id": tenant, "workflow": "onboarding", "workflow_id": f"w-{number % 9}", "plan": "gold"}
        usd = Decimal(chance.randrange(1, 10**13)).scaleb(-12)
        made = record({key: value for key, value in who.items() if value is not None})
        sink.finished(made._replace(cost=made.cost._replace(usd=usd, list_usd=usd * 2)))
    unpriced = attribkit.price({}, model="no-such-model", provider="openai")
    sink.finished(record({"tenant_id": "acme"}, cost=unpriced, http_status=None, trace_id=None, span_id=None))
    sink.close()
    return url


def load(rows: Any, url: str) -> int:
    spec = importlib.util.spec_from_file_location("load", HERE / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: int = module.load(rows, url)
    return loaded


def test_every_row_of_a_ledger_arrives_once_and_exactly(engine: ClickHouse, tmp_path: Path) -> None:
    store = open_ledger(kept(tmp_path))
    rows = list(store.records(Question()))
    assert load(rows, engine.url) == load(rows, engine.url) == 401  # the second time changes nothing
    found = engine.rows(f"SELECT {','.join(COLUMNS)} FROM attribkit.calls FINAL ORDER BY call_id")
    assert len(found) == 401
    for row, there in zip(rows, found, strict=True):
        said = {key: str(value) if value is not None else None for key, value in row._asdict().items()}
        assert {key: str(value) if value is not None else None for key, value in there.items()} == said

    queries = (HERE / "queries.sql").read_text().split("-- ")
    named = {name: text for name, _, text in (query.partition(":") for query in queries)}
    assert {"spend_by_tenant", "spend_by_plan", "unattributed"} <= set(named)

    def ask(name: str) -> list[dict[str, Any]]:
        return engine.rows(named[name].partition("\n")[2].rstrip().rstrip(";"))

    spent = {row["tenant_id"]: row for row in ask("spend_by_tenant")}
    for group in store.query(Question(by=("tenant_id",))):
        there = spent[group.key[0]]
        assert to_pico(Decimal(there["usd"])) == group.cost_pico
        assert (int(there["calls"]), int(there["unpriced"])) == (group.calls, group.unpriced_calls)
    (plans,) = [row for row in ask("spend_by_plan") if row["plan"] == "gold"]
    assert to_pico(Decimal(plans["usd"])) == sum(row.cost_pico or 0 for row in rows)
    (nobody,) = ask("unattributed")
    assert int(nobody["calls"]) == 100
    assert len(ask("dearest_workflows")) == 20
    assert len(ask("spans_and_rows")) == 401 and {row["no_span"] for row in ask("spans_and_rows")} <= {1}

    focus = engine.rows("SELECT * FROM attribkit.focus")
    for key, cost in itertools.product(("acme", "globex"), ("EffectiveCost", "ContractedCost", "ListCost")):
        (group,) = [one for one in store.query(Question(by=("tenant_id",))) if one.key == (key,)]
        asked = {"EffectiveCost": group.charged_pico, "ContractedCost": group.cost_pico, "ListCost": group.list_pico}
        assert sum(to_pico(Decimal(row[cost])) for row in focus if row["SubAccountId"] == key) == asked[cost]
    store.close()


def panels() -> Iterator[tuple[str, str]]:
    """Yield the title and the query of each panel and variable of the dashboard."""
    board = json.loads((ROOT / "integrations/grafana/dashboard.json").read_text())
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"${variable['name']}", variable["query"]
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["rawSql"]


def as_grafana_writes(query: str, tenants: list[str]) -> str:
    """Return a query as Grafana's ClickHouse data source sends it, for the last day by hours; no tenants means all."""
    now = int(time.time()) + 60
    quoted = ",".join("'" + tenant.replace("\\", "\\\\").replace("'", "\\'") + "'" for tenant in tenants)
    query = re.sub(r"\$__conditionalAll\((.+), \$tenant\)", r"\1" if tenants else "1=1", query)
    query = query.replace("${tenant:singlequote}", quoted)
    query = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= toDateTime({now - 86400}) AND \1 <= toDateTime({now})", query)
    query = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 3600 second)", query)
    assert "$" not in query
    return query


def test_every_panel_of_the_dashboard_says_what_the_ledger_says(engine: ClickHouse, tmp_path: Path) -> None:
    store = open_ledger(kept(tmp_path))
    load(store.records(Question()), engine.url)
    calls = "'front', 'chat', map('attribkit.tenant_id', 'acme', 'attribkit.call.id', toString(number),"
    engine.run(
        "INSERT INTO otel.otel_traces (Timestamp, TraceId, SpanId, ServiceName, SpanName, SpanAttributes)"
        f" SELECT now64(9), 't', toString(number), {calls} 'attribkit.cost.usd', '0.25') FROM numbers(4)"
        " UNION ALL SELECT now64(9), 't', 'inner', 'proxy', 'auth', map()"
    )

    def shown(*tenants: str) -> dict[str, list[dict[str, Any]]]:
        return {title: engine.rows(as_grafana_writes(query, list(tenants))) for title, query in panels()}

    odd = "Zürich '東京'\n\"\\"
    everybody, one, nobody = shown(), shown(odd), shown("")
    of = {group.key[0]: group for group in store.query(Question(by=("tenant_id",)))}
    assert {row["tenant"] for row in everybody["$tenant"]} == {"", "acme", "globex", odd}
    for board, tenants in ((everybody, set(of)), (one, {odd}), (nobody, {None})):
        groups = [of[tenant] for tenant in tenants]
        usd = float(Decimal(sum(group.cost_pico or 0 for group in groups)).scaleb(-12))
        calls = sum(group.calls for group in groups)
        assert board["Spend"] == [{"usd": pytest.approx(usd)}]
        assert [int(row["calls"]) for row in board["Calls"]] == [calls]
        attributed = sum(group.calls for group in groups if group.key[0] is not None) / calls
        assert board["Calls with a tenant"] == [{"attributed": pytest.approx(attributed)}]
        assert [int(row["unpriced"]) for row in board["Unpriced attempts"]] == [
            sum(group.unpriced_calls for group in groups)
        ]
        shown_tenants = {row["tenant"]: row for row in board["Tenants"]}
        for group in groups:
            row = shown_tenants[group.key[0] or "(nobody)"]
            assert (int(row["calls"]), int(row["attempts"])) == (group.calls, group.attempts)
            assert (int(row["input"]), int(row["output"])) == (group.input_tokens, group.output_tokens)
            assert row["usd"] == pytest.approx(float(Decimal(group.cost_pico or 0).scaleb(-12)))
        assert len(shown_tenants) == len(groups)
        for title in ("Spend by tenant", "Models"):
            assert sum(row["usd"] or 0 for row in board[title]) == pytest.approx(usd)
        assert sum(int(row["calls"]) for row in board["Nobody's calls"]) == of[None].calls
        (lost,) = board["Where the tenant was lost"]
        assert (lost["service"], lost["span"], int(lost["spans"])) == ("proxy", "auth", 1)
    assert [(row["tenant"], row["usd"]) for row in everybody["Spend by tenant, from the spans"]] == [("acme", 1.0)]
    assert one["Spend by tenant, from the spans"] == []
    assert len(everybody["Dearest runs"]) == 20 and everybody["Time to answer, 95th percentile"]
    store.close()
