"""The loopback gateway: `python -m attribkit.testing.gateway --port 0` answers like OpenAI, and tells what it saw."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attribkit.testing.answers import (
    assistants,
    batches,
    bedrock,
    chat,
    cohere,
    gemini,
    media,
    message_batches,
    messages,
    responses,
)
from attribkit.testing.answers.base import JSON, Answer, Context, not_found
from attribkit.testing.behaviour import HEADER, Behaviour, Behaviours
from attribkit.testing.httpd import Connection, Request, serve
from attribkit.testing.journal import Journal, attribution_in
from attribkit.testing.relay import Relay

__all__ = ["LoopbackGateway", "main"]

ROUTES = {
    "assistants": assistants.assistants,
    "audio/speech": media.speech,
    "audio/transcriptions": media.transcriptions,
    "audio/translations": media.transcriptions,
    "batches": batches.batches,
    "chat/completions": chat.completion,
    "completions": chat.legacy,
    "conversations": responses.conversations,
    "embeddings": chat.embeddings,
    "files": batches.files,
    "images/edits": media.images,
    "images/generations": media.images,
    "messages": messages.messages,
    "messages/batches": message_batches.message_batches,
    "models": media.models,
    "moderations": media.moderations,
    "responses": responses.responses,
    "threads": assistants.threads,
    "v1beta/batches": gemini.gemini_batches,
    "v1beta/files": gemini.gemini_batches,
}
"""What stands behind `/v1/`, or behind Azure's `/openai/` and `/openai/deployments/<name>/`, under any prefix."""

_PAGE = b"<!DOCTYPE html><html><head><title>%d</title></head><body><h1>%d</h1><p>proxy</p></body></html>"
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error", 429: "tokens"}


def _endpoint(path: str) -> tuple[str, str | None]:
    """Return the path behind the API's prefix, and the deployment that an Azure path names."""
    if "/deployments/" in path:
        deployment, _, rest = path.split("/deployments/", 1)[1].partition("/")
        return f"/{rest}", deployment
    for prefix in ("/v1/", "/openai/"):
        if prefix in path:
            return f"/{path.split(prefix, 1)[1]}", None
    return path, None


def _route(path: str) -> Callable[[JSON, Context], Answer] | None:
    """Return what answers at `path`, None when nothing does."""
    first, *rest = path.split("/")[1:]
    if "/models/" in path and ":" in path.rpartition("/")[2]:
        return gemini.gemini
    if "/model/" in path and path.rpartition("/")[2].startswith(("converse", "invoke")):
        return bedrock.bedrock
    if "/v2/" in path:
        return cohere.cohere
    return ROUTES.get("/".join((first, *rest[:1]))) or ROUTES.get(first)


