"""What is right, leaked, wrong, missing and too much: tables of requests and notes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attribkit.testing import CapturedRequest
from attribkit.verify.judge import Column, by_marker, judge
from attribkit.verify.lab import Lab
from attribkit.verify.notes import Note

_REST = ("m", None, None, None)


def request(prompt: str, tenant: Any, *, response_id: str | None = "r1", status: int = 200) -> CapturedRequest:
    told = {} if tenant is None else {"tenant_id": tenant.tenant_id, "workflow_id": tenant.workflow_id}
    headers = (("x-portkey-metadata", json.dumps(told)), ("x-app", "crm-7"))
    body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
    return CapturedRequest(
        1, 0.0, 1, "POST", "/v1/chat/completions", headers, body, status, "answered", 0, response_id, *_REST
    )


def row(tenant: Any, response_id: str | None = "r1", status: str = "ok", kind: str = "row") -> Note:
    return Note(kind, response_id, status, tenant and tenant.tenant_id, tenant and tenant.workflow_id)


@pytest.fixture
def two() -> Any:
    lab = Lab("http://127.0.0.1:1")
    one, other = lab.tenants(2)
    return lab, one, other, one.ask()


def found(lab: Lab, requests: list[CapturedRequest], notes: list[Note], spans: bool = False) -> Any:
    return judge(lab.expected, by_marker(requests), notes, spans=spans)


def test_right(two: Any) -> None:
    lab, one, _, prompt = two
    verdict = found(lab, [request(prompt, one)], [row(one), row(one, kind="span")], spans=True)
    assert verdict.wire == verdict.row == verdict.span == Column(expected=1, right=1)
    assert verdict.wire.good


@pytest.mark.parametrize(
    ("told", "column"),
    [(None, Column(expected=1, leaked=1)), ("other", Column(expected=1, wrong=1))],
)
def test_leaked_and_wrong(two: Any, told: str | None, column: Column) -> None:
    lab, _, other, prompt = two
    who = other if told else None
    verdict = found(lab, [request(prompt, who)], [row(who)])
    assert verdict.wire == verdict.row == column and not column.good


def test_a_workflow_of_another_is_wrong_too(two: Any) -> None:
    lab, one, other, prompt = two
    one.workflow_id, mine = other.workflow_id, one.workflow_id
    sent = request(prompt, one)
    one.workflow_id = mine
    assert found(lab, [sent], [row(one)]).wire.wrong == 1


def test_a_request_that_never_left_is_missed_on_the_wire_and_as_row(two: Any) -> None:
    lab, *_ = two
    verdict = found(lab, [], [])
    assert verdict.wire == verdict.row == Column(expected=1, missing=1)


def test_two_rows_of_one_request(two: Any) -> None:
    lab, one, _, prompt = two
    verdict = found(lab, [request(prompt, one)], [row(one), row(one)])
    assert verdict.row == Column(expected=1, right=1, extra=1) and not verdict.row.good


def test_rows_that_are_swapped_are_wrong_though_each_tenant_has_one(two: Any) -> None:
    lab, one, other, prompt = two
    sent = [request(prompt, one, response_id="r1"), request(other.ask(), other, response_id="r2")]
    verdict = found(lab, sent, [row(other, "r1"), row(one, "r2")])
    assert verdict.wire.good and verdict.row == Column(expected=2, wrong=2)


def test_retries_have_a_row_each_and_one_span(two: Any) -> None:
    lab, one, _, _ = two
    lab.expected.clear()
    prompt = one.ask(requests=2)
    sent = [request(prompt, one, response_id=None, status=429), request(prompt, one)]
    notes = [row(one, None, "error"), row(one), row(one, None, "error", "span"), row(one, kind="span")]
    verdict = found(lab, sent, notes, spans=True)
    assert verdict.wire.good and verdict.row == Column(expected=2, right=2) and verdict.span == Column(1, 1)


def test_work_for_nobody_may_name_no_tenant(two: Any) -> None:
    lab, one, _, _ = two
    lab.expected.clear()
    prompt = lab.nobody().ask()
    assert found(lab, [request(prompt, None)], [row(None)]).wire.good
    assert found(lab, [request(prompt, one)], [row(one)]).wire.wrong == 1


def test_a_row_of_a_cache_hit_is_one_more_and_has_to_be_right(two: Any) -> None:
    lab, one, other, prompt = two
    sent, rows = [request(prompt, one)], [row(one)]
    assert found(lab, sent, [*rows, row(one, kind="cached")]).row == Column(1, 1)
    assert found(lab, sent, [*rows, row(other, kind="cached")]).row == Column(1, 1, wrong=1)
    assert found(lab, sent, [*rows, row(None, kind="cached")]).row == Column(1, 1, leaked=1)


def test_headers_of_the_app_that_are_lost(two: Any) -> None:
    lab, one, _, _ = two
    lab.expected.clear()
    prompt = one.ask(keep=("crm-7", "cron-1"))
    assert found(lab, [request(prompt, one)], [row(one)]).lost == ("cron-1",)
