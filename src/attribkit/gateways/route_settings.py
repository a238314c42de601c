"""What a user can set for one gateway, read and checked when the app starts."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, cast

from attribkit.errors import ConfigurationError
from attribkit.gateways.base import Dialect
from attribkit.gateways.table import DIALECTS, dialect_class

__all__ = ["OFF", "RouteSettings", "newest_pseudonym", "read_route"]

OFF = "off"
"""Instead of a dialect: nothing goes to this prefix, not even where it is a hosted gateway's."""
_KEYS = ("dialect", "fields", "pseudonymise", "tiers", "headers", "buckets", "stream_usage")
_SECRET_LENGTH = 16


class RouteSettings:
    __slots__ = ("dialect", "fields", "pseudonymise", "stream_usage")

    def __init__(
        self,
        dialect: Dialect,
        fields: frozenset[str] | None = None,
        pseudonymise: frozenset[str] = frozenset(),
        stream_usage: bool = True,
    ) -> None:
        self.dialect = dialect
        self.fields = fields
        """The only fields that are told; None for all."""
        self.pseudonymise = pseudonymise
        self.stream_usage = stream_usage


def _refuse(name: str, value: object, why: str, allowed: Iterable[str] = ()) -> NoReturn:
    raise ConfigurationError(f"{name}={value!r}: {why}", name=name, value=value, allowed=tuple(allowed))


def read_route(prefix: str, value: object) -> RouteSettings | None:
    """Return what is set for `prefix`, None when it is off.

    `value` is a dialect's name, `module:function`, "off", or a map of settings. Raises ConfigurationError.
    """
    where = f"gateways[{prefix!r}]"
    if value == OFF:
        return None
    if isinstance(value, str):
        value = {"dialect": "custom", "headers": value} if ":" in value else {"dialect": value}
    if not isinstance(value, Mapping):
        _refuse(where, value, f"is neither a dialect ({', '.join(DIALECTS)}) nor a map of settings", DIALECTS)
    for key in value:
        if key not in _KEYS:
            _refuse(f"{where}.{key}", value[key], f"no such setting; the settings are {', '.join(_KEYS)}", _KEYS)
    name = value.get("dialect")
    if name == OFF:
        return None
    if not isinstance(name, str) or name not in DIALECTS:
        _refuse(
            f"{where}.dialect",
            name,
            f"no such dialect; the dialects are {', '.join(DIALECTS)}, module:function, and {OFF} for none",
            (*DIALECTS, OFF),
        )
    fields = _names(f"{where}.fields", value.get("fields"))
    arguments: dict[str, Any] = {"order": fields or (), "tiers": _words(f"{where}.tiers", value.get("tiers"))}
    if name == "custom":
        arguments |= {"headers": _headers(f"{where}.headers", value.get("headers")), "where": f"{where}.headers"}
    elif "headers" in value:
        _refuse(f"{where}.headers", value["headers"], "only the dialect custom has header templates", ("custom",))
    if "buckets" in value:
        if name != "vertex":
            _refuse(f"{where}.buckets", value["buckets"], "only the dialect vertex has buckets", ("vertex",))
        arguments["buckets"] = _buckets(f"{where}.buckets", value["buckets"])
    dialect = cast("Dialect", dialect_class(name)(**arguments))
    stream_usage = value.get("stream_usage", dialect.stream_usage)
    if not isinstance(stream_usage, bool):
        _refuse(f"{where}.stream_usage", stream_usage, "must be true or false", ("true", "false"))
    return RouteSettings(
        dialect,
        frozenset(fields) | {"tier"} if fields is not None else None,
        frozenset(_names(f"{where}.pseudonymise", value.get("pseudonymise")) or ()),
        stream_usage,
    )


def _names(where: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
        _refuse(where, value, 'must be a list of field names, as in ["tenant_id", "workflow"]')
    return tuple(dict.fromkeys(value))


def _words(where: str, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and isinstance(word, str) and word for name, word in value.items()
    ):
        _refuse(where, value, 'must map names of tiers to the gateway\'s own, as in {"gold": "priority"}')
    return dict(value)


def _buckets(where: str, value: object) -> dict[str, int]:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and type(count) is int and 1 <= count <= 1000 for name, count in value.items()
    ):
        _refuse(where, value, 'must map fields to a number of buckets from 1 to 1000, as in {"tenant_id": 500}')
    return dict(value)


def _headers(where: str, value: object) -> Any:
    """Return header templates, or the function that `module:function` names."""
    if isinstance(value, Mapping) and value:
        return value
    if callable(value):
        return value
    if not isinstance(value, str) or value.count(":") != 1:
        _refuse(where, value, 'must be templates, as in {"x-cost-tags": "{tenant_id}/{workflow}"}, or module:function')
    module, _, path = value.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        _refuse(where, value, f"cannot be imported: {error}")
    if not callable(found):
        _refuse(where, value, "is not a function")
    return found


def newest_pseudonym(secrets: Mapping[str, str | bytes]) -> tuple[str, bytes] | None:
    """Return the id and secret that sign: those of the last id in order, as dates sort. None when there are none.

    Raises ConfigurationError, which never shows a secret.
    """
    for key_id, secret in secrets.items():
        where = f"pseudonyms[{key_id!r}]"
        if not isinstance(key_id, str) or not key_id or not key_id.replace("-", "").replace("_", "").isalnum():
            _refuse(where, "***", "an id has letters, digits, - and _ only, as in 2026-11")
        if not isinstance(secret, (str, bytes)) or len(secret) < _SECRET_LENGTH:
            _refuse(where, "***", f"a secret needs at least {_SECRET_LENGTH} characters")
    if not secrets:
        return None
    newest = max(secrets)
    secret = secrets[newest]
    return newest, secret.encode() if isinstance(secret, str) else secret
