"""What holds of every request of a framework."""

from __future__ import annotations

from typing import Any


def right(seen: Any, requests: int, *tenants: str) -> None:
    """Check that each request has one row and one span, all for the tenant in its text."""
    rows = seen.records
    assert len(seen.requests()) == len(rows) == len(seen.call_spans()) == requests
    assert {record.cost.status for record in rows} == {"priced"}
    assert {record.attribution.tenant_id for record in rows} == set(tenants)
    for request in seen.requests():
        assert f"for {request.attribution['tenant_id']}".encode() in request.body


def one_row(seen: Any, client: str, provider: str, at_a_gateway: bool) -> Any:
    """Check that acme's one request has one row and one span, and return the row."""
    (record,), (request,), (_,) = seen.records, seen.requests(), seen.call_spans()
    assert (record.client, record.provider, record.attribution.tenant_id) == (client, provider, "acme")
    assert record.status == "ok"
    assert request.attribution.get("tenant_id") == ("acme" if at_a_gateway else None)
    return record
