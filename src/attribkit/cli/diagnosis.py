"""What `attribkit doctor` finds out: one function for each part of an installation, none of which changes anything."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from attribkit import faults, runtime
from attribkit.cli.ledger_state import ledger_state
from attribkit.gateways.route import Gateways
from attribkit.gateways.table import DIALECTS
from attribkit.instrumentation.clients.hosts import provider_at
from attribkit.instrumentation.patching import PatchState
from attribkit.ledger.spool import REJECTED
from attribkit.pricing.catalog import Catalog
from attribkit.settings import Settings, sources

__all__ = ["SECTIONS", "Diagnosis", "Finding", "diagnose"]

State = Literal["ok", "note", "warning", "problem"]
SECTIONS = ("libraries", "patches", "gateways", "other instrumentors", "prices", "ledger", "settings")

_LIBRARIES = (
    *("openai", "httpx", "httpx2", "langchain-core", "langchain-openai", "langgraph"),
    *("opentelemetry-api", "opentelemetry-sdk"),
)
_CLIENTS = ("openai",)
"""Libraries without one of which there is no model call to see."""
_ENDPOINTS = (
    ("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    ("OPENAI_API_BASE", None),
    ("AZURE_OPENAI_ENDPOINT", None),
    ("ANTHROPIC_BASE_URL", None),
)
"""The variables that SDKs take their base URL from -> what they use without it, where that is worth a word."""
_NOT_PATCHED = {"ANTHROPIC_BASE_URL": "the Anthropic SDK's own calls are not recorded by this version"}
_OLD_PRICES = 45
_SECRET = frozenset({"carrier_key", "pseudonym_keys"})
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_BOUND = re.compile(r"([A-Za-z0-9_.\-]+)>=([0-9.]+)")


class Instrumentor(NamedTuple):
    """Another library that can write a span of the calls that attribkit sees."""

    package: str
    """A distribution's name; with a star at its end, all that begin so."""
    calls: str
    """Of which calls its spans are: the SDK's, the framework's, or both."""
    but: str = ""
    """What attribkit cannot do about it."""


_LATE = "; on the Responses API it opens its span after the call, which then has two"
INSTRUMENTORS = (
    Instrumentor("opentelemetry-instrumentation-openai-v2", "OpenAI SDK"),
    Instrumentor("opentelemetry-instrumentation-genai-*", "OpenAI SDK and LangChain, one span between them"),
    Instrumentor("opentelemetry-instrumentation-openai", "OpenAI SDK (Traceloop)", _LATE),
    Instrumentor("opentelemetry-instrumentation-langchain", "LangChain (Traceloop)"),
    Instrumentor("traceloop-sdk", "OpenAI SDK and LangChain, one span between them", _LATE),
    Instrumentor("openinference-instrumentation-openai", "OpenAI SDK"),
    Instrumentor("openinference-instrumentation-langchain", "LangChain"),
    Instrumentor("langfuse", "OpenAI SDK and LangChain, where the app uses its wrapper or callback"),
    Instrumentor("logfire", "OpenAI SDK, where the app asks for it"),
    Instrumentor("openlit", "OpenAI SDK and LangChain"),
)
_TWICE = (
    ("openinference-instrumentation-langchain", "openinference-instrumentation-openai"),
    ("openinference-instrumentation-langchain", "opentelemetry-instrumentation-openai-v2"),
    ("openinference-instrumentation-langchain", "opentelemetry-instrumentation-openai"),
)
"""Pairs that both write a model span of one ChatOpenAI call: a backend that adds up spans counts it twice."""


class Finding(NamedTuple):
    """One line of the answer."""

    section: str
    name: str
    state: State
    said: str


