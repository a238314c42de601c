"""From a URL to what its gateway is told: routes by URL prefix, each with a dialect and what the user set for it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.errors import ConfigurationError
from attribkit.gateways.base import NOTHING, CallIds, Headers
from attribkit.gateways.prefixes import Place, covers, place
from attribkit.gateways.route_settings import RouteSettings, newest_pseudonym, read_route
from attribkit.gateways.table import HOSTED

__all__ = ["Gateways", "Route"]

_REMEMBERED = 1024
_HOSTED_ROUTES = 256


class Route:
    """One gateway: how it is told who a call is for. No method here raises: a fault of a dialect is counted, logged
    once, and leaves the request as it was."""

    __slots__ = (
        "_dialect",
        "_fields",
        "_headers",
        "_last",
        "_lock",
        "_pseudonymise",
        "_secret",
        "_sent",
        "body_apis",
        "call_headers",
        "dialect",
        "host",
        "left_out",
        "prefix",
        "reads_reply",
        "stream_usage",
    )

    def __init__(self, prefix: str, host: str, settings: RouteSettings, secret: tuple[str, bytes] | None) -> None:
        self.prefix = prefix
        self.host = host
        self.dialect = settings.dialect.name
        self.stream_usage = settings.stream_usage
        """True when a chat stream may be asked for usage here."""
        self.body_apis = settings.dialect.body_apis
        """The APIs for which the dialect has something to say in the body."""
        self.reads_reply = settings.dialect.reads_reply
        """True when the gateway says its own id or cost in response headers; else they need not be looked at."""
        self.left_out: Counter[str] = Counter()
        """How often each field was left out because the gateway's limits had no room for it."""
        self.call_headers: Callable[[CallIds], Headers] = settings.dialect.call_headers
        """Returns the headers that are new for each attempt. The caller looks after its faults."""
        self._dialect = settings.dialect
        self._fields = settings.fields
        self._pseudonymise = settings.pseudonymise
        self._secret = secret
        self._headers: dict[Attribution, Headers] = {}
        self._last: tuple[Attribution | None, Headers] = None, ()
        self._sent: dict[Attribution, Attribution] = {}
        self._lock = threading.Lock()

    def headers(self, attribution: Attribution) -> Headers:
        """Return the headers that say `attribution`, lower-case names. Computed once for each attribution."""
        last = self._last
        if last[0] is attribution:
            return last[1]
        found = self._headers.get(attribution)
        if found is None:
            return self._said(attribution)
        self._last = attribution, found
        return found

    def _said(self, attribution: Attribution) -> Headers:
        try:
            sent = self.sent(attribution)
            headers = self._dialect.headers(sent)
            self._report(self._dialect.left_out(sent))
        except Exception as error:
            faults.note(f"gateways.{self.dialect}.headers", error)
            return ()
        self._remember(self._headers, attribution, headers)
        return headers

    def sent(self, attribution: Attribution) -> Attribution:
        """Return what of `attribution` this gateway may know: only the fields it is allowed, pseudonyms where set."""
        if self._fields is None and not self._pseudonymise:
            return attribution
        found = self._sent.get(attribution)
        if found is None:
            found = attribution
            if self._fields is not None:
                found = Attribution(tuple(pair for pair in found.fields if pair[0] in self._fields))
            if self._pseudonymise and self._secret is not None:
                key_id, secret = self._secret
                found = found.pseudonymised(self._pseudonymise, secret, key_id=key_id)
            self._remember(self._sent, attribution, found)
        return found

    def _remember(self, cache: dict[Attribution, Any], attribution: Attribution, value: object) -> None:
        with self._lock:
            while len(cache) >= _REMEMBERED:
                del cache[next(iter(cache))]
            cache[attribution] = value

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the top-level fields to set in a JSON body, merged with what the user set in them; {} for none."""
        if api not in self.body_apis or not attribution:
            return NOTHING
        try:
            sent = self.sent(attribution)
            field = self._dialect.body_field
            if field is not None and body.get(field):
                self._report(self._dialect.left_out(sent, body))
            return self._dialect.body(sent, api, body)
        except Exception as error:
            faults.note(f"gateways.{self.dialect}.body", error)
            return NOTHING

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the top-level body fields that ask for `tier`; {} when headers say it, the target knows no such tier,
        or the user has set them."""
        try:
            return self._dialect.tier(tier, api, body)
        except Exception as error:
            faults.note(f"gateways.{self.dialect}.tier", error)
            return NOTHING

    def gateway_request_id(self, headers: Mapping[str, str]) -> str | None:
        """Return the gateway's own id of the request, from response headers with lower-case names."""
        try:
            return self._dialect.gateway_request_id(headers)
        except Exception as error:
            faults.note(f"gateways.{self.dialect}.gateway_request_id", error)
            return None

    def stated_cost(self, headers: Mapping[str, str]) -> str | None:
        """Return the cost in USD that the gateway states in its response headers, as text that `Decimal` takes."""
        try:
            return self._dialect.stated_cost(headers)
        except Exception as error:
            faults.note(f"gateways.{self.dialect}.stated_cost", error)
            return None

    def _report(self, fields: tuple[str, ...]) -> None:
        if not fields:
            return
        new = [field for field in fields if field not in self.left_out]
        self.left_out.update(fields if len(self.left_out) < _REMEMBERED else (f for f in fields if f in self.left_out))
        if new and len(self.left_out) < _REMEMBERED:
            logging.getLogger("attribkit").warning(
                "the gateway at %s (%s) has no room for %s; its setting `fields` chooses which fields it gets. "
                "This is logged once, and counted",
                self.prefix,
                self.dialect,
                ", ".join(new),
            )

    def __repr__(self) -> str:
        return f"<Route {self.prefix} {self.dialect}>"


