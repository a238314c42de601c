"""What `import attribkit` loads, and what it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

import attribkit

HEAVY = (
    *("openai", "httpx", "httpx2", "langchain_core", "langgraph", "anthropic", "litellm"),
    *("opentelemetry.sdk", "opentelemetry.trace", "sqlite3", "duckdb", "psycopg", "redis"),
    *("pydantic", "pydantic_settings", "wrapt", "rich", "typer", "orjson", "asyncio", "logging", "attribkit.runtime"),
)


def loaded(script: str) -> set[str]:
    """Return the modules of a fresh interpreter after `script`, those that it begins with left out."""
    code = f"import sys; before = set(sys.modules)\n{script}\nprint(*sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    assert loaded("import attribkit") & set(HEAVY) == set()


@pytest.mark.parametrize(
    "use",
    [
        "with attribkit.attributed(tenant_id='a'): attribkit.current()",
        "attribkit.entrypoint('w', tenant_id='t')(lambda t: attribkit.current())('a')",
        "attribkit.carry(print)",
        "attribkit.inject({})",
        "attribkit.price({'prompt_tokens': 1}, model='gpt-4.1')",
        "attribkit.Budget('b', limit='1')",
    ],
)
def test_so_is_what_needs_no_patch(use: str) -> None:
    assert loaded(f"import attribkit\n{use}") & (set(HEAVY) - {"logging"}) == set()


def test_instrument_loads_no_client_and_no_database() -> None:
    clients = {"openai", "httpx", "httpx2", "langchain_core", "opentelemetry.sdk", "sqlite3", "rich", "typer", "duckdb"}
    assert loaded("import attribkit; attribkit.instrument()") & clients == set()


LIBRARIES = (
    *("openai", "aiohttp", "requests", "langchain_openai", "langchain_core.tools", "langgraph.graph"),
    *("opentelemetry.sdk.trace", "multiprocessing.queues"),
)
QUEUE_ROOMS = {"claims", "consumers", "batches", "deliveries", "items", "callsites", "mentions"}
LATE = QUEUE_ROOMS | {
    *("http_exchanges", "http_bodies", "http_httpx_calls", "http_aiohttp", "http_requests", "anthropic_replies"),
    *("langchain_metering", "langchain_replies", "checkpoints", "langgraph_remote", "commands", "wire"),
    *("telemetry.counts", "open_spans"),
    *("coroutines", "births"),
}
"""Rooms that come with the first use of what they are for."""


def test_instrument_loads_no_room_before_its_first_use() -> None:
    script = f"""
import contextlib, importlib
for library in {LIBRARIES}:
    with contextlib.suppress(ImportError):
        importlib.import_module(library)
import attribkit
attribkit.instrument()
"""
    modules = {name for name in loaded(script) if name.startswith("attribkit.")}
    assert {"attribkit.instrumentation.hops.queues.rows", "attribkit.instrumentation.clients.stainless"} <= modules
    assert [name for name in modules for room in LATE if name.endswith(f".{room}")] == []


@pytest.mark.parametrize(
    ("scope", "comes"), [("contextlib.nullcontext()", False), ("attribkit.attributed(tenant_id='a')", True)]
)
def test_the_rooms_of_queues_come_with_the_first_item_of_a_scope(scope: str, comes: bool) -> None:
    script = "import queue, contextlib, attribkit; attribkit.instrument(ledger=None)\nq = queue.Queue()\n" + (
        f"with {scope}: q.put('a'); q.get(); queue.SimpleQueue().put('b')"
    )
    rooms = {name.rpartition(".")[2] for name in loaded(script) if name.startswith("attribkit.")}
    assert rooms & QUEUE_ROOMS == (QUEUE_ROOMS if comes else set())


def test_every_public_name_is_there() -> None:
    assert all(getattr(attribkit, name) is not None for name in attribkit.__all__)
