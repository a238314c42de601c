"""Real servers on loopback for the service tests, and callers from outside that know no attribkit."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

KEY = "0123456789abcdef0123456789abcdef"


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextlib.contextmanager
def asgi_server(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI app with uvicorn in a thread that starts without any scope."""
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, **{"log_level": "warning", "lifespan": "off", "ws": "none", **options}))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    Context().run(thread.start)
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextlib.contextmanager
def wsgi_server(app: Any) -> Iterator[str]:
    """Serve a WSGI app, a thread for each request."""
    server = make_server("127.0.0.1", 0, app, server_class=_Threaded, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    Context().run(thread.start)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class Listener:
    """A plain HTTP server that writes down each request's headers; a path `/to?URL` redirects there with 307."""

    def __init__(self) -> None:
        seen: list[dict[str, str]] = []
        self.seen = seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append({"path": self.path, "body": body, **headers})
                to = self.path.partition("?")[2]
                self.send_response(307 if self.path.startswith("/to") else 200)
                if self.path.startswith("/to"):
                    self.send_header("location", to)
                self.send_header("content-length", "2")
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        Context().run(self._thread.start)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def post(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Send a request as a stranger does: over a bare socket, outside any scope."""

    def sent() -> tuple[int, bytes]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(
                "POST", target, json.dumps(body), {"content-type": "application/json", **(headers or {})}
            )
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    return Context().run(sent)
