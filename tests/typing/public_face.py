"""What a user writes, for a type checker to read; nothing here runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from decimal import Decimal
from typing import assert_type

import attribkit
from attribkit.errors import ConfigurationError
from attribkit.ledger import LedgerStore, Question, open_ledger
from attribkit.testing import capture

report = attribkit.instrument(gateways={"http://gateway": "portkey"}, ledger=None)
assert_type(report.ledger, str | None)
assert_type([patch.status == "missing" for patch in report.patches], list[bool])


@attribkit.entrypoint("plain", tenant_id="tenant")
def plain(tenant: str, count: int = 1) -> int:
    return count


@attribkit.entrypoint("coroutine", tenant_id=lambda tenant: tenant)
async def coroutine(tenant: str) -> str:
    return tenant


@attribkit.attributed(feature="stream")
def generator(count: int) -> Iterator[int]:
    yield count


@attribkit.attributed(feature="stream")
async def async_generator(count: int) -> AsyncIterator[int]:
    yield count


assert_type(plain("acme"), int)
work: Callable[[str], Coroutine[object, object, str]] = coroutine
assert_type(generator(1), Iterator[int])
assert_type(async_generator(1), AsyncIterator[int])
carried: Callable[[str, int], int] = attribkit.carry(plain)
made: Coroutine[object, object, str] = attribkit.carry(coroutine("acme"))

plain(1)  # type: ignore[arg-type]
plain("acme", "two")  # type: ignore[arg-type]

with attribkit.attributed(tenant_id="acme") as here:
    assert_type(here, attribkit.Attribution)
    assert_type(attribkit.current().tenant_id, str | None)
    assert_type(here.get("plan"), str | None)


async def scopes() -> None:
    async with attribkit.attributed(tenant_id="acme") as there:
        assert_type(there, attribkit.Attribution)


headers: dict[str, str] = {}
attribkit.inject(headers, key="secret")
assert_type(attribkit.extract(headers, key=b"secret").as_dict(), dict[str, str])

cost = attribkit.price({"prompt_tokens": 1}, model="gpt-4.1", at="2026-11-01")
assert_type(cost.usd, Decimal | None)
assert_type(cost, attribkit.Cost)

try:
    attribkit.Budget("acme", limit="49.00", window="month", match={"tenant_id": "acme"})
except ConfigurationError as error:
    assert_type(error.name, str)
except attribkit.BudgetExceeded as refusal:
    assert_type(refusal.limit, Decimal)
except attribkit.AttributionRequired as missing:
    assert_type(missing.missing, tuple[str, ...])

ledger = open_ledger("sqlite:///attribkit.db")
assert_type(ledger, LedgerStore)
for group in ledger.query(Question(by=("tenant_id",))):
    assert_type(group.cost_pico, int)

with capture(dialect="litellm") as captured:
    captured.assert_attributed("workflow_id", tenant_id="acme")
    assert_type(captured.records[0].cost.usd, Decimal | None)
