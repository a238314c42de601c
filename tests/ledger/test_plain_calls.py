"""A call whose cost is left to whoever moves its line has the row of one that was priced at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from attribkit.attribution import Attribution
from attribkit.calls import CallKind, CallRecord, LLMCall, Meters, Own, Reply
from attribkit.gateways.route import Gateways
from attribkit.ledger.base import LedgerRow
from attribkit.ledger.lines import line_of, plain_line
from attribkit.ledger.open import open_ledger
from attribkit.ledger.reading import read_line
from attribkit.ledger.writer import LedgerSink
from attribkit.pipeline import Pipeline
from attribkit.pricing.engine import PriceEngine, Rate

QUICK = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)

OVERRIDES: dict[str, dict[str, Any]] = {
    "none": {},
    "discount": {"discount": [{"seller": "openai", "percent": "12.5"}]},
    "price": {"price": [{"seller": "*", "model": "mine", "input": "1.5", "cache_read": "0.2", "output": "3"}]},
    "charge": {"charge": [{"seller": "openai", "percent": "20"}]},
    "conditional": {"discount": [{"seller": "openai", "percent": "5", "when": {"tenant_id": "acme"}}]},
}


class Prices:
    """What the runtime hands to the pipeline."""

    def __init__(self, engine: PriceEngine) -> None:
        self.engine, self.cost, self.kinds = engine, engine.cost, dict[Any, Any]()

    def rate(self, **facts: Any) -> Rate:
        return self.engine.rate(**facts)


class Taken:
    """A sink that keeps lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.left = 0

    def finished(self, record: CallRecord) -> None:
        self.lines.append(line_of(record))

    def plain(self, kind: CallKind, attribution: Attribution, own: Own, meters: Meters) -> None:
        self.left += 1
        self.lines.append(plain_line(kind, attribution, own, meters))


class TakenAtOnce:
    """One that needs the cost."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def finished(self, record: CallRecord) -> None:
        self.lines.append(line_of(record))


counts = st.integers(0, 300_000) | st.sampled_from([0, 1, 272_001, 10**12, 10**12 + 1, 2**70])
odd = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5) | st.integers(-5, 5)
number = counts | counts | counts | odd
chat = st.fixed_dictionaries(
    {"prompt_tokens": number, "completion_tokens": number},
    optional={
        "total_tokens": number,
        "prompt_tokens_details": st.none()
        | st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens", "image_tokens"]), number),
        "completion_tokens_details": st.none()
        | st.dictionaries(st.sampled_from(["reasoning_tokens", "audio_tokens"]), number),
        "prompt_cache_hit_tokens": number,
        "cost": odd,
    },
)
ordinary = st.builds(
    lambda fresh, cached, made, reasoning: {
        "prompt_tokens": fresh + cached,
        "completion_tokens": made,
        "total_tokens": fresh + cached + made,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": min(reasoning, made), "audio_tokens": 0},
    },
    *[st.integers(0, 300_000)] * 4,
)
responses = st.builds(
    lambda fresh, cached, made: {
        "input_tokens": fresh + cached,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
    },
    *[st.integers(0, 300_000)] * 3,
)
models = st.sampled_from(
    ["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "gpt-5.4", "gemini-2.5-pro", "claude-sonnet-4-5", "deepseek-chat", "mine"]
)
tiers = st.sampled_from([None, "default", "flex", "priority", "scale", "batch"])
replies = st.builds(
    Reply,
    usage=st.none() | ordinary | ordinary | responses | chat,
    model=st.none() | models | st.text(max_size=8),
    service_tier=tiers,
    response_id=st.none() | st.text(max_size=20) | st.just("x" * 400),
    http_status=st.sampled_from([None, None, None, 200]),
    chunks=st.sampled_from([0, 7]),
    characters=st.just(0),
    problem=st.sampled_from([None, None, "the reply states no usage"]),
    estimated=st.sampled_from([None, None, None, "counted"]),
)
calls = st.builds(
    LLMCall,
    client=st.just("openai"),
    provider=st.sampled_from(["openai", "azure", "openrouter", "deepseek", "gemini", ""]),
    api=st.sampled_from(["chat", "responses", "batch"]),
    url=st.sampled_from(["http://gateway/v1", "http://other/v1"]),
    model=st.none() | models,
    stream=st.booleans(),
    body=st.none() | st.fixed_dictionaries({}, optional={"service_tier": st.sampled_from(["flex", 3, None])}),
    headers=st.none(),
    batch=st.booleans(),
    region=st.sampled_from([None, "eu"]),
)
whos = st.dictionaries(st.sampled_from(["tenant_id", "workflow", "project"]), st.text(max_size=9), max_size=3)


def operations(sink: Any, engine: PriceEngine, asked: list[Any]) -> None:
    pipeline = Pipeline(gateways=Gateways({"http://gateway": "portkey"}), prices=Prices(engine), sinks=(sink,))
    for call, reply, fields, second in asked:
        operation = pipeline.begin(call, Attribution.of(fields), "inherited")
        operation.next_attempt().started_ns = second * 10**9
        if reply[4:] == Reply()[4:]:
            operation.finish_with(*reply[:4])
        else:
            operation.finish(reply)


def rows(lines: list[bytes]) -> list[LedgerRow]:
    found = [read_line(line.decode()) for line in lines]
    return [row._replace(call_id="", operation_id="", duration_ns=None) for row in found if isinstance(row, LedgerRow)]


@pytest.mark.parametrize("overrides", OVERRIDES)
@settings(QUICK, max_examples=150)
@given(st.lists(st.tuples(calls, replies, whos, st.integers(1_700_000_000, 1_800_000_000)), min_size=1, max_size=4))
def test_the_row_is_that_of_a_cost_worked_out_at_once(overrides: str, asked: list[Any]) -> None:
    engine = PriceEngine.bundled(OVERRIDES[overrides])
    later, at_once = Taken(), TakenAtOnce()
    operations(later, engine, asked * 2)
    operations(at_once, engine, asked * 2)
    assert rows(later.lines) == rows(at_once.lines)
    assert len(later.lines) == len(asked) * 2


CALL = LLMCall("openai", "", "chat", "http://gateway/v1", "gpt-4o-mini", False, {"messages": []})
USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 85,
    "prompt_tokens_details": {"cached_tokens": 1024},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
REPLY = Reply(USAGE, "gpt-4o-mini-2024-07-18", "default", "chatcmpl-1")
WHO = {"tenant_id": "acme", "project": "x"}


def test_an_ordinary_call_is_left() -> None:
    sink = Taken()
    operations(sink, PriceEngine.bundled(), [(CALL, REPLY, WHO, 1_790_000_000)] * 3)
    assert sink.left == 3
    (row, *_) = rows(sink.lines)
    assert (row.cost_status, row.usd, row.tenant_id, row.gateway) == ("priced", row.usd, "acme", "portkey")
    assert str(row.usd) == "0.000154200000"


def test_it_keeps_the_prices_that_held_when_it_was_made() -> None:
    """Whoever moves the line may have another catalog, or none of the overrides: the unit prices stand in the line."""
    dear = PriceEngine.bundled({"price": [{"seller": "openai", "model": "unheard-of", "input": "7", "output": "9"}]})
    sink = Taken()
    unheard = CALL._replace(provider="openai", model="unheard-of")
    operations(sink, dear, [(unheard, REPLY._replace(model=None), WHO, 1_790_000_000)])
    assert rows(sink.lines)[0].cost_status == "priced"


def test_prices_change_at_their_instant() -> None:
    """Half past the hour is within DeepSeek's cheaper hours or not, and a kind is not kept beyond that."""
    call = CALL._replace(provider="deepseek", model="deepseek-chat")
    asked = [(call, REPLY._replace(model="deepseek-chat"), WHO, 1_752_000_000 + hour * 3_600) for hour in range(48)]
    later, at_once = Taken(), TakenAtOnce()
    operations(later, PriceEngine.bundled(), asked)
    operations(at_once, PriceEngine.bundled(), asked)
    assert rows(later.lines) == rows(at_once.lines)
    assert len({row.cost_pico for row in rows(later.lines)}) > 1


