"""Work at OpenAI that outlives the request that started it: Assistants' runs, background Responses, Batches.

Such a job is attributed where it is created, and charged once, where its end is seen first: in the reply, in a stream,
or by whoever polls it, in whatever process. The charge is a row of its own whose `call_id` is made from the job's id,
so that the second one changes nothing in a ledger that several processes share.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.calls import CallStatus, LLMCall, Reply
from attribkit.gateways.jobs import Creator, job_metadata, read_creator
from attribkit.instrumentation.clients.openai_replies import StreamItems
from attribkit.instrumentation.clients.parsed import of_parsed
from attribkit.pipeline import Operation, Pipeline

__all__ = ["JobItems", "Jobs"]

_JOB = re.compile(r"/(?:threads/[^/?]+/runs|responses|batches)/([^/?]+)")
_FILE = re.compile(r"/files/([^/?]+)/content")
_KEPT = 4096
_ENDS = frozenset({"completed", "failed", "cancelled", "expired", "incomplete"})
_KINDS = {"thread.run": "runs", "response": "responses", "batch": "batches"}
_LATER = {
    "runs": "the run is charged when its end is first seen",
    "responses": "the response is charged when its end is first seen",
    "batches": "each line is charged when the output is first read",
}
_PART = "a part of its run, which is charged once"
_NOBODY = Creator(Attribution(), None)
_LINE_APIS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/completions": "completions",
    "/v1/moderations": "moderations",
    "/v1/images/generations": "images",
    "/v1/images/edits": "images",
}


class _Kept(dict[str, Any]):
    """The latest few thousand of something, by id."""

    def keep(self, key: str, value: Any) -> None:
        if len(self) >= _KEPT:
            self.pop(next(iter(self)), None)
        self[key] = value


def _facts(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    found = getattr(value, "__dict__", None)
    return found if isinstance(found, dict) else {}


def charge_id(kind: str, identity: str, created_s: int) -> str:
    """Return the call_id of the one charge for a job, or for one line of it: the same in every process. 32 hex digits,
    in the order of the job's creation among other ids."""
    digest = hashlib.sha256(f"{kind}\n{identity}\n{created_s}".encode()).digest()
    stamp = (created_s * 1000).to_bytes(6, "big")
    return (stamp + bytes((0x70 | digest[0] & 0x0F, digest[1], 0x80 | digest[2] & 0x3F)) + digest[3:10]).hex()