class Gateways:
    """The gateways that may be told who calls are for: those configured, by URL prefix, and hosted ones, by host name.

    `configured` maps a URL prefix to a dialect's name, to `module:function`, to "off", or to a map of settings:
    `dialect`, `fields` (the only ones told, first come first), `pseudonymise` (fields that go as keyed pseudonyms),
    `tiers` (names of tiers -> the gateway's), `headers` (templates, for `custom`), `buckets` (for `vertex`),
    `stream_usage`. A prefix without a port stands for every port of that host; the longest prefix wins.
    `pseudonyms` maps key ids to secrets; the last id in order signs. Raises ConfigurationError.
    """

    def __init__(
        self,
        configured: Mapping[str, str | Mapping[str, Any]],
        *,
        hosted: bool = True,
        pseudonyms: Mapping[str, str | bytes] | None = None,
    ) -> None:
        self._hosted = hosted
        self._secret = newest_pseudonym(pseudonyms or {})
        self._hosted_routes: dict[tuple[str, str], Route] = {}
        by_host: dict[str, list[tuple[int, bool, Place, Route | None]]] = {}
        for prefix, value in configured.items():
            at = place(prefix) if isinstance(prefix, str) else None
            if at is None or not at.plain:
                raise ConfigurationError(
                    f"gateways: {prefix!r} is no URL prefix; it has a scheme and a host, and may have a port and a "
                    "path, as in https://gateway.internal/v1",
                    name="gateways",
                    value=prefix,
                    allowed=("https://host", "http://host:port/path"),
                )
            settings = read_route(prefix, value)
            if settings is not None and settings.pseudonymise and self._secret is None:
                raise ConfigurationError(
                    f"gateways[{prefix!r}].pseudonymise needs a key: set pseudonyms, as in {{'2026-11': a secret}}",
                    name=f"gateways[{prefix!r}].pseudonymise",
                    value=sorted(settings.pseudonymise),
                )
            route = Route(prefix, at.host, settings, self._secret) if settings is not None else None
            length = len(at.path) + (len(str(at.port)) + 1 if at.port is not None else 0)
            by_host.setdefault(at.host, []).append((length, at.port is not None, at, route))
        self._by_host = {
            host: tuple((at, route) for *_, at, route in sorted(rows, key=lambda row: row[:2], reverse=True))
            for host, rows in by_host.items()
        }

    @property
    def routes(self) -> tuple[Route, ...]:
        """The configured routes."""
        return tuple(route for rows in self._by_host.values() for _, route in rows if route is not None)

    def match(self, url: str) -> Route | None:
        """Return the gateway that `url` leads to, None when it is not one that may be told anything."""
        at = place(url)
        if at is None:
            return None
        for prefix, route in self._by_host.get(at.host, ()):
            if covers(prefix, at):
                return route
        if self._hosted and at.scheme == "https":
            for host, dialect in HOSTED:
                if at.host == host or (host[0] == "." and at.host.endswith(host)):
                    return self._hosted_route(at.host, dialect)
        return None

    def _hosted_route(self, host: str, dialect: str) -> Route:
        route = self._hosted_routes.get((host, dialect))
        if route is None:
            settings = read_route(f"https://{host}", dialect)
            assert settings is not None
            if len(self._hosted_routes) >= _HOSTED_ROUTES:
                self._hosted_routes.clear()
            route = self._hosted_routes[host, dialect] = Route(f"https://{host}", host, settings, None)
        return route
