"""WSGI services: Flask, Django and plain applications behind a threaded server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from services.serving import KEY, post, wsgi_server

import attribkit
from attribkit import wire
from attribkit.wsgi import AttributionMiddleware

MODEL = "gpt-5-mini"
TENANTS = ("acme", "globex")


class Model:
    def __init__(self, observe: Any) -> None:
        self.observed = observe(peers=["http://127.0.0.1"], carrier_key=KEY)
        self._client = self.observed.client()

    def call(self, question: str) -> str:
        message = {"role": "user", "content": question}
        return str(self._client.chat.completions.create(model=MODEL, messages=[message]).choices[0].message.content)

    def told(self) -> dict[str, list[str | None]]:
        found: dict[str, list[str | None]] = {}
        for request in self.observed.requests():
            tenant = request.attribution.get("tenant_id")
            found.setdefault(request.json["messages"][-1]["content"], []).append(tenant)
        assert len(self.observed.records) == sum(map(len, found.values()))
        return found


@pytest.fixture
def model(observe: Any) -> Model:
    return Model(observe)


def carrier(url: str, **fields: str) -> dict[str, str]:
    made: dict[str, str] = {}
    audience = url.removeprefix("http://").partition("/")[0]
    wire.inject(made, attribkit.Attribution.of(fields), key=KEY.encode(), audience=audience)
    return made


def test_flask(model: Model) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("orders")
    app.wsgi_app = AttributionMiddleware(app.wsgi_app)

    @app.post("/rank")
    def rank() -> dict[str, str]:
        model.call(flask.request.json["q"])
        return attribkit.current().as_dict()

    @app.post("/stream")
    def stream() -> Iterator[str]:
        question = flask.request.json["q"]

        def pieces() -> Iterator[str]:
            yield model.call(question)
            yield model.call(question)

        return pieces()

    @app.post("/own-scope")
    def own_scope() -> Any:
        question = flask.request.json["q"]

        @flask.stream_with_context
        def pieces() -> Iterator[str]:
            yield model.call(flask.request.json["q"])
            yield model.call(question)

        with attribkit.attributed(tenant_id=question.removeprefix("q-")):
            return flask.Response(pieces(), mimetype="text/plain")

    @app.post("/scope-inside")
    def scope_inside() -> Any:
        question = flask.request.json["q"]

        def pieces() -> Iterator[str]:
            with attribkit.attributed(tenant_id=question.removeprefix("q-")):
                yield model.call(question)
                assert attribkit.current().tenant_id
                yield model.call(question)

        return flask.Response(pieces())

    with wsgi_server(app) as url:
        for tenant in TENANTS:
            status, body = post(f"{url}/rank", {"q": f"q-{tenant}"}, carrier(url, tenant_id=tenant, plan="gold"))
            assert (status, json.loads(body)) == (200, {"tenant_id": tenant, "plan": "gold"})
            assert post(f"{url}/stream", {"q": f"q-{tenant}"}, carrier(url, tenant_id=tenant))[0] == 200
            assert post(f"{url}/own-scope", {"q": f"q-{tenant}"})[0] == 200
            assert post(f"{url}/scope-inside", {"q": f"q-{tenant}"})[0] == 200
            forged = {"baggage": f"attribkit.tenant_id={tenant}"}
            assert json.loads(post(f"{url}/rank", {"q": "forged"}, forged)[1]) == {}
    told = model.told()
    assert told.pop("forged") == [None, None]
    assert told == {f"q-{tenant}": [tenant] * 7 for tenant in TENANTS}


def test_django(model: Model) -> None:
    django = pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="tests",
            USE_TZ=True,
            LOGGING_CONFIG=None,
            DEBUG=False,
        )
        django.setup()
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import JsonResponse, StreamingHttpResponse
    from django.urls import path

    def rank(request: Any) -> Any:
        model.call(json.loads(request.body)["q"])
        return JsonResponse(attribkit.current().as_dict())

    def stream(request: Any) -> Any:
        question = json.loads(request.body)["q"]

        def pieces() -> Iterator[str]:
            yield model.call(question)
            yield model.call(question)

        with attribkit.attributed(tenant_id=question.removeprefix("q-")):
            return StreamingHttpResponse(pieces())

    global urlpatterns
    urlpatterns = [path("rank", rank), path("stream", stream)]
    with wsgi_server(AttributionMiddleware(WSGIHandler())) as url:
        for tenant in TENANTS:
            status, body = post(f"{url}/rank", {"q": f"q-{tenant}"}, carrier(url, tenant_id=tenant))
            assert (status, json.loads(body)) == (200, {"tenant_id": tenant})
            assert post(f"{url}/stream", {"q": f"q-{tenant}"})[0] == 200
    assert model.told() == {f"q-{tenant}": [tenant] * 3 for tenant in TENANTS}


urlpatterns: list[Any] = []


def test_a_plain_app_keeps_its_scope_until_the_body_is_closed() -> None:
    attribkit.instrument(ledger=None, carrier_key=KEY)
    seen: list[str | None] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            seen.append(attribkit.current().tenant_id)
            yield b"a"
            seen.append(attribkit.current().tenant_id)
            yield b"b"

        def close(self) -> None:
            seen.append(attribkit.current().tenant_id)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")])
        return Body()

    with wsgi_server(AttributionMiddleware(app)) as url:
        assert post(url, None, carrier(url, tenant_id="acme")) == (200, b"ab")
        assert post(url) == (200, b"ab")
    assert seen == ["acme"] * 3 + [None] * 3


def test_it_crosses_from_requests_to_flask_and_on(model: Model) -> None:
    flask, requests = pytest.importorskip("flask"), pytest.importorskip("requests")
    front, back = flask.Flask("front"), flask.Flask("back")
    for app in (front, back):
        app.wsgi_app = AttributionMiddleware(app.wsgi_app)

    @back.post("/rank")
    def rank() -> str:
        return model.call(flask.request.json["q"])

    with wsgi_server(back) as behind:

        @front.post("/ask")
        def ask() -> str:
            return str(requests.post(f"{behind}/rank", json=flask.request.json, timeout=20).status_code)

        with wsgi_server(front) as url:
            for tenant in TENANTS:
                with attribkit.attributed(tenant_id=tenant):
                    assert requests.post(f"{url}/ask", json={"q": f"q-{tenant}"}, timeout=20).text == "200"
    assert model.told() == {f"q-{tenant}": [tenant] for tenant in TENANTS}