class Diagnosis:
    """Everything that was found: `facts` for programs, `findings` for people."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.findings: list[Finding] = []

    def say(self, section: str, name: str, state: State, said: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(section, name, state, said))

    def of(self, state: State) -> list[Finding]:
        """Return the findings of one state."""
        return [finding for finding in self.findings if finding.state == state]

    @property
    def well(self) -> bool:
        """True when no patch is missing and no call was lost."""
        return not self.of("problem")

    def as_dict(self) -> dict[str, Any]:
        """Return the facts, with what is wrong by name."""
        wrong = {
            f"{state}s": [f"{one.section}: {one.name}: {one.said}" for one in self.of(state)]
            for state in ("problem", "warning")
        }
        return {"ok": self.well, **wrong, **self.facts}


def diagnose(
    settings: Settings, *, ledger: str | None = None, progress: Callable[[str], None] | None = None
) -> Diagnosis:
    """Look at everything. `ledger` is looked at instead of the settings' own. Nothing is written or sent."""
    diagnosis = Diagnosis()
    step = progress or (lambda text: None)
    step("importing the supported libraries")
    states = _patch_states(settings, diagnosis)
    _libraries(diagnosis)
    _patches(states, diagnosis)
    step("looking at gateways, prices and settings")
    _gateways(settings, diagnosis)
    _instrumentors(diagnosis)
    _prices(settings, diagnosis)
    step("looking at the ledger")
    _ledger(settings, settings.ledger if ledger is None else ledger, diagnosis)
    _settings(settings, diagnosis)
    diagnosis.findings.sort(key=lambda finding: SECTIONS.index(finding.section))
    return diagnosis


# -- libraries and patches --------------------------------------------------------------------------------------------


def _patch_states(settings: Settings, diagnosis: Diagnosis) -> tuple[PatchState, ...]:
    """Put all patches on, with the libraries that are installed, and take them off again; return how each stood."""
    runtime.instrument({"ledger": None})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tried: set[str] = set()
            while modules := sorted(_modules(states := runtime.instrument({}).of("waiting")) - tried):
                tried.update(modules)
                needed = _modules(state for state in states if not state.optional)
                for module in modules:
                    if importlib.util.find_spec(module.partition(".")[0]) is None:
                        continue
                    try:
                        importlib.import_module(module)
                    except Exception as error:
                        if module not in needed and getattr(error, "name", None) == module:
                            continue  # this version does not have it
                        said = f"cannot be imported here: {type(error).__name__}: {error}"
                        diagnosis.say("patches", module, "problem", said.splitlines()[0])
        return runtime.instrument({}).patches
    finally:
        runtime.uninstrument()


def _modules(states: Iterable[PatchState]) -> set[str]:
    return {state.target.partition(":")[0] for state in states}


