"""Who a job is for, said in the `metadata` of the job itself, so that whoever sees its result can tell.

The rule for OpenAI's 16 pairs (keys of 64 and values of 512 characters): the user's own pairs stay, all of them. Then
`attribkit`, which holds the id of the operation that created the job and the names of the free dimensions that follow.
Then the attribution's fields, well-known ones first, for as long as there is room. A key that the user has set keeps
the user's value. Without room for `attribkit` nothing is added at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.gateways.fitting import Pairs, entries

__all__ = ["MARK", "Creator", "creator_in", "creator_text", "job_metadata", "read_creator"]

MARK = "attribkit"
_METADATA = Pairs(16, 64, 512)
_MARKED = re.compile(r"v1 ([0-9a-f]{32})(?: (.*))?")


class Creator(NamedTuple):
    """Who created a job, and in which operation."""

    attribution: Attribution
    operation_id: str | None


def job_metadata(attribution: Attribution, operation_id: str, user: object = None) -> dict[str, Any] | None:
    """Return the metadata of a job that is created now, None when it stays as the user set it."""
    own = user if isinstance(user, Mapping) else {}
    if user is not None and user is not own:
        return None
    room = _METADATA.most - len(own) - 1
    if room < 0 or MARK in own:
        return None
    ready = _METADATA.ready(entries(attribution, WELL_KNOWN))
    ours = [(key, name, value) for key, name, value in ready if name not in own][:room]
    free = [name for key, name, _ in ours if key not in WELL_KNOWN and "," not in name]
    mark = f"v1 {operation_id} {','.join(free)}".rstrip()
    if len(mark) > _METADATA.max_value:
        ours = [one for one in ours if one[0] in WELL_KNOWN]
        mark = f"v1 {operation_id}"
    return {**own, MARK: mark, **{name: value for _, name, value in ours}}


def read_creator(metadata: object) -> Creator | None:
    """Return who a job's metadata says created it, None when it does not say."""
    if not isinstance(metadata, Mapping):
        return None
    found = {name: metadata[name] for name in WELL_KNOWN if isinstance(metadata.get(name), str)}
    mark = metadata.get(MARK)
    marked = _MARKED.fullmatch(mark) if isinstance(mark, str) else None
    if marked is not None and marked[2]:
        for name in marked[2].split(","):
            if isinstance(metadata.get(name), str):
                found[name] = metadata[name]
    if marked is None and "tenant_id" not in found:
        return None
    return Creator(Attribution.of(found), marked[1] if marked is not None else None)


def creator_text(creator: Creator) -> str:
    """Return a line of text from which `creator_in` gets the creator back."""
    return json.dumps([creator.operation_id, creator.attribution.as_dict()])


def creator_in(text: str | None) -> Creator | None:
    """Return the creator that a line of text names, None when it names none."""
    try:
        operation_id, fields = json.loads(text or "")
        return Creator(Attribution.of(fields), operation_id if isinstance(operation_id, str) else None)
    except (AttributeError, TypeError, ValueError):
        return None
