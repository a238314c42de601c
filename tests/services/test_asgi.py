"""A service's door and what outlives its handlers: FastAPI and Starlette under uvicorn, models behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from services.serving import KEY, asgi_server, post, wait_for

import attribkit
from attribkit import wire
from attribkit.asgi import AttributionMiddleware

fastapi = pytest.importorskip("fastapi")
MODEL = "gpt-5-mini"


class Street:
    """One instrumented process with a model behind it: what its services call, and what arrived there."""

    def __init__(self, observe: Any) -> None:
        self.observed = observe(peers=["http://127.0.0.1"], carrier_key=KEY)
        self._client: Any = None

    def call(self, text: str) -> str:
        if self._client is None:
            self._client = self.observed.client()
        message = {"role": "user", "content": text}
        return self._client.chat.completions.create(model=MODEL, messages=[message]).choices[0].message.content or ""

    async def acall(self, text: str) -> str:
        import openai

        async with openai.AsyncOpenAI(base_url=self.observed.base_url, api_key="k") as client:
            message = {"role": "user", "content": text}
            reply = await client.chat.completions.create(model=MODEL, messages=[message])
        return reply.choices[0].message.content or ""

    def arrived(self, count: int) -> None:
        wait_for(lambda: len(self.observed.records) >= count)

    def tenants(self) -> dict[str, list[str | None]]:
        """Return whom each question's calls were for, as the gateway was told; rows and spans have to agree."""
        told: dict[str, list[str | None]] = {}
        for request in self.observed.requests():
            question = request.json["messages"][-1]["content"]
            told.setdefault(question, []).append(request.attribution.get("tenant_id"))
        flat = sorted(str(tenant) for each in told.values() for tenant in each)
        assert flat == sorted(str(record.attribution.tenant_id) for record in self.observed.records)
        spans = [span.attributes.get("attribkit.tenant_id") for span in self.observed.call_spans()]
        assert flat == sorted(map(str, spans))
        return told


@pytest.fixture
def street(observe: Any) -> Street:
    return Street(observe)


def own_app(**options: Any) -> Any:
    app = fastapi.FastAPI(**options)
    app.add_middleware(AttributionMiddleware)
    return app


TENANTS = {"k1": "acme", "k2": "globex"}


def ask_for_both(url: str, path: str, times: int = 1) -> None:
    import concurrent.futures

    asked = [(key, tenant) for key, tenant in TENANTS.items() for _ in range(times)]
    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        replies = pool.map(lambda pair: post(f"{url}{path}", {"key": pair[0], "q": f"q-{pair[1]}"}), asked)
    assert {status for status, _ in replies} == {200}


def both(times: int = 1) -> dict[str, list[str | None]]:
    return {f"q-{tenant}": [tenant] * times for tenant in TENANTS.values()}


# -- handlers' own scopes ---------------------------------------------------------------------------------------------


def test_async_and_sync_endpoints(street: Street) -> None:
    app = own_app()

    @app.post("/async")
    async def ask(body: dict[str, str]) -> None:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            await street.acall(body["q"])

    @app.post("/sync")
    def ask_sync(body: dict[str, str]) -> None:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            street.call(body["q"])

    with asgi_server(app) as url:
        ask_for_both(url, "/async", 2)
        ask_for_both(url, "/sync", 2)
    assert street.tenants() == both(4)


def test_background_tasks_run_after_the_scope(street: Street) -> None:
    from starlette.background import BackgroundTask
    from starlette.responses import JSONResponse

    app = own_app()

    @app.post("/ask")
    async def ask(body: dict[str, str], later: fastapi.BackgroundTasks) -> None:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            later.add_task(street.acall, body["q"])
            later.add_task(street.call, body["q"])

    @app.post("/plain")
    async def plain(body: dict[str, str]) -> Any:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            task = BackgroundTask(street.call, body["q"])
        return JSONResponse({}, background=task)

    with asgi_server(app) as url:
        ask_for_both(url, "/ask")
        ask_for_both(url, "/plain")
        street.arrived(6)
    assert street.tenants() == both(3)
    assert {record.hop for record in street.observed.records} == {"carried"}


