"""Newer prices from a file or a URL: checked, kept, and never in the way of a call."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from attribkit.errors import PriceDataError
from attribkit.pricing.catalog import Catalog
from attribkit.pricing.engine import PriceEngine
from attribkit.pricing.source import PriceSource, Refresher, as_one_file, read_catalog

CHAT = {"prompt_tokens": 1_000_000, "completion_tokens": 0}


def table(**sellers: Any) -> dict[str, Any]:
    return {"format": 1, "version": "2026.12.24-ours", "built": "2026-12-24", "sellers": sellers}


def model(price: str, **more: Any) -> dict[str, Any]:
    return {"rows": [{"source": "our page", "standard": {"input": price, "output": price}, **more}]}


NEW = table(openai={"models": {"gpt-9": model("7"), "gpt-4.1": model("1", **{"from": "2026-12-20"})}},
            ours={"aliases": ["our-seller"], "models": {"house-1": model("0.5")}})  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> PriceSource:
    (tmp_path / "prices.json").write_text(json.dumps(NEW))
    return PriceSource(str(tmp_path / "prices.json"), cache=str(tmp_path / "cache" / "kept.json"))


def usd(catalog: Catalog, name: str, at: str = "2026-12-31", provider: str = "openai") -> Decimal | None:
    return PriceEngine(catalog, PriceEngine.bundled().overrides).price(CHAT, model=name, provider=provider, at=at).usd


def test_a_refresh_adds_and_keeps_the_past(source: PriceSource) -> None:
    assert source.catalog() is Catalog.bundled()
    found = source.refresh()
    assert found.taken and found.error is None and found.version.startswith("2026.12.24-ours~2026.")
    catalog = source.catalog()
    assert usd(catalog, "gpt-9") == 7
    assert usd(catalog, "gpt-4.1") == 1 and usd(catalog, "gpt-4.1", "2026-11-15") == 2
    assert usd(catalog, "house-1", provider="our-seller") == Decimal("0.5")
    assert usd(catalog, "gpt-4.1-mini") == Decimal("0.4")
    cost = PriceEngine(catalog, PriceEngine.bundled().overrides).price(CHAT, model="gpt-9", provider="openai")
    assert cost.price_built == "2026-12-24" and cost.price_version == found.version
    assert not source.refresh().taken


def test_rows_checked_by_hand_stay(source: PriceSource, tmp_path: Path) -> None:
    hand = Catalog.bundled().shard("mistral").models["mistral-large-2407"]["rows"]  # type: ignore[union-attr]
    assert any("basis" in row for row in hand)
    later = model("9", **{"from": "2027-01-01"})
    changed = table(mistral={"models": {"mistral-large-2407": model("1"), "mistral-large-latest": later}})
    (tmp_path / "prices.json").write_text(json.dumps(changed))
    assert source.refresh().taken
    assert usd(source.catalog(), "mistral-large-2407", "2024-08-01", "mistral") == 3
    assert usd(source.catalog(), "mistral-large-latest", "2026-12-31", "mistral") == Decimal("0.5")
    assert usd(source.catalog(), "mistral-large-latest", "2027-02-01", "mistral") == 9


def test_litellm_s_list_adds_what_is_unknown_and_changes_nothing(source: PriceSource, tmp_path: Path) -> None:
    entry = {"litellm_provider": "openai", "input_cost_per_token": 3e-06, "output_cost_per_token": 9e-06}
    (tmp_path / "prices.json").write_text(json.dumps({"sample_spec": {}, "gpt-9-mini": entry, "gpt-4.1": entry}))
    assert source.refresh().error is None
    assert usd(source.catalog(), "gpt-9-mini") == 3 and usd(source.catalog(), "gpt-4.1") == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "no JSON"),
        ("[1]", "not a JSON object"),
        ('{"format": 2}', "format 2"),
        (json.dumps({**NEW, "built": "soon"}), "ISO date"),
        (json.dumps({**NEW, "version": ""}), "no version"),
        (json.dumps(table()), "no sellers"),
        (json.dumps(table(openai={"models": {"gpt-4.1": {"rows": []}}})), "no price rows"),
        (json.dumps(table(openai={"models": {"gpt-4.1": model("-1")}})), "decimal texts"),
        (json.dumps(table(openai={"models": {"gpt-4.1": {"rows": [7]}}})), "format"),
        (json.dumps(table(openai={"models": {"gpt-4.1": model("2000")}})), "wrong unit"),
        (json.dumps(table(openai={"models": {"gpt-4.1": model("0.002")}})), "wrong unit"),
    ],
)
def test_what_is_not_in_order_is_refused_whole_and_the_last_good_one_stays(
    source: PriceSource, tmp_path: Path, body: str, said: str
) -> None:
    source.refresh()
    kept = source.cache.read_bytes()
    (tmp_path / "prices.json").write_text(body)
    found = source.refresh()
    assert not found.taken and said in (found.error or "")
    assert source.cache.read_bytes() == kept and usd(source.catalog(), "gpt-9") == 7
    assert os.listdir(source.cache.parent) == ["kept.json"]


def test_a_spoiled_cache_is_as_none(source: PriceSource) -> None:
    source.refresh()
    source.cache.write_bytes(source.cache.read_bytes()[:-20])
    assert source.catalog() is Catalog.bundled()


def test_a_source_is_due_when_its_time_is_over(source: PriceSource) -> None:
    assert source.due() == 0
    source.refresh()
    assert 23.9 * 3600 < source.due() <= 24 * 3600
    day_old = time.time() - 25 * 3600
    os.utime(source.cache, (day_old, day_old))
    assert source.due() == 0
    Path(source.where).unlink()
    assert source.refresh().error is not None
    assert 0 < source.due() <= 900  # not at once again


def test_other_schemes_are_refused() -> None:
    with pytest.raises(PriceDataError, match="http"):
        PriceSource("ftp://prices.example/prices.json")


class _Server(http.server.ThreadingHTTPServer):
    body, status = json.dumps(NEW).encode(), 200


@pytest.fixture
def server() -> Iterator[_Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.end_headers()
            self.wfile.write(self.server.body)  # type: ignore[attr-defined]

        def log_message(self, *args: Any) -> None: ...

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_url(server: _Server, tmp_path: Path) -> None:
    source = PriceSource(f"http://127.0.0.1:{server.server_port}/prices.json", cache=str(tmp_path / "kept.json"))
    assert source.refresh().taken and usd(source.catalog(), "gpt-9") == 7
    server.status = 503
    assert "503" in (source.refresh().error or "")
    again = PriceSource(source.where, cache=str(tmp_path / "kept.json"))
    assert usd(again.catalog(), "gpt-9") == 7  # after a restart, with the source down


def test_a_thread_of_its_own_takes_what_is_new(source: PriceSource) -> None:
    taken: list[Catalog] = []
    got = threading.Event()

    def take(catalog: Catalog) -> None:
        taken.append(catalog)
        got.set()

    refresher = Refresher(source, take)
    refresher.start()
    assert got.wait(10)
    refresher.stop()
    assert usd(taken[0], "gpt-9") == 7


def test_a_catalog_in_one_file_is_the_catalog(tmp_path: Path) -> None:
    whole = as_one_file(Catalog.bundled())
    (tmp_path / "all.json").write_text(json.dumps(whole))
    read = read_catalog(str(tmp_path / "all.json"))
    assert set(read.sellers) == set(Catalog.bundled().sellers)
    assert usd(read, "gpt-4.1") == 2
    assert usd(read, "deepseek-v4-pro", "2026-10-15T01:00:00Z", "deepseek") == Decimal("1.32")  # a peak hour


def test_instrument_asks_the_source_beside_the_calls(source: PriceSource, monkeypatch: Any, tmp_path: Path) -> None:
    import attribkit
    from attribkit import runtime

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    attribkit.instrument(ledger=None, price_source=source.where, hops={"telemetry": False})
    try:
        active = runtime.active()
        assert active is not None
        deadline = time.monotonic() + 10
        while attribkit.price(CHAT, model="gpt-9", provider="openai").usd is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert attribkit.price(CHAT, model="gpt-9", provider="openai").usd == 7
    finally:
        attribkit.uninstrument()
    assert attribkit.price(CHAT, model="gpt-9", provider="openai").usd is None
