"""What a user can set: keywords, ATTRIBKIT_... environment variables, attribkit.toml or [tool.attribkit]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from attribkit.errors import ConfigurationError

__all__ = ["Settings", "load"]

_SECRET = frozenset({"carrier_key", "pseudonym_keys"})


class Settings(BaseSettings):
    """Every setting of `instrument()`. A keyword beats the environment, which beats the files."""

    model_config = SettingsConfigDict(
        env_prefix="ATTRIBKIT_",
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        toml_file="attribkit.toml",
        pyproject_toml_table_header=("tool", "attribkit"),
    )

    gateways: dict[str, str | dict[str, Any]] = Field({}, description="URL prefix -> dialect, or a table with options")
    hosted_gateways: bool = Field(True, description="know hosted gateways by their host names")
    ledger: Any = Field("sqlite:///attribkit.db", description="a URL, none, or an object with finished(record)")
    spool_dir: str | None = Field(None, description="where rows wait for the ledger; beside a SQLite file by default")
    budgets: tuple[Any, ...] = Field((), description="attribkit.Budget objects, or tables with the same keys")
    budget_store: str | None = Field("ledger", description="where budgets are counted; none: in this process")
    require: Annotated[tuple[str, ...], NoDecode] = Field((), description="fields every model call must carry")
    on_missing: Literal["record", "reject"] = Field("record", description="what a call without them gets")
    peers: Annotated[tuple[str, ...], NoDecode] = Field((), description="own services that get the signed carrier")
    carrier_key: SecretStr | None = Field(None, description="the key that signs carriers between own services")
    carrier_max_age: float | None = Field(300, description="seconds after which a carrier over HTTP is refused; none")
    audience: Annotated[tuple[str, ...], NoDecode] = Field((), description="host[:port] by which callers reach us")
    pseudonym_keys: dict[str, SecretStr] = Field({}, description="key id -> secret; the last id in order signs")
    tiers: tuple[dict[str, Any], ...] = Field((), description="rules that pick a tier: {when = {...}, tier = ...}")
    prices: str | dict[str, Any] | None = Field(None, description="price overrides: a file, or a table")
    price_source: str | None = Field(None, description="newer prices: a file or an http(s) URL; none: the bundled ones")
    price_ttl_hours: float = Field(24, gt=0, description="hours after which price_source is asked again")
    hops: dict[str, bool] = Field({}, description="patches to turn off: {openai = false}")
    spans: bool = Field(True, description="open a span for each call and each entrypoint")
    metrics: bool = Field(True, description="record OpenTelemetry metrics")
    aliases: dict[str, str] = Field({}, description="further span attribute names: field -> name")
    tracer_provider: Any = None
    meter_provider: Any = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files = TomlConfigSettingsSource(settings_cls), PyprojectTomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, *files

    @field_validator("require", "peers", "audience", mode="before")
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
    """Return the settings. Raises ConfigurationError that names each bad key, its value and what is allowed."""
    try:
        return Settings(**keywords)
    except ValidationError as error:
        raise _explained(error) from None
    except Exception as error:  # a file or a variable that cannot be parsed at all
        cause = error.__cause__ or error
        raise ConfigurationError(f"attribkit settings: {error}: {cause}") from None


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