def test_streamed_bodies_outlive_the_handler(street: Street) -> None:
    from fastapi.responses import StreamingResponse

    app = own_app()

    async def tokens(q: str) -> AsyncIterator[str]:
        for _ in range(2):
            yield await street.acall(q)

    def sync_tokens(q: str) -> Iterator[str]:
        for _ in range(2):
            yield street.call(q)

    def scoped_tokens(body: dict[str, str]) -> Iterator[str]:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            for _ in range(2):
                yield street.call(body["q"])

    class Pulled:
        """An async iterator that is no generator."""

        def __init__(self, q: str) -> None:
            self.left, self.q = 2, q

        def __aiter__(self) -> Pulled:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return await street.acall(self.q)

    kinds = {"async": tokens, "sync": sync_tokens, "pulled": Pulled}

    @app.post("/stream/{kind}", response_model=None)
    async def stream(kind: str, body: dict[str, str]) -> Any:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            return StreamingResponse(content=kinds[kind](body["q"]), media_type="text/plain")

    @app.post("/scoped", response_model=None)
    async def scoped(body: dict[str, str]) -> Any:
        return StreamingResponse(scoped_tokens(body))

    with asgi_server(app) as url:
        for path in ("/stream/async", "/stream/sync", "/stream/pulled", "/scoped"):
            ask_for_both(url, path)
    assert street.tenants() == both(8)


def test_endpoints_that_are_generators(street: Street) -> None:
    from fastapi.responses import StreamingResponse

    app = own_app()

    @app.post("/async", response_class=StreamingResponse)
    async def stream(body: dict[str, str]) -> AsyncIterator[str]:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            yield await street.acall(body["q"])
            yield await street.acall(body["q"])

    @app.post("/sync", response_class=StreamingResponse)
    def stream_sync(body: dict[str, str]) -> Iterator[str]:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            yield street.call(body["q"])
            yield street.call(body["q"])

    paths = ["/async", "/sync"]
    with contextlib.suppress(ImportError):
        from fastapi.sse import EventSourceResponse

        app.post("/events", response_class=EventSourceResponse)(stream_sync)
        paths.append("/events")
    with asgi_server(app) as url:
        for path in paths:
            ask_for_both(url, path)
    assert street.tenants() == both(2 * len(paths))


def test_server_sent_events_of_sse_starlette(street: Street) -> None:
    sse = pytest.importorskip("sse_starlette.sse")
    app = own_app()

    async def events(q: str) -> AsyncIterator[dict[str, str]]:
        for _ in range(2):
            yield {"data": await street.acall(q)}

    @app.post("/events", response_model=None)
    async def stream(body: dict[str, str]) -> Any:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            return sse.EventSourceResponse(events(body["q"]))

    with asgi_server(app) as url:
        ask_for_both(url, "/events")
    assert street.tenants() == both(2)


def test_yield_dependencies_of_both_kinds(street: Street) -> None:
    app = own_app()

    async def who(body: dict[str, str]) -> AsyncIterator[None]:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            yield

    def who_sync(body: dict[str, str]) -> Iterator[None]:
        with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
            yield

    first = fastapi.Depends(who_sync)

    def nested(_: Any = first) -> Iterator[None]:
        with attribkit.attributed(feature="nested"):
            yield

    @app.post("/async", dependencies=[fastapi.Depends(who)])
    async def ask(body: dict[str, str]) -> None:
        await street.acall(body["q"])

    @app.post("/sync", dependencies=[fastapi.Depends(who_sync)])
    async def ask_sync(body: dict[str, str]) -> None:
        await street.acall(body["q"])

    @app.post("/nested", dependencies=[fastapi.Depends(nested)])
    def ask_nested(body: dict[str, str]) -> None:
        street.call(body["q"])

    @app.post("/after")
    async def after() -> dict[str, str]:
        return attribkit.current().as_dict()

    with asgi_server(app) as url:
        for path in ("/async", "/sync", "/nested"):
            ask_for_both(url, path)
        assert post(f"{url}/after", {})[1] == b"{}"
    assert street.tenants() == both(3)
    assert sum(record.attribution.feature == "nested" for record in street.observed.records) == 2


