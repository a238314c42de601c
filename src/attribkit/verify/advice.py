"""Why a hop does not survive, and what to do about it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from attribkit.instrumentation.catalog import GROUPS
from attribkit.instrumentation.patching import PatchState
from attribkit.verify import probes
from attribkit.verify.run import Outcome, Result

__all__ = ["Cause", "cause_of", "causes"]


class Cause(NamedTuple):
    """One reason, which several hops can share."""

    why: str
    do: str


def causes(outcome: Outcome) -> dict[Cause, list[Result]]:
    """Return each reason with the results that it explains, in the order of the table."""
    found: dict[Cause, list[Result]] = {}
    for result in outcome.of("leaks", "wrong", "failed"):
        cause = cause_of(result, outcome)
        if cause is not None:
            found.setdefault(cause, []).append(result)
    return found


def cause_of(result: Result, outcome: Outcome) -> Cause | None:
    """Return why one hop does not survive; None when it does, or was not run."""
    if result.status in ("survives", "not run"):
        return None
    probe = result.probe
    again = f"attribkit verify --hops {probe.group}"
    for group in probe.relies:
        if outcome.hops.get(group) is False:
            return Cause(f"the patch group {group} is turned off {_where(group)}", f"turn it on again, then: {again}")
    for group in probe.relies:
        if group not in GROUPS:
            return Cause(
                f"this version of attribkit has no patch group {group}",
                f"{probes.load(probe.group).remedy}; or use a version of attribkit that has it",
            )
    for group in probe.relies:
        states = [state for state in outcome.patches if state.group == group]
        lost = [state for state in states if state.status == "missing" or _broken(state)]
        if lost:
            return Cause(_listed(group, lost), f"use a version that attribkit supports (README), then: {again}")
        if states and all(state.status == "waiting" for state in states):
            return Cause(
                f"no patch of {group} came on: {states[0].target.partition(':')[0]} was not imported",
                "please report it, with the output of: attribkit verify --json",
            )
    if result.status == "failed":
        return Cause(result.said or "it failed", f"look at it alone: attribkit verify --json --hops {probe.id}")
    return Cause(
        f"every patch of {', '.join(probe.relies)} that this hop relies on is on, and it leaks all the same",
        f"{probes.load(probe.group).remedy}; and please report it, with the output of: attribkit verify --json",
    )


def _broken(state: PatchState) -> bool:
    return (state.reason or "").startswith("it cannot be wrapped")


def _listed(group: str, states: Iterable[PatchState]) -> str:
    said = [
        f"{state.target}{f' ({state.version})' if state.version else ''}: {state.reason or state.status}"
        for state in states
    ]
    return f"patches of {group} are not on: {'; '.join(said)}"


def _where(group: str) -> str:
    """Say where a patch group is turned off."""
    try:
        given = json.loads(os.environ.get("ATTRIBKIT_HOPS", "{}"))
    except ValueError:
        given = {}
    if isinstance(given, dict) and group in given:
        return "by ATTRIBKIT_HOPS"
    return "by `hops` in attribkit.toml or pyproject.toml, or by --off"
