"""Graphs that run in another service: RemoteGraph and the SDK's clients tell a peer who a run is for, nobody else."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import attribkit

pytest.importorskip("langgraph")
pytest.importorskip("langgraph_sdk")

from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client, get_sync_client

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
KEY = "a-key-that-signs-carriers-0123456789"


class Server:
    """The few routes of a LangGraph server that runs need."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        runs = self.runs

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                runs.append((self.path, body, {name.lower(): value for name, value in self.headers.items()}))
                if self.path.endswith("/stream"):
                    kind = "text/event-stream"
                    answer = b'event: values\ndata: {"answer": "a"}\n\nevent: updates\ndata: {"n": {"answer": "a"}}\n\n'
                else:
                    kind, answer = "application/json", b'{"run_id": "r", "answer": "a"}'
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def metadata(self) -> list[Any]:
        return [(body.get("config") or {}).get("metadata") for _, body, _ in self.runs]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def peer(observe: Any, server: Server) -> Server:
    observe(peers=(server.url,), carrier_key=KEY)
    return server


def remote(server: Server) -> RemoteGraph:
    return RemoteGraph("agent", url=server.url)


def test_a_remote_graph(peer: Server) -> None:
    graph = remote(peer)
    with attribkit.attributed(tenant_id="acme", workflow="triage"):
        graph.invoke({"q": "hi"}, config={"metadata": {"release": "r9"}})
        items = graph.stream({"q": "hi"})
    list(items)

    async def main() -> None:
        with attribkit.attributed(tenant_id="globex"):
            work = remote(peer).ainvoke({"q": "hi"})
            items = remote(peer).astream({"q": "hi"})
        await work
        async for _ in items:
            assert not attribkit.current()

    asyncio.run(main())
    first, *rest = peer.metadata()
    assert first == {"tenant_id": "acme", "workflow": "triage", "release": "r9"}
    assert [(each["tenant_id"], each.get("workflow")) for each in rest] == [
        ("acme", "triage"),
        ("globex", None),
        ("globex", None),
    ]
    for _, body, headers in peer.runs:
        assert f"attribkit.tenant_id={body['config']['metadata']['tenant_id']}," in headers["baggage"]


def test_the_sdks_clients(peer: Server) -> None:
    client = get_sync_client(url=peer.url)
    with attribkit.attributed(tenant_id="acme"):
        client.runs.create("t1", "agent", input={"q": "hi"})
        client.runs.wait(None, "agent", input={"q": "hi"}, config={"tags": ["t"], "metadata": {"tenant_id": "mine"}})
        client.runs.create_batch([{"assistant_id": "agent", "input": {}}, {"assistant_id": "agent", "config": {}}])
        client.crons.create("agent", schedule="* * * * *")
        items = client.runs.stream(None, "agent", input={"q": "hi"})
    list(items)

    async def main() -> None:
        client = get_client(url=peer.url)
        with attribkit.attributed(tenant_id="acme"):
            work = client.runs.wait(None, "agent", input={"q": "hi"})
            items = client.runs.stream(None, "agent", input={"q": "hi"})
        await work
        async for _ in items:
            pass

    asyncio.run(main())
    batch = peer.runs.pop(2)[1]
    assert [each["config"]["metadata"] for each in batch] == [{"tenant_id": "acme"}] * 2
    assert peer.metadata() == [{"tenant_id": "acme"}, {"tenant_id": "mine"}, *[{"tenant_id": "acme"}] * 4]
    assert peer.runs[1][1]["config"]["tags"] == ["t"]


def test_a_stranger_is_told_nothing(observe: Any, server: Server) -> None:
    observe(peers=("http://elsewhere.internal",), carrier_key=KEY)
    with attribkit.attributed(tenant_id="acme"):
        remote(server).invoke({"q": "hi"}, config={"metadata": {"release": "r9"}})
        get_sync_client(url=server.url).runs.create("t1", "agent")
    assert server.metadata() == [{"release": "r9"}, None]
    assert all("baggage" not in headers for _, _, headers in server.runs)


def test_without_a_scope_the_request_is_as_it_was(peer: Server) -> None:
    given: dict[str, Any] = {"metadata": {"release": "r9"}}
    remote(peer).invoke({"q": "hi"}, config=given)
    assert peer.metadata() == [{"release": "r9"}]
    assert given == {"metadata": {"release": "r9"}}


def test_a_remote_graph_as_a_node(peer: Server) -> None:
    from typing import TypedDict

    from langgraph.graph import START, StateGraph

    class State(TypedDict, total=False):
        q: str
        answer: str

    graph = StateGraph(State)
    graph.add_node("far", remote(peer))
    graph.add_edge(START, "far")
    compiled = graph.compile()
    for tenant in ("acme", "globex"):
        with attribkit.attributed(tenant_id=tenant):
            compiled.invoke({"q": "hi"})
    assert [each["tenant_id"] for each in peer.metadata()] == ["acme", "globex"]
