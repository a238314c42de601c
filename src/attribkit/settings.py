"""What a user can set: keywords, ATTRIBKIT_... environment variables, attribkit.toml or [tool.attribkit].

Its own sources: those of pydantic-settings took a third of the time that `instrument()` takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from attribkit.errors import ConfigurationError

__all__ = ["Settings", "load", "sources"]

_SECRET = frozenset({"carrier_key", "pseudonym_keys"})
_PREFIX = "ATTRIBKIT_"
_LISTED = ("require", "peers", "audience")
_JSON = frozenset({"gateways", "budgets", "pseudonym_keys", "tiers", "hops", "aliases"})
"""Settings whose environment variable holds JSON. `prices` can hold JSON, or the name of a file."""


class Settings(BaseModel):
    """Every setting of `instrument()`, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, validate_default=True)

    gateways: dict[str, str | dict[str, Any]] = Field({}, description="URL prefix -> dialect, or a table with options")
    hosted_gateways: bool = Field(True, description="know hosted gateways by their host names")
    ledger: Any = Field("sqlite:///attribkit.db", description="a URL, none, or an object with finished(record)")
    spool_dir: str | None = Field(None, description="where rows wait for the ledger; beside a SQLite file by default")
    budgets: tuple[Any, ...] = Field((), description="attribkit.Budget objects, or tables with the same keys")
    budget_store: str | None = Field("ledger", description="where budgets are counted; none: in this process")
    require: tuple[str, ...] = Field((), description="fields every model call must carry")
    on_missing: Literal["record", "reject"] = Field("record", description="what a call without them gets")
    peers: tuple[str, ...] = Field((), description="own services that get the signed carrier")
    carrier_key: SecretStr | None = Field(None, description="the key that signs carriers between own services")
    carrier_max_age: float | None = Field(300, description="seconds after which a carrier over HTTP is refused; none")
    audience: tuple[str, ...] = Field((), description="host[:port] by which callers reach us")
    pseudonym_keys: dict[str, SecretStr] = Field({}, description="key id -> secret; the last id in order signs")
    tiers: tuple[dict[str, Any], ...] = Field((), description="rules that pick a tier, by fields, time and budget left")
    prices: str | dict[str, Any] | None = Field(None, description="price overrides: a file, or a table")
    price_source: str | None = Field(None, description="newer prices: a file or an http(s) URL; none: the bundled ones")
    price_ttl_hours: float = Field(24, gt=0, description="hours after which price_source is asked again")
    hops: dict[str, bool] = Field({}, description="patches to turn off: {openai = false}")
    spans: bool = Field(True, description="open a span for each call and each entrypoint")
    metrics: bool = Field(True, description="record OpenTelemetry metrics")
    aliases: dict[str, str] = Field({}, description="further span attribute names: field -> name")
    tracer_provider: Any = None
    meter_provider: Any = None

    @field_validator(*_LISTED, mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Take "a, b" for ("a", "b")."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator(
        *("ledger", "budget_store", "prices", "price_source", "spool_dir", "carrier_max_age"), mode="before"
    )
    @classmethod
    def _none(cls, value: Any) -> Any:
        """Take the word "none" for no value: the environment and TOML have no other way to say it."""
        return None if isinstance(value, str) and value.strip().lower() in ("none", "") else value


def load(keywords: Mapping[str, Any]) -> Settings:
    """Return the settings: a keyword beats the environment, which beats the files; tables are merged key by key.

    Raises ConfigurationError that names each bad key, its value and what is allowed.
    """
    given: dict[str, Any] = {}
    for each in (keywords, *sources().values()):
        given = _merged(each, given)
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _explained(error) from None


def sources() -> dict[str, Mapping[str, Any]]:
    """Return what the environment and each file set, the strongest first. Raises ConfigurationError for what cannot be
    parsed."""
    return {
        "environment": _environment(),
        "attribkit.toml": _table("attribkit.toml"),
        "pyproject.toml": _table("pyproject.toml", "tool", "attribkit"),
    }


def _environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, text in os.environ.items():
        upper = variable.upper()
        if not upper.startswith(_PREFIX):
            continue
        name = upper.removeprefix(_PREFIX).lower()
        if name in _JSON or name == "prices":
            try:
                found[name] = json.loads(text)
                continue
            except ValueError as error:
                if name != "prices":
                    shown = "***" if name in _SECRET else repr(text)
                    raise ConfigurationError(
                        f"attribkit settings: {variable}={shown} is no JSON: {error}", name=name, value=shown
                    ) from None
        if name in Settings.model_fields:
            found[name] = text
    return found


def _table(file: str, *keys: str) -> Mapping[str, Any]:
    """Return a table of a TOML file in the working directory, {} where there is none."""
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(f"attribkit settings: {file} cannot be read: {error}") from None
    if keys and keys[-1].encode() not in data:
        return {}  # the usual pyproject.toml: a search costs nothing, a TOML parser 10 ms
    import tomllib

    try:
        table: Any = tomllib.loads(data.decode())
    except ValueError as error:
        raise ConfigurationError(f"attribkit settings: {file} is no TOML: {error}") from None
    for key in keys:
        table = table.get(key, {}) if isinstance(table, dict) else {}
    return table if isinstance(table, dict) else {}


def _merged(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; where each has a table, the tables are merged in turn."""
    merged = {**weaker, **stronger}
    for key, table in stronger.items():
        if isinstance(table, dict) and isinstance(weaker.get(key), dict):
            merged[key] = _merged(weaker[key], table)
    return merged


def _explained(error: ValidationError) -> ConfigurationError:
    known = tuple(Settings.model_fields)
    lines = []
    first: tuple[str, object, tuple[str, ...]] = ("", None, ())
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "?"
        name = str(fault["loc"][0]) if fault["loc"] else "?"
        value = "***" if name in _SECRET else fault.get("input")
        allowed: tuple[str, ...] = ()
        if fault["type"] == "extra_forbidden":
            allowed = known
            text = f"{key}={value!r} is no setting; the settings are {', '.join(known)}"
        elif fault["type"] == "literal_error":
            allowed = tuple(part.strip(" '") for part in str(fault["ctx"]["expected"]).replace(" or ", ",").split(","))
            text = f"{key}={value!r} is not one of {', '.join(allowed)}"
        else:
            text = f"{key}={value!r}: {fault['msg']}"
        if text not in lines:
            lines.append(text)
        if not first[0]:
            first = key, value, allowed
    return ConfigurationError(
        "attribkit settings: " + "; ".join(lines), name=first[0], value=first[1], allowed=first[2]
    )
