"""Work at OpenAI that outlives the request that started it: Assistants' runs, background Responses, Batches.

Such a job is attributed where it is created, and charged once, where its end is seen first: in the reply, in a stream,
or by whoever polls it, in whatever process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attribkit import faults
from attribkit.calls import CallStatus, Reply
from attribkit.gateways.jobs import Creator, job_metadata, read_creator
from attribkit.instrumentation.clients.jobs import (
    LATER,
    NOBODY,
    PART,
    BatchLine,
    JobBook,
    Kept,
    about,
    charge_id,
    facts_of,
    json_lines,
    seconds_in,
)
from attribkit.instrumentation.clients.openai_replies import StreamItems
from attribkit.instrumentation.clients.parsed import of_parsed
from attribkit.pipeline import Operation, Pipeline

__all__ = ["JobItems", "Jobs"]

_JOB = re.compile(r"/(?:threads/[^/?]+/runs|responses|batches)/([^/?]+)")
_FILE = re.compile(r"/files/([^/?]+)/content")
_ENDS = frozenset({"completed", "failed", "cancelled", "expired", "incomplete"})
_KINDS = {"thread.run": "runs", "response": "responses", "batch": "batches"}
_LINE_APIS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/completions": "completions",
    "/v1/moderations": "moderations",
    "/v1/images/generations": "images",
    "/v1/images/edits": "images",
}


class Jobs(JobBook):
    """The jobs at OpenAI."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._outputs = Kept()

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
                    operation.later = PART
            elif _JOB.search(path) is not None or "/runs" in path or path.startswith("/batches"):
                operation.later = PART
            return
        if path.rstrip("/").endswith("/submit_tool_outputs"):
            operation.later = PART
            return
        if call.api not in LATER or (call.api == "responses" and not (call.body or {}).get("background")):
            return
        operation.later = LATER[call.api]
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
            facts = facts_of(result)
            listed = facts.get("data")
            for one in listed if isinstance(listed, list) else (result,):
                self.seen(operation, one)
        except Exception as fault:
            faults.note("openai.jobs", fault)

    def seen(self, operation: Operation, job: Any) -> None:
        """Look at a job as it is now: remember who created it, and charge it when it has ended."""
        facts = facts_of(job)
        kind, identity = facts.get("object"), facts.get("id")
        if kind not in _KINDS or not isinstance(identity, str):
            return
        if kind == "response" and facts.get("background") is not True:
            return
        creator = self._creators.get(identity)
        if creator is None:
            if operation.call.api and operation.later != PART:  # it has just been created
                creator = self.created(operation, identity, told="metadata" in (operation.body or {}))
            else:
                creator = read_creator(facts.get("metadata"))
                if creator is not None:
                    self._creators.keep(identity, creator)
                else:
                    creator = self.creator_of(identity)
        if kind == "batch":
            for key in ("output_file_id", "error_file_id"):
                if isinstance(facts.get(key), str):
                    seconds = seconds_in(facts, "created_at")
                    output = (operation.call, creator or NOBODY, identity, seconds, facts.get("endpoint"))
                    self._outputs.keep(facts[key], output)
            if facts.get("status") != "completed":
                self._end(operation, creator or NOBODY, "batches", identity, facts, job)
        else:
            self._end(operation, creator or NOBODY, _KINDS[kind], identity, facts, job)

    def _end(
        self, operation: Operation, creator: Creator, api: str, identity: str, facts: Mapping[str, Any], job: Any
    ) -> None:
        state = facts.get("status")
        if state not in _ENDS:
            return
        created = seconds_in(facts, "created_at")
        call_id = charge_id(api, identity, created)
        if not self.first(call_id):
            return
        ended = max((seconds_in(facts, f"{name}_at") for name in ("completed", "failed", "cancelled")), default=0)
        status: CallStatus = "ok" if state in ("completed", "incomplete") else "error"
        error = facts.get("last_error") or facts.get("error")
        word = None if state == "completed" else str(state)
        if state == "failed" and isinstance(facts_of(error).get("code"), str):
            word = f"failed: {facts_of(error)['code']}"[:64]
        if state == "cancelled":
            status = "cancelled"
        reply = of_parsed(job)._replace(problem=f"the {api[:-1]} {_said(str(state))} and states no usage")
        self._pipeline.charge(
            about(operation.call, api, reply.model),
            creator.attribution,
            "restored" if creator.attribution else "none",
            reply,
            call_id=call_id,
            operation_id=creator.operation_id or call_id,
            started_ns=created * 1_000_000_000,
            duration_ns=(ended - created) * 1_000_000_000 if ended >= created else None,
            status=status,
            error=word,
            later=LATER["batches"] if api == "batches" else None,
        )

    def _read_output(self, file_id: str, content: Any) -> None:
        known = self._outputs.get(file_id)
        if known is None or not isinstance(content, bytes):
            return
        call, creator, batch, created, endpoint = known
        api = _LINE_APIS.get(endpoint, "chat") if isinstance(endpoint, str) else "chat"
        for number, facts in json_lines(content):
            self.charge_line(call, creator, api, batch, created, _line(facts, number), file_id)


def _line(facts: dict[str, Any], number: int) -> BatchLine:
    """Return what a line of a batch's output says."""
    answer = facts.get("response")
    answer = answer if isinstance(answer, dict) else {}
    http_status, body, error = answer.get("status_code"), answer.get("body"), facts.get("error")
    key = str(facts.get("custom_id") or facts.get("id") or number)
    served = http_status is None or (type(http_status) is int and http_status < 400)
    if isinstance(body, dict) and not error and served:
        return BatchLine(key, of_parsed(body))
    code = error.get("code") if isinstance(error, dict) else None
    reply = Reply(http_status=http_status if type(http_status) is int else None)
    return BatchLine(key, reply, "error", code[:64] if isinstance(code, str) else "error")


def _said(state: str) -> str:
    return {"failed": "has failed", "cancelled": "was cancelled", "expired": "has expired"}.get(state, f"is {state}")


def _content(result: Any) -> Any:
    http = getattr(result, "http_response", None) or getattr(result, "response", None)
    return getattr(http, "content", None) if hasattr(http, "_content") else None


class JobItems(StreamItems):
    """How the events of a job's stream are read: those that tell of the job itself are looked at."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        def take(item: Any) -> bool:
            facts = facts_of(item)
            for key in ("response", "data"):
                inner = facts.get(key)
                if inner is not None and facts_of(inner).get("object") in _KINDS:
                    try:
                        self._jobs.seen(operation, inner)
                    except Exception as fault:
                        faults.note("openai.jobs", fault)
            return False

        return take