class LoopbackGateway:
    """Answers requests and writes them down. What it knows lives in memory and ends with the process."""

    def __init__(self, relay: Relay | None = None) -> None:
        self.relay = relay
        self.journal = Journal()
        self.behaviours = Behaviours()
        self.store: dict[str, Any] = {}
        self.stopped = asyncio.Event()

    async def handle(self, request: Request, connection: Connection) -> None:
        """Answer one request."""
        url = urlsplit(request.target)
        if url.path.startswith("/_control/"):
            status, reply = self._control(request, url.path.removeprefix("/_control/"), parse_qs(url.query))
            await connection.send(status, [("content-type", "application/json")], json.dumps(reply).encode())
            return
        entry = self.journal.arrived(request)
        if request.problem:
            entry.update(status=request.problem, outcome="refused")
            await connection.send(request.problem, [], b"")
            return
        if self.relay is not None:
            await self.relay.forward(entry, request, connection)
            return
        path, deployment = _endpoint(url.path.rstrip("/"))
        text = entry.get("body", "")
        try:
            behaviour = self.behaviours.of(request.header(HEADER), path, text)
        except ValueError as error:
            await self._answer(entry, connection, 400, {"error": {"message": str(error), "type": "loopback"}})
            return
        if await self._misbehave(entry, connection, behaviour, url.path):
            return
        try:
            body = json.loads(text) if text else {}
        except ValueError:
            body = {}
        if not isinstance(body, dict):
            body = {}
        if deployment is not None:
            body = {"model": deployment, **body}
        owner = attribution_in(request.headers)
        content_type = request.header("content-type") or ""
        context = Context(entry["seq"], request.method, path, behaviour, owner, self.store, request.body, content_type)
        route = _route(path)
        try:
            answer = route(body, context) if route else not_found(url.path)
        except Exception as error:
            said = {"message": f"{type(error).__name__}: {error}", "type": "invalid_request_error", "param": None}
            await self._answer(entry, connection, 400, {"error": {**said, "code": None}})
            return
        await self._send(entry, connection, answer, request, behaviour, owner)

    def _control(self, request: Request, name: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if request.method == "GET" and name == "requests":
            return 200, {"requests": self.journal.since(int(query.get("since", ["0"])[0]))}
        if request.method == "GET" and name == "spend":
            return 200, self.journal.spend(query.get("by", ["tenant_id,workflow"])[0].split(","))
        if request.method == "POST" and name == "reset":
            self.journal.clear()
            self.behaviours.clear()
            self.store.clear()
            return 200, {}
        if request.method == "POST" and name in ("behaviour", "usage"):
            try:
                rule = json.loads(request.body)
                self.behaviours.add({"usage": None, **rule} if name == "usage" else rule)
            except (ValueError, TypeError) as error:
                return 400, {"error": str(error)}
            return 200, {}
        if request.method == "POST" and name == "stop":
            self.stopped.set()
            return 200, {}
        return 404, {"error": f"no control endpoint {request.method} {name}"}

    async def _answer(
        self, entry: dict[str, Any], connection: Connection, status: int, body: Any, *more: tuple[str, str]
    ) -> None:
        entry.update(status=status, outcome="answered")
        raw = isinstance(body, bytes)
        headers = [("x-request-id", f"req_{entry['seq']:08d}"), *more]
        if not any(key == "content-type" for key, _ in more):
            headers.append(("content-type", "application/json"))
        await connection.send(status, headers, body if raw else json.dumps(body).encode())

    async def _misbehave(self, entry: dict[str, Any], connection: Connection, behaviour: Behaviour, path: str) -> bool:
        """Do what is wrong with a whole reply; return True when that was all."""
        if behaviour.delay_ms:
            await asyncio.sleep(behaviour.delay_ms / 1000)
        if behaviour.hang:
            entry["outcome"] = "hung"
            await connection.until_left(None if behaviour.hang < 0 else behaviour.hang)
            if connection.closing:
                connection.drop()
                return True
        if behaviour.drop == 0:
            entry["outcome"] = "dropped"
            connection.drop()
            return True
        if behaviour.redirect:
            location = behaviour.redirect.replace("{path}", path)
            await self._answer(entry, connection, 307, b"", ("location", location))
            return True
        if behaviour.html:
            page = _PAGE % (behaviour.html, behaviour.html)
            await self._answer(entry, connection, behaviour.html, page, ("content-type", "text/html; charset=utf-8"))
            return True
        if behaviour.status == 200:
            return False
        status, more = behaviour.status, list(behaviour.headers)
        if behaviour.retry_after_ms is not None and behaviour.retry_after_ms >= 0:
            more.append(("retry-after-ms", str(behaviour.retry_after_ms)))
        error = {"message": f"The gateway was asked for status {status}.", "param": None, "code": None}
        body: Any = {"error": {**error, "type": _KINDS.get(status, "server_error")}}
        if behaviour.body == "html":
            body = _PAGE % (status, status)
            more.append(("content-type", "text/html; charset=utf-8"))
        elif behaviour.body == "empty":
            body = b""
        elif behaviour.body == "garbage":
            body = json.dumps(body).encode()[:-9]
        await self._answer(entry, connection, status, body, *more)
        return True

    async def _send(
        self,
        entry: dict[str, Any],
        connection: Connection,
        answer: Answer,
        request: Request,
        behaviour: Behaviour,
        owner: tuple[tuple[str, str], ...],
    ) -> None:
        costs = [self.journal.charge(charge, owner) for charge in answer.charges]
        entry.update(status=answer.status, response_id=answer.response_id, model=answer.model, tier=answer.tier)
        entry.update(usage=answer.usage, cost_usd=costs[0] if len(costs) == 1 else None)
        headers = [
            ("x-request-id", f"req_{entry['seq']:08d}"),
            ("openai-processing-ms", "1"),
            ("openai-poll-after-ms", "5"),
        ]
        for name in ("x-portkey-trace-id", "x-litellm-call-id"):
            value = request.header(name)
            if value is not None:
                headers.append((name, value))
        if request.header("x-litellm-call-id") is not None and entry["cost_usd"] is not None:
            headers.append(("x-litellm-response-cost", entry["cost_usd"]))
        headers += behaviour.headers
        if answer.events is not None:
            await self._stream(entry, connection, answer, headers, behaviour)
            return
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if behaviour.body == "garbage":
            body = body[: len(body) // 2]
        elif behaviour.body == "empty":
            body = b""
        entry["outcome"] = "answered"
        await connection.send(answer.status, [*headers, ("content-type", answer.content_type)], body)

    async def _stream(
        self,
        entry: dict[str, Any],
        connection: Connection,
        answer: Answer,
        headers: list[tuple[str, str]],
        behaviour: Behaviour,
    ) -> None:
        try:
            kind = answer.content_type
            kind = "text/event-stream; charset=utf-8" if kind == "application/json" else kind
            await connection.begin(answer.status, [*headers, ("content-type", kind)])
            for name, event in answer.events or ():
                if behaviour.slow_ms:
                    await asyncio.sleep(behaviour.slow_ms / 1000)
                if entry["chunks"] == behaviour.drop:
                    entry["outcome"] = "dropped"
                    await asyncio.sleep(0.02)  # what was written has to leave before the connection is torn down
                    connection.drop()
                    return
                if connection.left:
                    raise ConnectionResetError
                if isinstance(event, bytes):
                    framed = event
                else:
                    data = event if isinstance(event, str) else json.dumps(event)
                    head = f"event: {name}\n" if name else ""
                    framed = f"{head}data: {data}\n\n".encode()
                entry["chunks"] += 1
                await connection.chunk(framed)
                await asyncio.sleep(0)
            entry["outcome"] = "answered"
            await connection.end()
        except ConnectionError:
            entry["outcome"] = "left"
            raise


async def _run(host: str, port: int, parent: int | None, relay: Relay | None) -> None:
    gateway = LoopbackGateway(relay)
    server, connections = await serve(gateway.handle, host, port)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, gateway.stopped.set)
    if parent is None:
        loop.add_signal_handler(signal.SIGINT, gateway.stopped.set)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which may still want to ask
        # The pipe ends when its parent does; children that the parent forked may hold it open, so the parent's
        # process id is looked at as well.
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def watch() -> None:
            while os.getppid() == parent:
                with contextlib.suppress(TimeoutError):
                    if not await asyncio.wait_for(reader.read(64), 1):
                        break
            gateway.stopped.set()

        watching = asyncio.create_task(watch())
    address = server.sockets[0].getsockname()
    ready = {"url": f"http://{host}:{address[1]}", "port": address[1], "pid": os.getpid()}
    print(json.dumps(ready), flush=True)
    await gateway.stopped.wait()
    if parent is not None:
        watching.cancel()
    server.close()
    busy = [task for task in connections if not task.done()]
    if busy:
        await asyncio.wait(busy, timeout=0.05)
    for task in connections:
        task.cancel()


def _allow_many_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16_384 if hard == resource.RLIM_INFINITY else min(16_384, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: list[str] | None = None) -> None:
    """Run the gateway until SIGTERM, SIGINT, POST /_control/stop, or the end of its parent."""
    parser = argparse.ArgumentParser(prog="python -m attribkit.testing.gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port; the first line printed says which")
    parser.add_argument("--parent", type=int, help="end with this process, and when standard input ends")
    parser.add_argument("--relay-to", metavar="URL", help="do not answer, but send everything on to this gateway")
    options = parser.parse_args(arguments)
    _allow_many_files()
    relay = Relay(options.relay_to) if options.relay_to else None
    asyncio.run(_run(options.host, options.port, options.parent, relay))


if __name__ == "__main__":
    main()