def test_a_new_catalog_is_asked_anew() -> None:
    sink = Taken()
    prices = Prices(PriceEngine.bundled())
    pipeline = Pipeline(gateways=Gateways({}), prices=prices, sinks=(sink,))

    def finish() -> None:
        operation = pipeline.begin(CALL, Attribution(), "none")
        operation.next_attempt()
        operation.finish(REPLY)

    finish()
    prices.engine = PriceEngine.bundled(
        {"price": [{"seller": "openai", "model": "gpt-4o-mini*", "input": "70", "cache_read": "7", "output": "90"}]}
    )
    prices.cost, prices.kinds = prices.engine.cost, {}
    finish()
    first, second = rows(sink.lines)
    assert first.cost_pico is not None and second.cost_pico is not None and second.cost_pico > 100 * first.cost_pico


def test_who_listens_gets_the_cost() -> None:
    class Listener(TakenAtOnce):
        on = False

        def listening(self) -> bool:
            return self.on

    ledger, metrics = Taken(), Listener()
    pipeline = Pipeline(gateways=Gateways({}), prices=Prices(PriceEngine.bundled()), sinks=(ledger, metrics))
    for on in (False, True):
        metrics.on = on
        operation = pipeline.begin(CALL, Attribution(), "none")
        operation.next_attempt()
        operation.finish(REPLY)
    assert (ledger.left, len(ledger.lines), len(metrics.lines)) == (1, 2, 1)


def test_no_text_of_the_reply_is_in_the_line() -> None:
    sink = Taken()
    usage = {**USAGE, "note": "what the model said", "prompt_tokens_details": {"cached_tokens": 0, "said": "secret"}}
    operations(sink, PriceEngine.bundled(), [(CALL, REPLY._replace(usage=usage), WHO, 1_790_000_000)])
    assert b"secret" not in sink.lines[0] and b"model said" not in sink.lines[0]


def test_it_survives_in_the_spool(tmp_path: Path) -> None:
    """What was taken is on disk at once, and another process's ledger works it out."""
    url = f"sqlite:///{tmp_path}/a.db"
    sink = LedgerSink(url)
    operations(sink, PriceEngine.bundled(), [(CALL, REPLY, WHO, 1_790_000_000)] * 5)
    (file,) = Path(sink.directory).iterdir()
    lines = file.read_bytes().splitlines()
    assert [json.loads(line)[0] for line in lines] == [3] * 5
    with open_ledger(url).snapshot():
        pass
    assert [row.usd for row in open_ledger(url).records()] == [rows([lines[0]])[0].usd] * 5
    sink.close()