def _libraries(diagnosis: Diagnosis) -> None:
    installed = {name: _version(name) for name in _LIBRARIES}
    system = f"{platform.python_implementation()} {platform.python_version()}"
    diagnosis.facts["versions"] = {
        "attribkit": _version("attribkit"),
        "python": system,
        "platform": platform.system(),
        "libraries": installed,
    }
    diagnosis.say("libraries", "attribkit", "note", f"{_version('attribkit')} on {system}, {platform.system()}")
    bounds = _lower_bounds()
    for name, version in installed.items():
        if version is None:
            diagnosis.say("libraries", name, "note", "not installed")
        elif _numbers(version) < _numbers(bounds.get(name, "0")):
            diagnosis.say("libraries", name, "warning", f"{version} is older than {bounds[name]}, the oldest supported")
        else:
            diagnosis.say("libraries", name, "note", version)
    if not any(installed[name] for name in _CLIENTS):
        said = f"{', '.join(_CLIENTS)} is not installed here: run this with the Python of your application"
        diagnosis.say("libraries", "model clients", "warning", said)
    if installed["opentelemetry-sdk"] is None:
        said = "without it spans and metrics go nowhere; pip install 'attribkit[otel]'"
        diagnosis.say("libraries", "opentelemetry-sdk", "note", said)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lower_bounds() -> dict[str, str]:
    """Return the oldest supported version of each library, as attribkit's own metadata says it."""
    try:
        required = importlib.metadata.requires("attribkit") or ()
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {found[1]: found[2] for found in map(_BOUND.match, required) if found}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _patches(states: Iterable[PatchState], diagnosis: Diagnosis) -> None:
    states = tuple(states)
    diagnosis.facts["patches"] = [state._asdict() for state in states]
    groups: dict[tuple[str, str], list[PatchState]] = {}
    for state in states:
        groups.setdefault((state.group, state.target.partition(".")[0].partition(":")[0]), []).append(state)
    for (group, library), rows in groups.items():
        by: dict[str, list[PatchState]] = {}
        for row in rows:
            by.setdefault("broken" if (row.reason or "").startswith("it cannot") else row.status, []).append(row)
        version = f" {rows[0].version}" if rows[0].version else ""
        name = f"{group}: {library}{version}"
        if "off" in by:
            diagnosis.say("patches", name, "note", "turned off by the settings; `attribkit verify` shows what leaks")
            continue
        if "waiting" in by and importlib.util.find_spec(library) is None:
            diagnosis.say("patches", name, "note", f"{library} is not installed; put on when it is imported")
            continue
        said = f"{len(by.get('applied', ()))} of {len(rows)} applied"
        if "unsupported" in by:
            said += f"; this version has no {_paths(by['unsupported'])}, and needs none"
        diagnosis.say("patches", name, "ok" if by.keys() <= {"applied", "unsupported"} else "note", said)
        for status, why in (("missing", "this version does not have it"), ("broken", "it cannot be wrapped")):
            for row in by.get(status, ()):
                said = f"{why}: calls through it are not attributed; use a version that attribkit supports"
                diagnosis.say("patches", row.target, "problem", said)
        if "waiting" in by and not any(one.name.partition(".")[0] == library for one in diagnosis.of("problem")):
            diagnosis.say("patches", name, "note", f"{len(by['waiting'])} wait for their module to be imported")
    counts = faults.counts()
    diagnosis.facts["faults"] = counts
    for where, count in counts.items():
        diagnosis.say("patches", where, "problem", f"attribkit's own fault, {count} times; please report it")


def _paths(rows: Iterable[PatchState]) -> str:
    return ", ".join(row.target.partition(":")[2] for row in rows)


# -- gateways ---------------------------------------------------------------------------------------------------------


def _gateways(settings: Settings, diagnosis: Diagnosis) -> None:
    keys = {name: secret.get_secret_value() for name, secret in settings.pseudonym_keys.items()}
    gateways = Gateways(settings.gateways, hosted=settings.hosted_gateways, pseudonyms=keys)
    configured = [{"prefix": route.prefix, "dialect": route.dialect} for route in gateways.routes]
    for route in gateways.routes:
        diagnosis.say("gateways", route.prefix, "note", f"told in the dialect {route.dialect}")
    if not configured:
        said = "none in the settings found here; what your program passes to instrument() itself is not seen here"
        diagnosis.say("gateways", "configured", "note", said)
    endpoints = []
    for variable, default in _ENDPOINTS:
        url = os.environ.get(variable) or None
        if url is None and default is None:
            continue
        endpoints.append(_endpoint(variable, url, default or "", gateways, diagnosis))
    diagnosis.facts["gateways"] = {
        "configured": configured,
        "hosted": settings.hosted_gateways,
        "endpoints": endpoints,
    }


