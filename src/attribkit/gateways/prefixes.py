"""Which URLs a URL prefix covers.

A prefix covers a URL when scheme and host are the same (capitals, a dot at the end, and the spelling of an IPv6 address
or a non-ASCII name aside), the port is the same or the prefix names none, and its path ends where one of the URL's path
segments ends. What stands before an `@` is no host. A URL that clients could read in two ways (white space, control
characters, a backslash) is covered by none.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["Place", "covers", "place"]

_TWO_READINGS = "[\x00-\x20\x7f\\\\]"
_DOT = "(?i:%2e)"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Place:
    """A URL, reduced to what decides who gets the request."""

    __slots__ = ("host", "path", "plain", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int | None, path: str, plain: bool) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        """None where the URL names none."""
        self.path = path
        """Without a slash at the end: "" for the root."""
        self.plain = plain
        """False when the URL has a user, a query or a fragment, which a prefix cannot have."""


def place(url: str) -> Place | None:
    """Return what `url` points at, None when that is not one http(s) host."""
    if re.search(_TWO_READINGS, url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return None
    host = _host(host)
    if host is None:
        return None
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    return Place(parts.scheme, host, port, _path(parts.path), plain)


def _host(host: str) -> str | None:
    if ":" in host:
        import ipaddress

        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            return None
    host = host.removesuffix(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return None
    return host.lower() or None


def _path(path: str) -> str:
    """Return the path with its dot segments resolved, as a server resolves them."""
    if "." in path or "%2" in path:
        segments: list[str] = []
        for segment in path.split("/"):
            dots = re.sub(_DOT, ".", segment)
            if dots == "..":
                if len(segments) > 1:
                    segments.pop()
            elif dots != ".":
                segments.append(segment)
        path = "/".join(segments)
    return path.rstrip("/")


def covers(prefix: Place, url: Place) -> bool:
    """Tell whether `url` lies under `prefix`."""
    if prefix.scheme != url.scheme or prefix.host != url.host:
        return False
    if prefix.port is not None and prefix.port != (url.port or _DEFAULT_PORTS[url.scheme]):
        return False
    return url.path == prefix.path or url.path.startswith(f"{prefix.path}/")
