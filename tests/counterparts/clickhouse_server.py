"""The ClickHouse engine (chdb, in this process) behind ClickHouse's HTTP interface, for tests: one statement at a time.

    python clickhouse_server.py DATA_DIRECTORY PORT

Knows what a collector's exporter and `curl` use: the statement in `?query=` or in the body, rows in the body of an
INSERT (chunked too), `?database=`, `?default_format=`. No users, no compression, no settings.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

INSERT = re.compile(r"\s*INSERT\s+INTO\s+(?:TABLE\s+)?([^\s(]+)\s*(?:\(([^)]*)\))?.*?\bFORMAT\s+(\w+)\s*", re.I | re.S)


class Engine:
    """One session of the engine, used by one thread at a time."""

    def __init__(self, directory: str) -> None:
        self._session = session.Session(directory)
        self._lock = threading.Lock()

    def run(self, statement: str, rows: bytes, database: str, form: str) -> bytes:
        """Return the result of a statement. The rows of an INSERT can come apart from it."""
        with self._lock:
            insert = INSERT.match(statement)
            if insert is None:
                self._session.query(f"USE `{database}`")
                return bytes(self._session.query(statement, form).bytes() or b"")
            rows = statement[insert.end() :].encode() + rows
            if rows:
                self._insert(insert[1] if "." in insert[1] else f"{database}.{insert[1]}", insert[2], insert[3], rows)
            return b""

    def _insert(self, table: str, names: str | None, form: str, rows: bytes) -> None:
        described = self._session.query(f"DESCRIBE TABLE {table} FORMAT TSVRaw").bytes().decode()
        types = {line.split("\t")[0]: line.split("\t")[1] for line in described.splitlines()}
        columns = [name.strip(" `\n") for name in names.split(",")] if names else list(types)
        shape = ", ".join(f"`{name}` {types[name]}" for name in columns).replace("'", "\\'")
        listed = ", ".join(f"`{name}`" for name in columns)
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(rows)
        try:
            self._session.query(
                f"INSERT INTO {table} ({listed}) SELECT {listed} FROM file('{file.name}', {form}, '{shape}')"
            )
        finally:
            os.unlink(file.name)


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self._body())

        def _answer(self, body: bytes) -> None:
            asked = {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()}
            statement = asked.get("query")
            if statement is None:
                statement, body = body.decode(), b""
            if not statement.strip():
                self._reply(200, b"Ok.\n")
                return
            try:
                form = asked.get("default_format", "TabSeparated")
                self._reply(200, engine.run(statement, body, asked.get("database", "default"), form))
            except Exception as error:
                print(statement, error, file=sys.stderr, flush=True)
                self._reply(500, str(error).encode()[:4000])

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), handler(Engine(sys.argv[1]))).serve_forever()
