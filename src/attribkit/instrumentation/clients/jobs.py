"""Work that outlives the request that started it: who created it, and that each part of it is charged once.

A charge is a row of its own whose `call_id` is made from the job's id, so that the second one changes nothing in a
ledger that several processes share.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.calls import CallStatus, LLMCall, Reply
from attribkit.gateways.jobs import Creator, creator_in, creator_text
from attribkit.pipeline import Operation, Pipeline

__all__ = [
    "LATER",
    "NOBODY",
    "PART",
    "BatchLine",
    "JobBook",
    "Kept",
    "about",
    "charge_id",
    "facts_of",
    "json_lines",
    "seconds_in",
]

_KEPT = 4096
LATER = {
    "runs": "the run is charged when its end is first seen",
    "responses": "the response is charged when its end is first seen",
    "batches": "each line is charged when the output is first read",
}
PART = "a part of its run, which is charged once"
NOBODY = Creator(Attribution(), None)


class Kept(dict[str, Any]):
    """The latest few thousand of something, by id."""

    def keep(self, key: str, value: Any) -> None:
        if len(self) >= _KEPT:
            self.pop(next(iter(self)), None)
        self[key] = value


def charge_id(kind: str, identity: str, created_s: int) -> str:
    """Return the call_id of the one charge for a job, or for one line of it: the same in every process. 32 hex digits,
    in the order of the job's creation among other ids."""
    digest = hashlib.sha256(f"{kind}\n{identity}\n{created_s}".encode("utf-8", "surrogatepass")).digest()
    stamp = (created_s * 1000).to_bytes(6, "big")
    return (stamp + bytes((0x70 | digest[0] & 0x0F, digest[1], 0x80 | digest[2] & 0x3F)) + digest[3:10]).hex()


def facts_of(value: Any) -> Mapping[str, Any]:
    """Return the fields of a JSON object, or of an SDK's model of one; {} for anything else."""
    if isinstance(value, Mapping):
        return value
    found = getattr(value, "__dict__", None)
    return found if isinstance(found, dict) else {}


def json_lines(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON objects of a file of lines, each with the number of its line, from 0. Other lines are left out."""
    for number, text in enumerate(content.splitlines()):
        try:
            facts = orjson.loads(text)
        except ValueError:
            continue
        if isinstance(facts, dict):
            yield number, facts


def seconds_in(facts: Mapping[str, Any], key: str) -> int:
    """Return a time stamp of a job in Unix seconds, 0 when it has none."""
    value = facts.get(key)
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1 << 40 else 0


class BatchLine(NamedTuple):
    """One line of a batch's output: the reply, or why there is none."""

    key: str
    """What tells it from the other lines, in every process."""
    reply: Reply
    status: CallStatus = "ok"
    error: str | None = None


class JobBook:
    """The jobs that this process has created or seen, and what of them has been charged."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._creators = Kept()
        self._charged = Kept()
        self._claims = Kept()
        self._lock = threading.Lock()

    def created(self, operation: Operation, identity: str, *, told: bool) -> Creator:
        """Remember who has just created a job: with the other processes that share the ledger, unless the job itself
        was `told`."""
        creator = Creator(operation.attribution, operation.operation_id)
        self._creators.keep(identity, creator)
        if not told and self._pipeline.jobs is not None:
            try:
                self._pipeline.jobs.remember(identity, creator_text(creator))
            except OSError as error:
                faults.note("jobs.remember", error)
        return creator

    def creator_of(self, identity: str) -> Creator | None:
        """Return who created a job, as far as this process or one that shares the ledger knows."""
        known = self._creators.get(identity)
        if known is None and self._pipeline.jobs is not None:
            known = creator_in(self._pipeline.jobs.creator(identity))
            if known is not None:
                self._creators.keep(identity, known)
        return known if isinstance(known, Creator) else None

    def first(self, call_id: str) -> bool:
        """Return True once for each charge in this process."""
        with self._lock:
            if call_id in self._charged:
                return False
            self._charged.keep(call_id, None)
            return True

    def charge_line(
        self, call: LLMCall, creator: Creator, api: str, batch: str, created: int, line: BatchLine, output: str = ""
    ) -> None:
        """Charge one line of a batch, at the batch price, to its creator, unless that was done.

        Metrics and budgets count the lines of an `output` in the process that reads it first.
        """
        call_id = charge_id("line", f"{batch}/{line.key}", created)
        if not self.first(call_id):
            return
        whole = charge_id("output", f"{batch}/{output}", created)
        counted = self._claims.get(whole)
        if counted is None:
            counted = self._pipeline.claim(whole)
            self._claims.keep(whole, counted)
        self._pipeline.charge(
            about(call, api, line.reply.model)._replace(batch=True),
            creator.attribution,
            "restored" if creator.attribution else "none",
            line.reply,
            call_id=call_id,
            operation_id=call_id,
            started_ns=created * 1_000_000_000,
            status=line.status,
            error=line.error,
            later=None if line.status == "ok" else "the line failed: nothing was served",
            counted=counted,
        )


def about(call: LLMCall, api: str, model: str | None) -> LLMCall:
    """Return the call that a charge is for: nothing of the request that saw it but where it went."""
    return LLMCall(call.client, call.provider, api, call.url, model, region=call.region)
