"""Calls to own services over HTTP: the signed carrier goes to the peers named, and to nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from attribkit import faults, wire
from attribkit.attribution import Attribution
from attribkit.context import in_force
from attribkit.errors import ConfigurationError
from attribkit.gateways.prefixes import Place, covers, place
from attribkit.instrumentation.clients.stainless import EXTENSION
from attribkit.instrumentation.patching import Patch

__all__ = ["Peers", "patches"]

_MARK = "attribkit.peer"
_ATTRIBUTE = "_attribkit_peer"
_REMEMBERED = 1024
_SECONDS_REUSED = 20
"""A signed carrier is made once for the calls of one attribution to one peer that follow each other closely."""


class _Prefix(NamedTuple):
    at: Place
    length: int


def _prefix(at: Place) -> _Prefix:
    return _Prefix(at, len(at.path) + (len(str(at.port)) + 1 if at.port is not None else 0))


class Peers:
    """The own services that are told who a call is for, by URL prefix, and what each is told.

    A prefix without a port stands for every port of that host. A URL that a gateway's prefix covers as closely is the
    gateway's: it is told in its own dialect. Raises ConfigurationError for what is no URL prefix.
    """

    def __init__(
        self, prefixes: tuple[str, ...], key: bytes, gateway_at: Callable[[str], Any] = lambda url: None
    ) -> None:
        self._key = key
        self._gateway_at = gateway_at
        self._by_host: dict[str, list[_Prefix]] = {}
        for each in prefixes:
            at = place(each)
            if at is None or not at.plain:
                raise ConfigurationError(
                    f"peers: {each!r} is no URL prefix; it has a scheme and a host, and may have a port and a path, as "
                    "in http://orders.internal",
                    name="peers",
                    value=each,
                    allowed=("https://host", "http://host:port/path"),
                )
            self._by_host.setdefault(at.host, []).append(_prefix(at))
        self._audiences: dict[str, str | None] = {}
        self._carriers: dict[tuple[Attribution, str], tuple[float, str]] = {}

    def audience(self, url: str) -> str | None:
        """Return whom a carrier to `url` is signed for, the host and port that are called; None when it is no peer."""
        url = url.partition("?")[0]
        if url in self._audiences:
            return self._audiences[url]
        found = self._audience(url)
        if len(self._audiences) >= _REMEMBERED:
            self._audiences.clear()
        self._audiences[url] = found
        return found

    def _audience(self, url: str) -> str | None:
        at = place(url)
        if at is None:
            return None
        lengths = [prefix.length for prefix in self._by_host.get(at.host, ()) if covers(prefix.at, at)]
        if not lengths:
            return None
        route = self._gateway_at(url)
        if route is not None:
            gateway = place(getattr(route, "prefix", url))
            if gateway is None or _prefix(gateway).length >= max(lengths):
                return None
        host = f"[{at.host}]" if ":" in at.host else at.host
        return wire.audience_at(host if at.port is None else f"{host}:{at.port}")

    def carrier(self, attribution: Attribution, audience: str, there: str | None) -> str:
        """Return the baggage header that says `attribution` to `audience`, beside the entries in `there`."""
        if there:
            carrier = {"baggage": there}
            wire.inject(carrier, attribution, key=self._key, audience=audience)
            return carrier.get("baggage", "")
        known, now = self._carriers.get((attribution, audience)), time.monotonic()
        if known is not None and now - known[0] < _SECONDS_REUSED:
            return known[1]
        carrier = {}
        wire.inject(carrier, attribution, key=self._key, audience=audience)
        if len(self._carriers) >= _REMEMBERED:
            self._carriers.clear()
        text = carrier.get("baggage", "")
        self._carriers[attribution, audience] = now, text
        return text

    def stamp(self, headers: Any, url: Callable[[], str]) -> tuple[str | None] | None:
        """Say what is in force in `headers` if `url()` is a peer's. Return the baggage header that was there before,
        None when nothing was changed. A carrier that the app has put there itself stays."""
        attribution = in_force().attribution
        if not attribution:
            return None
        audience = self.audience(url())
        if audience is None:
            return None
        there = headers.get("baggage")
        if there and wire.holds(there):
            return None
        text = self.carrier(attribution, audience, there)
        if not text:
            return None
        headers["baggage"] = text
        return (there,)


def _restore(headers: Any, mark: tuple[str | None]) -> None:
    """Take our carrier off headers that were copied for a request to another place."""
    (before,) = mark
    if before is None:
        headers.pop("baggage", None)
    else:
        headers["baggage"] = before


def _of_httpx(peers: Peers) -> Callable[..., Any]:
    def send(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Once for each request on the wire, those that follow a redirect included."""
        try:
            request = args[0] if args else kwargs["request"]
            extensions = request.extensions
            if EXTENSION not in extensions:
                mark = extensions.pop(_MARK, None)
                if mark is not None:
                    _restore(request.headers, mark)
                mark = peers.stamp(request.headers, lambda: str(request.url))
                if mark is not None:  # in a dict of the request's own: the app may share one between requests
                    request.extensions = {**extensions, _MARK: mark}
        except Exception as fault:
            faults.note("peers.httpx", fault)
        return wrapped(*args, **kwargs)

    return send


