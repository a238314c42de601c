"""Brings the rows of a ledger into ClickHouse (schema.sql), over its HTTP interface. Run it as often as you like.

    python load.py sqlite:///attribkit.db http://127.0.0.1:8123 [DAYS]

Takes the calls that started in the last DAYS days, or all. What is there already stays one row. User and password are
those of the URL, or $CLICKHOUSE_USER and $CLICKHOUSE_PASSWORD.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import urllib.request
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

import orjson

from attribkit.ledger import LedgerRow, Question, open_ledger

BATCH = 10_000
DAY_NS = 86_400 * 10**9


def load(rows: Iterable[LedgerRow], url: str) -> int:
    """Insert `rows` and return how many they were. Raises urllib.error.URLError where ClickHouse refuses them."""
    place, loaded = urlsplit(url), 0
    asked = urlencode({"query": f"INSERT INTO attribkit.calls ({','.join(LedgerRow._fields)}) FORMAT JSONEachRow"})
    headers = {
        "X-ClickHouse-User": place.username or os.environ.get("CLICKHOUSE_USER", "default"),
        "X-ClickHouse-Key": place.password or os.environ.get("CLICKHOUSE_PASSWORD", ""),
    }
    rows = iter(rows)
    while batch := list(itertools.islice(rows, BATCH)):
        body = b"\n".join(orjson.dumps(row._asdict()) for row in batch)
        where = f"{place.scheme}://{place.hostname}:{place.port or 8123}/?{asked}"
        with urllib.request.urlopen(urllib.request.Request(where, body, headers), timeout=60) as reply:
            reply.read()
        loaded += len(batch)
    return loaded


if __name__ == "__main__":
    ledger, clickhouse, *days = sys.argv[1:]
    since = time.time_ns() - int(days[0]) * DAY_NS if days else None
    store = open_ledger(ledger, create=False)
    print(f"{load(store.records(Question(since_ns=since)), clickhouse)} rows loaded")
    store.close()
