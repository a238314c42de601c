"""Real Redis and PostgreSQL servers on free loopback ports, as the Debian packages install them."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def found(name: str) -> str | None:
    """Return where a server program is, None where it is not installed."""
    if name == "redis":
        return shutil.which("redis-server")
    return shutil.which("postgres") or next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))[-1:]), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args}: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run Redis; its URL."""
    port, log = _free_port(), folder / "redis.log"
    command = [str(found("redis")), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--dir", str(folder)], stdout=out, stderr=out)
    try:
        _ready(port, process, log)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """Run PostgreSQL, without waiting for the disk, as a user that is not root; its URL."""
    programs = Path(str(found("postgresql"))).parent
    port, log = _free_port(), folder / "pg.log"
    # Not in `folder`: another pytest that starts as root closes the folders above it to other users again.
    data = Path(tempfile.mkdtemp(prefix="attribkit-pg-"))
    as_user = []
    if os.getuid() == 0:
        shutil.chown(data, "nobody")
        as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    subprocess.run(
        [
            *(*as_user, str(programs / "initdb"), "-D", str(data / "data")),
            *("-U", "app", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"),
        ],
        check=True,
        capture_output=True,
        cwd="/",
    )
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": "600",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*as_user, str(programs / "postgres"), "-D", str(data / "data"), "-p", str(port), *options],
            stdout=out,
            stderr=out,
            cwd="/",
        )
    try:
        _ready(port, process, log)
        url = f"postgresql://app@127.0.0.1:{port}/postgres"
        import psycopg

        until = time.monotonic() + 30
        while time.monotonic() < until:  # it listens a moment before it takes connections
            try:
                psycopg.connect(url, connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.05)
        yield url
    finally:
        process.send_signal(2)  # a fast shutdown
        process.wait()
        shutil.rmtree(data, ignore_errors=True)
