"""RQ: who a job is for rides in its meta, and is in force while a worker performs it."""

from __future__ import annotations

from typing import Any

from attribkit import faults
from attribkit.instrumentation.hops.messages import HEADER, Messages
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]


def _said(job: Any, *_: Any, **__: Any) -> tuple[object, object]:
    return job.meta.get(HEADER), job.func_name


def patches(messages: Messages) -> tuple[Patch, ...]:
    """Return the rows where every way of enqueueing makes its job, and where a job is performed. A retry is the same
    job."""

    def created(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        job = wrapped(*args, **kwargs)
        try:
            if HEADER not in job.meta:
                text = messages.text("rq", job.func_name)
                if text is not None:
                    job.meta = {**job.meta, HEADER: text}  # the app may share its dict between jobs
        except Exception as fault:
            faults.note("rq.created", fault)
        return job

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(module, path, wrapper, "rq", "rq")

    return row("rq.queue", "Queue.create_job", created), row("rq.job", "Job.perform", messages.performed("rq", _said))
