"""Sums over many rows equal the sum of the Decimals, to the last digit.

Ten million rows in each store: ATTRIBKIT_MANY_ROWS=10000000 python -m pytest tests/ledger/test_exact_sums.py
"""

from __future__ import annotations

import os
import random
from decimal import Context, Decimal
from pathlib import Path

import pytest

from attribkit.ledger.base import Question
from attribkit.ledger.memory import MemoryLedger
from attribkit.ledger.sqlite import SqliteLedger
from attribkit.money import from_pico, to_pico
from attribkit.pricing.engine import PriceEngine
from attribkit.reports.queries import spend

ROWS = int(os.environ.get("ATTRIBKIT_MANY_ROWS", "100000"))
_KINDS = 1_000
_WIDE = Context(prec=60)


@pytest.mark.parametrize("kept", ["file", "memory"])
def test_the_sum_of_many_costs_is_exact(tmp_path: Path, kept: str) -> None:
    engine, dice = PriceEngine.bundled(), random.Random(7)
    costs = []
    for _ in range(_KINDS):
        payload = {"prompt_tokens": dice.randrange(1, 10**6), "completion_tokens": dice.randrange(10**5),
                   "prompt_tokens_details": {"cached_tokens": 0}}  # fmt: skip
        cost = engine.price(payload, provider="openai", model=dice.choice(("gpt-5-nano", "gpt-4.1", "o1-pro")))
        assert cost.usd is not None and from_pico(to_pico(cost.usd)) == cost.usd  # nothing below a pico-dollar
        costs.append(cost.usd)
    store = SqliteLedger(str(tmp_path / "many.db")) if kept == "file" else MemoryLedger()
    store.query(Question())
    columns = (
        "call_id, operation_id, attempt, started_ns, client, provider, host, api, batch, stream, status, hop, "
        "tenant_id, input_tokens, output_tokens, cost_pico, list_pico, cost_status, price_version, cost_lines"
    )
    rows = (
        (
            f"{number:012}", f"{number:012}", 0, number, "c", "openai", "h", "chat", 0, 0, "ok", "inherited",
            f"tenant-{number % 7}", 1, 1, to_pico(costs[number % _KINDS]), to_pico(costs[number % _KINDS]), "priced",
            "v", "[]",
        )
        for number in range(ROWS)
    )  # fmt: skip
    statement = f"INSERT INTO attribkit_calls ({columns}) VALUES ({', '.join('?' * 20)})"
    store._database.write(lambda connection: connection.executemany(statement, rows) and None)

    total, by_tenant = Decimal(0), dict.fromkeys((f"tenant-{n}" for n in range(7)), Decimal(0))
    for number in range(ROWS):
        total = _WIDE.add(total, costs[number % _KINDS])
        tenant = f"tenant-{number % 7}"
        by_tenant[tenant] = _WIDE.add(by_tenant[tenant], costs[number % _KINDS])
    report = spend(store, by=("tenant_id",))
    assert (report.total.cost, report.total.attempts) == (total, ROWS)
    assert {row.key[0]: row.spend.cost for row in report.rows} == by_tenant
    assert report.total.list_cost == report.total.charged == total
    store.close()
