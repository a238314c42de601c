"""The stores that the budget tests run against: in process, SQLite, and real Redis and PostgreSQL servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from budgets import servers

from attribkit.budgets.open import place_of


def _started(
    name: str, server: Callable[[Path], AbstractContextManager[str]], factory: pytest.TempPathFactory
) -> Iterator[str]:
    pytest.importorskip("psycopg" if name == "postgresql" else "redis")
    if servers.found(name) is None:
        why = f"no {name} server here: run tests/counterparts/install.sh"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with server(factory.mktemp(name)) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _started("redis", servers.redis_server, tmp_path_factory)


@pytest.fixture(scope="session")
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _started("postgresql", servers.postgresql_server, tmp_path_factory)


STORES = [
    "memory",
    "sqlite",
    pytest.param("redis", marks=pytest.mark.counterpart),
    pytest.param("postgresql", marks=pytest.mark.counterpart),
]
SHARED = STORES[1:]


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store; `request.param` names it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/budgets.db"
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        import redis

        with redis.Redis.from_url(url) as client:
            client.flushall()
        return str(url)
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return str(url)
    return "memory://"


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty store of each kind."""
    made = place_of(store_url.__wrapped__(request, tmp_path)).open()  # type: ignore[attr-defined]
    yield made
    made.close()