class Jobs:
    """The jobs that this process has created or seen, and what of them has been charged."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._creators = _Kept()
        self._outputs = _Kept()
        self._charged = _Kept()
        self._lock = threading.Lock()

    def creator_at(self, path: str) -> Creator | None:
        """Return who created the job that a request is about, None when it is about none that is known here."""
        found = _JOB.search(path)
        return self._creators.get(found[1]) if found is not None else None

    def begun(self, operation: Operation, path: str) -> None:
        """Say of a request about a job that its own reply costs nothing, and tell the target who a new job is for."""
        call = operation.call
        if not call.api:
            file = _FILE.search(path)
            if file is not None:
                if file[1] in self._outputs:
                    operation.later = _PART
            elif _JOB.search(path) is not None or "/runs" in path or path.startswith("/batches"):
                operation.later = _PART
            return
        if path.rstrip("/").endswith("/submit_tool_outputs"):
            operation.later = _PART
            return
        if call.api not in _LATER or (call.api == "responses" and not (call.body or {}).get("background")):
            return
        operation.later = _LATER[call.api]
        route = operation.target.route
        if route is not None and call.body is not None and operation.attribution:
            attribution = route.sent(operation.attribution)
            metadata = job_metadata(attribution, operation.operation_id, call.body.get("metadata"))
            if metadata is not None:
                operation.body = {**(operation.body or {}), "metadata": metadata}

    def answered(self, operation: Operation, path: str, result: Any) -> None:
        """Look at the reply to a request about jobs: it can be one, or a list of them, or a batch's output."""
        try:
            if hasattr(result, "parse") and hasattr(result, "http_response"):
                if operation.call.stream or not hasattr(result.http_response, "_content"):
                    return
                if _FILE.search(path) is None:
                    result = result.parse()
            file = _FILE.search(path)
            if file is not None:
                self._read_output(file[1], getattr(result, "content", None) or _content(result))
                return
            facts = _facts(result)
            listed = facts.get("data")
            for one in listed if isinstance(listed, list) else (result,):
                self.seen(operation, one)
        except Exception as fault:
            faults.note("openai.jobs", fault)

    def seen(self, operation: Operation, job: Any) -> None:
        """Look at a job as it is now: remember who created it, and charge it when it has ended."""
        facts = _facts(job)
        kind, identity = facts.get("object"), facts.get("id")
        if kind not in _KINDS or not isinstance(identity, str):
            return
        if kind == "response" and facts.get("background") is not True:
            return
        creator = self._creators.get(identity)
        if creator is None:
            if operation.call.api and operation.later != _PART:  # it has just been created
                creator = Creator(operation.attribution, operation.operation_id)
            else:
                creator = read_creator(facts.get("metadata"))
            if creator is not None:
                self._creators.keep(identity, creator)
        if kind == "batch":
            for key in ("output_file_id", "error_file_id"):
                if isinstance(facts.get(key), str):
                    seconds = _seconds(facts, "created_at")
                    output = (operation.call, creator or _NOBODY, identity, seconds, facts.get("endpoint"))
                    self._outputs.keep(facts[key], output)
            if facts.get("status") != "completed":
                self._end(operation, creator or _NOBODY, "batches", identity, facts, job)
        else:
            self._end(operation, creator or _NOBODY, _KINDS[kind], identity, facts, job)

    def _first(self, call_id: str) -> bool:
        with self._lock:
            if call_id in self._charged:
                return False
            self._charged.keep(call_id, None)
            return True

    def _end(
        self, operation: Operation, creator: Creator, api: str, identity: str, facts: Mapping[str, Any], job: Any
    ) -> None:
        state = facts.get("status")
        if state not in _ENDS:
            return
        created = _seconds(facts, "created_at")
        call_id = charge_id(api, identity, created)
        if not self._first(call_id):
            return
        ended = max((_seconds(facts, f"{name}_at") for name in ("completed", "failed", "cancelled")), default=0)
        status: CallStatus = "ok" if state in ("completed", "incomplete") else "error"
        error = facts.get("last_error") or facts.get("error")
        word = None if state == "completed" else str(state)
        if state == "failed" and isinstance(_facts(error).get("code"), str):
            word = f"failed: {_facts(error)['code']}"[:64]
        if state == "cancelled":
            status = "cancelled"
        reply = of_parsed(job)._replace(problem=f"the {api[:-1]} {_said(str(state))} and states no usage")
        self._pipeline.charge(
            _about(operation.call, api, reply.model),
            creator.attribution,
            "restored" if creator.attribution else "none",
            reply,
            call_id=call_id,
            operation_id=creator.operation_id or call_id,
            started_ns=created * 1_000_000_000,
            duration_ns=(ended - created) * 1_000_000_000 if ended >= created else None,
            status=status,
            error=word,
            later=_LATER["batches"] if api == "batches" else None,
        )

    def _read_output(self, file_id: str, content: Any) -> None:
        known = self._outputs.get(file_id)
        if known is None or not isinstance(content, bytes):
            return
        call, creator, batch, created, endpoint = known
        api = _LINE_APIS.get(endpoint, "chat") if isinstance(endpoint, str) else "chat"
        for number, line in enumerate(content.splitlines()):
            try:
                facts = orjson.loads(line)
            except ValueError:
                continue
            if isinstance(facts, dict):
                identity = f"{batch}/{facts.get('custom_id') or facts.get('id') or number}"
                call_id = charge_id("line", identity, created)
                if self._first(call_id):
                    self._charge_line(call, creator, api, call_id, created, facts)

    def _charge_line(
        self, call: LLMCall, creator: Creator, api: str, call_id: str, created: int, facts: dict[str, Any]
    ) -> None:
        answer = facts.get("response")
        answer = answer if isinstance(answer, dict) else {}
        http_status, body, error = answer.get("status_code"), answer.get("body"), facts.get("error")
        served = http_status is None or (type(http_status) is int and http_status < 400)
        ok = isinstance(body, dict) and not error and served
        reply = of_parsed(body) if ok else Reply(http_status=http_status if type(http_status) is int else None)
        word = None
        if not ok:
            code = error.get("code") if isinstance(error, dict) else None
            word = code[:64] if isinstance(code, str) else "error"
        self._pipeline.charge(
            _about(call, api, reply.model)._replace(batch=True),
            creator.attribution,
            "restored" if creator.attribution else "none",
            reply,
            call_id=call_id,
            operation_id=call_id,
            started_ns=created * 1_000_000_000,
            duration_ns=None,
            status="ok" if ok else "error",
            error=word,
            later=None if ok else "the line failed: nothing was served",
        )


def _about(call: LLMCall, api: str, model: str | None) -> LLMCall:
    """Return the call that a charge is for: nothing of the request that saw it but where it went."""
    return LLMCall(call.client, call.provider, api, call.url, model, region=call.region)


def _said(state: str) -> str:
    return {"failed": "has failed", "cancelled": "was cancelled", "expired": "has expired"}.get(state, f"is {state}")


def _seconds(facts: Mapping[str, Any], key: str) -> int:
    value = facts.get(key)
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1 << 40 else 0


def _content(result: Any) -> Any:
    http = getattr(result, "http_response", None) or getattr(result, "response", None)
    return getattr(http, "content", None) if hasattr(http, "_content") else None


class JobItems(StreamItems):
    """How the events of a job's stream are read: those that tell of the job itself are looked at."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        def take(item: Any) -> bool:
            facts = _facts(item)
            for key in ("response", "data"):
                inner = facts.get(key)
                if inner is not None and _facts(inner).get("object") in _KINDS:
                    try:
                        self._jobs.seen(operation, inner)
                    except Exception as fault:
                        faults.note("openai.jobs", fault)
            return False

        return take