def _endpoint(
    variable: str, url: str | None, default: str, gateways: Gateways, diagnosis: Diagnosis
) -> dict[str, object]:
    leads = url or default
    shown, route, provider = _PASSWORD.sub("***", leads), gateways.match(leads), provider_at(leads)
    named = f"{variable}={shown}" if url else f"{variable} is not set: {shown}"
    never = f"; {_NOT_PATCHED[variable]}" if variable in _NOT_PATCHED else ""
    prefix = "/".join(shown.replace("***@", "").split("/")[:3])
    if route is not None:
        diagnosis.say("gateways", named, "ok", f"told in the dialect {route.dialect} (prefix {route.prefix}){never}")
    elif provider:
        said = f"{provider}'s own API: calls are recorded and priced, and nothing is said about them there"
        diagnosis.say("gateways", named, "note", said + never)
    else:
        said = (
            f"no gateway of the settings: calls are recorded, but it is not told who they are for. If it is one, set "
            f'ATTRIBKIT_GATEWAYS=\'{{"{prefix}": "DIALECT"}}\' ({", ".join(DIALECTS)}), or the same in instrument()'
        )
        diagnosis.say("gateways", named, "warning", said + never)
    return {
        "variable": variable,
        "url": shown if url else None,
        "prefix": route.prefix if route is not None else None,
        "dialect": route.dialect if route is not None else None,
        "provider": provider or None,
    }


# -- other instrumentors ----------------------------------------------------------------------------------------------


def _instrumentors(diagnosis: Diagnosis) -> None:
    found = []
    installed = {
        re.sub(r"[-_.]+", "-", str(one.metadata["Name"] or "")).lower(): one.version
        for one in importlib.metadata.distributions()
    }
    for known in INSTRUMENTORS:
        stem = known.package.removesuffix("*")
        for name in sorted(installed):
            if name == stem or (stem != known.package and name.startswith(stem)):
                said = (
                    f"{installed[name]}; writes spans of: {known.calls}. attribkit puts attribution and cost on its "
                    f"span of a call and opens none of its own for it{known.but}"
                )
                diagnosis.say("other instrumentors", name, "ok", said)
                found.append({"package": name, "version": installed[name], "calls": known.calls})
    for pair in _TWICE:
        if installed.keys() >= set(pair):
            said = (
                "both write a model span of one ChatOpenAI call: a backend that adds up spans counts it twice. Use one "
                "of them; rows in the ledger are not doubled"
            )
            diagnosis.say("other instrumentors", " + ".join(pair), "warning", said)
    if not found:
        diagnosis.say("other instrumentors", "none", "note", "attribkit opens the span of each call itself")
    diagnosis.facts["instrumentors"] = found


# -- prices -----------------------------------------------------------------------------------------------------------


def _prices(settings: Settings, diagnosis: Diagnosis) -> None:
    catalog = Catalog.bundled()
    age = (datetime.now(UTC).date() - date.fromisoformat(catalog.built)).days
    said = f"version {catalog.version}, {age} days old, {len(catalog.sellers)} sellers"
    if age > _OLD_PRICES:
        diagnosis.say("prices", "catalog", "warning", f"{said}: upgrade attribkit, or give `prices` for what changed")
    else:
        diagnosis.say("prices", "catalog", "ok", said)
    if settings.price_source is not None:
        _price_source(settings, diagnosis)
    if settings.prices is not None:
        where = settings.prices if isinstance(settings.prices, str) else "a table in the settings"
        diagnosis.say("prices", "overrides", "note", where)
    diagnosis.facts["prices"] = {
        "version": catalog.version,
        "built": catalog.built,
        "age_days": age,
        "sellers": len(catalog.sellers),
        "overrides": settings.prices is not None,
    }


def _price_source(settings: Settings, diagnosis: Diagnosis) -> None:
    from attribkit.pricing.source import PriceSource

    assert settings.price_source is not None
    source = PriceSource(settings.price_source, ttl_hours=settings.price_ttl_hours)
    age = source.age_hours()
    if age is None:
        diagnosis.say(
            "prices", "source", "warning", f"{source.where}: never answered; `attribkit prices update` asks it"
        )
    elif age > 2 * settings.price_ttl_hours:
        diagnosis.say("prices", "source", "warning", f"{source.where}: answered {age:.0f} hours ago for the last time")
    else:
        diagnosis.say(
            "prices", "source", "ok", f"{source.where}: version {source.catalog().version}, {age:.0f} hours old"
        )