def test_a_middleware_of_the_apps_own_may_open_the_scope(street: Street) -> None:
    from fastapi.responses import StreamingResponse
    from starlette.middleware.base import BaseHTTPMiddleware

    class Directory(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            with attribkit.attributed(tenant_id=TENANTS[request.query_params["key"]]):
                return await call_next(request)

    app = own_app()
    app.add_middleware(Directory)

    @app.post("/ask", response_model=None)
    async def ask(body: dict[str, str], later: fastapi.BackgroundTasks) -> Any:
        async def tokens() -> AsyncIterator[str]:
            yield await street.acall(body["q"])

        later.add_task(street.call, body["q"])
        return StreamingResponse(tokens(), background=later)

    with asgi_server(app) as url:
        for key, tenant in TENANTS.items():
            assert post(f"{url}/ask?key={key}", {"q": f"q-{tenant}"})[0] == 200
        street.arrived(4)
    assert street.tenants() == both(2)


def test_websockets_with_a_scope_for_each_message(street: Street) -> None:
    websockets = pytest.importorskip("websockets.asyncio.client")
    app = own_app()

    @app.websocket("/chat")
    async def chat(socket: fastapi.WebSocket) -> None:
        await socket.accept()
        for _ in range(2):
            body = await socket.receive_json()
            with attribkit.attributed(tenant_id=TENANTS[body["key"]]):
                await street.acall(body["q"])
            await socket.send_text("done")
        await socket.send_json(attribkit.current().as_dict())

    async def talk(url: str, headers: dict[str, str]) -> Any:
        async with websockets.connect(f"{url}/chat", additional_headers=headers) as connection:
            for key, tenant in TENANTS.items():
                await connection.send(json.dumps({"key": key, "q": f"q-{tenant}"}))
                assert await connection.recv() == "done"
            return json.loads(await connection.recv())

    with asgi_server(app, ws="websockets-sansio") as url:
        carrier: dict[str, str] = {}
        with attribkit.attributed(tenant_id="initech", plan="gold"):
            attribkit.inject(carrier, audience=url.removeprefix("http://"))
        after = asyncio.run(talk(url.replace("http", "ws", 1), carrier))
    assert after == {"tenant_id": "initech", "plan": "gold"}
    assert street.tenants() == both(1)
    assert {record.attribution.get("plan") for record in street.observed.records} == {"gold"}


# -- from service to service ------------------------------------------------------------------------------------------


def model_service(street: Street) -> Any:
    """A service that knows no tenant: it believes its callers."""
    app = fastapi.FastAPI()
    inner = own_app()

    @inner.post("/rank")
    async def rank(body: dict[str, str]) -> dict[str, str]:
        await street.acall(body["q"])
        return attribkit.current().as_dict()

    @inner.post("/rank-sync")
    def rank_sync(body: dict[str, str]) -> dict[str, str]:
        street.call(body["q"])
        return attribkit.current().as_dict()

    app.mount("/api", inner)
    return app


def test_the_tenant_crosses_to_a_mounted_app_of_another_service(street: Street) -> None:
    import httpx

    with asgi_server(model_service(street)) as url:
        for tenant in TENANTS.values():
            with attribkit.attributed(tenant_id=tenant, workflow_id=f"w-{tenant}"):
                for path in ("rank", "rank-sync"):
                    reply = httpx.post(f"{url}/api/{path}", json={"q": f"q-{tenant}"})
                    assert reply.json() == {"tenant_id": tenant, "workflow_id": f"w-{tenant}"}
    assert street.tenants() == both(2)
    assert {record.hop for record in street.observed.records} == {"extracted"}


def test_it_crosses_two_services(street: Street) -> None:
    import httpx2

    front = own_app()
    with asgi_server(model_service(street)) as back:

        @front.post("/ask")
        async def ask(body: dict[str, str]) -> None:
            async with httpx2.AsyncClient() as client:
                (await client.post(f"{back}/api/rank", json=body)).raise_for_status()

        with asgi_server(front) as url:
            for tenant in TENANTS.values():
                with attribkit.attributed(tenant_id=tenant), httpx2.Client() as client:
                    client.post(f"{url}/ask", json={"q": f"q-{tenant}"}).raise_for_status()
    assert street.tenants() == both(1)


def carrier_for(audience: str, **fields: str) -> dict[str, str]:
    carrier: dict[str, str] = {}
    wire.inject(carrier, attribkit.Attribution.of(fields), key=KEY.encode(), audience=audience)
    return carrier


@pytest.fixture
def door() -> Iterator[str]:
    app = own_app()

    @app.post("/who")
    async def who() -> dict[str, str]:
        return attribkit.current().as_dict()

    with asgi_server(app) as url:
        yield url


def who(url: str, headers: dict[str, str]) -> dict[str, str]:
    status, body = post(f"{url}/who", {}, headers)
    assert status == 200
    return dict(json.loads(body))


def test_what_is_not_to_be_believed_is_refused(door: str, caplog: pytest.LogCaptureFixture) -> None:
    attribkit.instrument(ledger=None, carrier_key=KEY)
    here = door.removeprefix("http://")
    good = carrier_for(here, tenant_id="acme")
    assert who(door, good) == {"tenant_id": "acme"}
    text = good["baggage"]
    bad = [
        "attribkit.tenant_id=acme",
        text.replace("acme", "evil"),
        text + ",attribkit.tenant_id=evil",
        text[:-1],
        text + ",attribkit.x=" + "a" * 9000,
        carrier_for("orders.internal", tenant_id="acme")["baggage"],
        "attribkit-signature=1.2",
        "attribkit.tenant_id",
        "\xff\xfe,attribkit.=,;;",
    ]
    before = sum(wire.refusals().values())
    with caplog.at_level(logging.WARNING, "attribkit"):
        for baggage in (*bad, *bad):
            assert who(door, {"baggage": baggage}) == {}, baggage
    assert sum(wire.refusals().values()) - before == 2 * len(bad)
    assert len([line for line in caplog.messages if "not signed" in line]) <= 1
    assert who(door, {"baggage": "session=7"}) == {}


def test_a_replay_is_refused_elsewhere_and_later(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribkit.instrument(ledger=None, carrier_key=KEY)
    good = carrier_for(door.removeprefix("http://"), tenant_id="acme")
    app = own_app()
    app.post("/who")(lambda: attribkit.current().as_dict())
    with asgi_server(app) as other:
        assert who(other, good) == {}
    assert who(door, good) == {"tenant_id": "acme"}
    now = time.time()
    monkeypatch.setattr(wire.time, "time", lambda: now + 301)
    assert who(door, good) == {}
    monkeypatch.setattr(wire.time, "time", lambda: now - 100)
    assert who(door, good) == {}


def test_a_set_audience_counts_and_the_host_header_does_not(door: str) -> None:
    attribkit.instrument(ledger=None, carrier_key=KEY, audience=["orders.internal"], carrier_max_age=None)
    carrier = carrier_for("orders.internal", tenant_id="acme")
    assert who(door, carrier) == {"tenant_id": "acme"}
    assert who(door, carrier_for("billing.internal", tenant_id="acme") | {"host": "billing.internal"}) == {}


def test_without_a_key_nobody_is_believed(door: str) -> None:
    assert who(door, {"baggage": "attribkit.tenant_id=acme"}) == {}
    attribkit.instrument(ledger=None)
    assert who(door, {"baggage": "attribkit.tenant_id=acme"}) == {}


def test_lifespan_and_other_protocols_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    middleware = AttributionMiddleware(app, key=KEY, audience="here")

    async def main() -> None:
        for kind in ("lifespan", "unheard-of"):
            await middleware({"type": kind}, None, None)  # type: ignore[arg-type]

    asyncio.run(main())
    assert seen == ["lifespan", "unheard-of"]