def _of_requests(peers: Peers) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def send(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Once for each request on the wire: a session calls it again for each redirect."""
        try:
            request = args[0] if args else kwargs["request"]
            mark = request.__dict__.pop(_ATTRIBUTE, None)
            if mark is not None:
                _restore(request.headers, mark)
            mark = peers.stamp(request.headers, lambda: str(request.url))
            if mark is not None:
                setattr(request, _ATTRIBUTE, mark)
        except Exception as fault:
            faults.note("peers.requests", fault)
        return wrapped(*args, **kwargs)

    def rebuild_auth(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A redirect has copied the headers of the request before it."""
        try:
            request = args[0] if args else kwargs["prepared_request"]
            response = args[1] if len(args) > 1 else kwargs["response"]
            mark = getattr(response.request, _ATTRIBUTE, None)
            if mark is not None:
                _restore(request.headers, mark)
        except Exception as fault:
            faults.note("peers.redirect", fault)
        return wrapped(*args, **kwargs)

    return send, rebuild_auth


def _of_aiohttp(peers: Peers) -> Callable[..., Any]:
    def send(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Once for each request on the wire; one that follows a redirect is made anew from the caller's headers."""
        try:
            peers.stamp(instance.headers, lambda: str(instance.url))
        except Exception as fault:
            faults.note("peers.aiohttp", fault)
        return wrapped(*args, **kwargs)

    return send


def _of_websockets(peers: Peers) -> Callable[..., Any]:
    def send(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Once for each handshake on the wire; one that follows a redirect is made anew from the caller's headers."""
        try:
            headers = (args[0] if args else kwargs["request"]).headers
            found = {"baggage": ",".join(headers.get_all("baggage"))}
            if peers.stamp(found, lambda: _address(getattr(instance, "uri", None) or instance.wsuri)) is not None:
                if "baggage" in headers:
                    del headers["baggage"]
                headers["baggage"] = found["baggage"]
        except Exception as fault:
            faults.note("peers.websockets", fault)
        return wrapped(*args, **kwargs)

    return send


def _address(uri: Any) -> str:
    """Return the URL of a websocket's handshake, which is an HTTP request."""
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    return f"http{'s' if uri.secure else ''}://{host}:{uri.port}{uri.path}"


def patches(peers: Peers | None) -> tuple[Patch, ...]:
    """Return the rows that give the carrier to each request that leaves for a peer; none without peers."""
    if peers is None:
        return ()
    httpx, (requests, rebuild_auth) = _of_httpx(peers), _of_requests(peers)

    def row(module: str, path: str, wrapper: Any, *, hot: bool = False) -> Patch:
        return Patch(module, path, wrapper, "peers", module.partition(".")[0], hot=hot)

    return (
        *(
            row(f"{library}._client", f"{client}._send_single_request", httpx, hot=True)
            for library in ("httpx", "httpx2")
            for client in ("Client", "AsyncClient")
        ),
        row("requests.sessions", "Session.send", requests),
        row("requests.sessions", "SessionRedirectMixin.rebuild_auth", rebuild_auth),
        row("aiohttp.client_reqrep", "ClientRequest.send", _of_aiohttp(peers)),
        row("websockets.client", "ClientProtocol.send_request", _of_websockets(peers)),
    )