# -- the ledger -------------------------------------------------------------------------------------------------------


def _ledger(settings: Settings, url: Any, diagnosis: Diagnosis) -> None:
    if url is None:
        diagnosis.facts["ledger"] = {"url": None}
        diagnosis.say("ledger", "ledger", "note", "none: calls are not written down")
        return
    state = ledger_state(url, spool_dir=settings.spool_dir)
    lost = sum(loss.calls for loss in state.losses)
    diagnosis.facts["ledger"] = {
        **state._asdict(),
        "lost_calls": lost,
        "losses": [
            {"since": _at(loss.since_ns), "until": _at(loss.until_ns), "calls": loss.calls, "process": loss.process}
            for loss in state.losses
        ],
    }
    if state.path is None:
        diagnosis.say("ledger", url, "note", "in memory: it lives and dies with each process")
        return
    if state.error is not None:
        diagnosis.say("ledger", url, "problem", state.error)
    elif state.rows is None:
        diagnosis.say("ledger", url, "note", f"{state.path}: not there yet; the first model call makes it")
    else:
        diagnosis.say("ledger", url, "ok", f"{state.path}, rows: {state.rows}")
    if state.waiting:
        said = f"rows in {state.spool}: {state.waiting}; the next report or the next process moves them into the ledger"
        diagnosis.say("ledger", "waiting", "note", said)
    for why in state.unread:
        diagnosis.say("ledger", "waiting", "warning", f"{state.spool}: {why}")
    if state.set_aside:
        said = f"lines that no ledger could take, in {state.spool}/{REJECTED}: {state.set_aside}"
        diagnosis.say("ledger", "set aside", "warning", said)
    for loss in state.losses:
        said = (
            f"{loss.calls} calls between {_at(loss.since_ns)} and {_at(loss.until_ns)} in {loss.process}: no disk took "
            "them, and memory had no more room"
        )
        diagnosis.say("ledger", "lost", "problem", said)


def _at(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- settings ---------------------------------------------------------------------------------------------------------


def _settings(settings: Settings, diagnosis: Diagnosis) -> None:
    each = sources()
    shown = []
    for name in Settings.model_fields:
        if name in ("tracer_provider", "meter_provider"):
            continue  # objects: only a program can give them
        source = " + ".join(where for where, values in each.items() if name in values) or "default"
        source = source.replace("environment", f"ATTRIBKIT_{name.upper()}")
        value = _shown(name, getattr(settings, name))
        shown.append({"name": name, "value": value, "source": source})
        diagnosis.say("settings", name, "note", f"{value!r}  ({source})" if source != "default" else repr(value))
    unknown = []
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix("ATTRIBKIT_").lower()
        if variable.upper().startswith("ATTRIBKIT_") and name not in Settings.model_fields:
            near = get_close_matches(name, Settings.model_fields, 1)
            meant = f"ATTRIBKIT_{near[0].upper()}" if near else None
            said = f"is no setting; did you mean {meant}?" if meant else "is no setting; docs/settings.md lists them"
            diagnosis.say("settings", variable, "warning", said)
            unknown.append({"name": variable, "did_you_mean": meant})
    diagnosis.facts["settings"] = shown
    diagnosis.facts["unknown_variables"] = unknown


def _shown(name: str, value: Any) -> Any:
    """Return a setting as it may be printed: as JSON types, and nothing that is secret."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if name in _SECRET:
        return dict.fromkeys(value, "***") if isinstance(value, Mapping) else "***"
    if isinstance(value, Mapping):
        return {str(key): _shown("", _header(part) if key == "headers" else part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown("", part) for part in value]
    return _PASSWORD.sub("***", str(value))


def _header(templates: Any) -> Any:
    """Return header templates without literal values, which can be keys."""
    if not isinstance(templates, Mapping):
        return templates
    return {name: text if "{" in str(text) else "***" for name, text in templates.items()}
