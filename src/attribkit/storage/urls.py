"""Database URLs: which store a URL names, with errors that say which would do."""

import os
from collections.abc import Sequence

from attribkit.errors import ConfigurationError

__all__ = ["DatabaseURL", "parse_url"]

_LATER = {
    "postgresql": "PostgreSQL",
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "rediss": "Redis",
    "clickhouse": "ClickHouse",
}


class DatabaseURL:
    """A URL taken apart. `path` is absolute for a SQLite file and None for a store in memory."""

    __slots__ = ("path", "scheme")

    def __init__(self, scheme: str, path: str | None) -> None:
        self.scheme = scheme
        self.path = path


def parse_url(url: str, *, name: str = "ledger", schemes: Sequence[str] = ("sqlite", "memory")) -> DatabaseURL:
    """Return the store that `url` names. A relative path is taken from the working directory of now.

    `sqlite:///costs.db` is relative, `sqlite:////var/lib/costs.db` absolute; `memory://` lives and dies with the
    process. `name` is the setting that the error speaks of. Raises ConfigurationError; it never repeats what follows
    the scheme of a network URL, where a password can be.
    """
    scheme, colon, rest = url.partition(":")
    scheme, rest = scheme.lower(), rest.removeprefix("//")
    if not colon or not scheme.replace("+", "").isalnum():
        raise ConfigurationError(
            f"{name} {url!r} is no URL; for a file write sqlite:///{url or 'attribkit.db'}",
            name=name,
            value=url,
            allowed=schemes,
        )
    allowed = ", ".join("memory://" if one == "memory" else f"{one}:///PATH" for one in schemes)
    if scheme not in schemes:
        known = _LATER.get(scheme)
        why = f"{known} is not supported by this version" if known else "there is no such store"
        raise ConfigurationError(
            f"{name} {scheme}://...: {why}; use {allowed}", name=name, value=scheme, allowed=schemes
        )
    if scheme == "memory" or (scheme == "sqlite" and rest in ("", "/", "/:memory:")):
        return DatabaseURL(scheme, None)
    if not rest.startswith("/") or rest.startswith("/?") or "?" in rest:
        raise ConfigurationError(
            f"{name} {url!r}: a SQLite URL is sqlite:/// and a path, without a host or a query "
            "(sqlite:///costs.db, sqlite:////var/lib/costs.db)",
            name=name,
            value=url,
            allowed=schemes,
        )
    return DatabaseURL(scheme, os.path.abspath(rest[1:]))
