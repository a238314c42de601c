"""What a probe is: one small real program that carries tenants over one hop, and what it needs to run."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Group", "Probe", "installed", "lacking"]

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.\-]+)(?:>=([0-9.]+))?$")


class Probe(NamedTuple):
    """One program: `run(lab)` opens tenants' scopes and makes real calls; async ones run in a loop of their own."""

    id: str
    """Group and name: "asyncio/gather_inside"."""
    group: str
    title: str
    needs: tuple[str, ...]
    """Distributions, each with a lower bound where one is needed: "langgraph>=0.3"."""
    relies: tuple[str, ...]
    """The patch groups without which this hop leaks."""
    run: Callable[[Any], Any]
    soak: bool = True
    """False where it must not run beside others in one process, in many threads."""


class Group:
    """The probes of one kind of hop. A file in `attribkit.verify.probes` makes one and decorates its programs."""

    def __init__(
        self,
        name: str,
        title: str,
        *,
        needs: tuple[str, ...],
        extra: str,
        remedy: str,
        relies: tuple[str, ...] = (),
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.title, self.needs, self.relies = name, title, needs, relies
        self.extra = extra
        """What to install where something of `needs` is not there: pip install 'attribkit[extra]'."""
        self.remedy = remedy
        """What an app can write itself where such a hop leaks."""
        self.prepare = prepare
        """Imports the libraries and makes what an app makes before `instrument()`."""
        self.probes: list[Probe] = []

    def probe(
        self, title: str, *, relies: tuple[str, ...] = (), needs: tuple[str, ...] = (), soak: bool = True
    ) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Return a decorator that adds a program to this group; its function's name is its name."""

        def add(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
            name = getattr(run, "__name__", "probe")
            patches = (*self.relies, *relies)
            self.probes.append(
                Probe(f"{self.name}/{name}", self.name, title, (*self.needs, *needs), patches, run, soak)
            )
            return run

        return add


def installed(distribution: str) -> str | None:
    """Return the installed version, None when there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def lacking(needs: tuple[str, ...], extra: str) -> str | None:
    """Return why programs that need `needs` cannot run here, with what to install; None when they can."""
    for requirement in needs:
        found = _REQUIREMENT.match(requirement)
        assert found is not None, requirement
        name, least = found.groups()
        version = installed(name)
        if version is None:
            what = f"attribkit[{extra}]" if requirement.partition(">=")[0] in _EXTRAS.get(extra, ()) else requirement
            return f"{name} is not installed: pip install '{what}'"
        if least is not None and _numbers(version) < _numbers(least):
            return f"it needs {name} {least} or later, and {version} is installed"
    return None


_EXTRAS = {
    "openai": ("openai",),
    "langchain": ("langchain-core", "langchain-openai"),
    "langgraph": ("langgraph",),
}
"""What the extras install, as pyproject.toml says."""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
