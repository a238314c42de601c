"""What crosses a process border comes back the same, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribkit.attribution import Attribution
from attribkit.wire import audience_at, extract, inject, refusals

KEY = b"0123456789abcdef0123456789abcdef"
FIELDS = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40),
    max_size=10,
)


@given(FIELDS)
def test_round_trip(fields: dict[str, str]) -> None:
    attribution = Attribution.of(fields)
    carrier: dict[str, str] = {}
    inject(carrier, attribution, key=KEY)
    assert extract(carrier, key=KEY) == attribution
    assert all(value.isascii() and value.isprintable() for value in carrier.values())


@given(FIELDS.filter(bool), st.data())
def test_one_changed_byte_is_refused(fields: dict[str, str], data: st.DataObject) -> None:
    attribution = Attribution.of(fields)
    carrier: dict[str, str] = {}
    inject(carrier, attribution, key=KEY)
    text = carrier["baggage"]
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[at]))
    assert extract({"baggage": text[:at] + other + text[at + 1 :]}, key=KEY) in (Attribution(),)


def test_unsigned_or_for_another_audience_is_refused() -> None:
    attribution = Attribution.of({"tenant_id": "acme"})
    unsigned: dict[str, str] = {}
    inject(unsigned, attribution)
    assert extract(unsigned) == attribution
    assert not extract(unsigned, key=KEY)
    signed: dict[str, str] = {}
    inject(signed, attribution, key=KEY, audience="orders")
    assert extract(signed, key=KEY, audience="orders") == attribution
    assert not extract(signed, key=KEY, audience="billing")
    assert refusals()


def test_other_baggage_is_kept_and_ours_is_replaced() -> None:
    carrier = {"Baggage": "session.id=1, attribkit.tenant_id=old"}
    inject(carrier, Attribution.of({"tenant_id": "new"}))
    assert carrier == {"Baggage": "attribkit.tenant_id=new,session.id=1"}
    inject(carrier, Attribution())
    assert carrier == {"Baggage": "session.id=1"}


def test_oversized_and_malformed_are_refused() -> None:
    assert not extract({"baggage": "attribkit.tenant_id=" + "a" * 9000})
    assert not extract({"baggage": "attribkit.tenant_id"})
    assert not extract({"baggage": "attribkit.tenant_id=a,attribkit.tenant_id=b"})
    assert not extract({"baggage": "attribkit.x=%ff"})
    assert extract([(b"baggage", b"attribkit.tenant_id=a")]).tenant_id == "a"


def test_what_does_not_fit_is_left_out_and_the_rest_is_believed() -> None:
    carrier: dict[str, str] = {}
    inject(carrier, Attribution.of({f"f{n:02d}": "x" * 1000 for n in range(20)}), key=KEY)
    assert len(carrier["baggage"]) <= 8192
    assert len(extract(carrier, key=KEY)) == 7


def test_headers_in_a_list_as_kafka_clients_have_them() -> None:
    attribution = Attribution.of({"tenant_id": "acme"})
    for there, name, value in (
        ([], "baggage", bytes),
        ([("trace", b"1"), ("Baggage", b"session=1,attribkit.tenant_id=old")], "baggage", bytes),
        ([("trace", "1")], "baggage", str),
        ([(b"trace", b"1")], b"baggage", bytes),
    ):
        headers = list(there)
        inject(headers, attribution, key=KEY, audience="topic")
        found = [pair for pair in headers if pair[0] in ("baggage", "Baggage", b"baggage")]
        assert len(found) == 1 and found[0][0] == name and type(found[0][1]) is value
        assert extract(headers, key=KEY, audience="topic") == attribution
        assert [pair for pair in headers if pair not in found] == [pair for pair in there if pair[0] != "Baggage"]
    inject(headers, Attribution(), key=KEY)
    assert headers == [(b"trace", b"1")]
    assert not extract(None, key=KEY) and not extract([("baggage", None)], key=KEY)


def test_one_of_several_audiences_and_an_age(monkeypatch: pytest.MonkeyPatch) -> None:
    carrier: dict[str, str] = {}
    inject(carrier, Attribution.of({"tenant_id": "acme"}), key=KEY, audience="orders")
    assert extract(carrier, key=KEY, audience=("billing", "orders"), max_age=60)
    assert not extract(carrier, key=KEY, audience=("billing",), max_age=60)
    monkeypatch.setattr("attribkit.wire.time.time", lambda: 4e9)
    assert extract(carrier, key=KEY, audience="orders")
    assert not extract(carrier, key=KEY, audience="orders", max_age=60)


def test_audiences_are_named_as_in_the_host_header() -> None:
    for host, audience in (
        ("Orders.Internal.", "orders.internal"),
        ("orders.internal:80", "orders.internal"),
        ("orders.internal:8080", "orders.internal:8080"),
        ("[::1]:443", "[::1]"),
        ("[::80]", "[::80]"),
    ):
        assert audience_at(host) == audience
