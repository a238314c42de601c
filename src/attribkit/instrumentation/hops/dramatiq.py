"""Dramatiq: who a message is for rides in its options, and is in force while a worker processes it."""

from __future__ import annotations

from typing import Any

from attribkit import faults
from attribkit.instrumentation.hops.messages import HEADER, Messages
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]


def _said(worker: Any, message: Any) -> tuple[object, object]:
    return message.options.get(HEADER), message.actor_name


def patches(messages: Messages) -> tuple[Patch, ...]:
    """Return the rows where a message is made (`send`, `send_with_options`, `message`: pipelines, groups) and where it
    is processed. A retry is a copy of its message."""

    def made(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            if HEADER not in kwargs:
                text = messages.text("dramatiq", instance.actor_name)
                if text is not None:
                    kwargs = {**kwargs, HEADER: text}
        except Exception as fault:
            faults.note("dramatiq.made", fault)
        return wrapped(*args, **kwargs)

    def row(module: str, path: str, wrapper: Any) -> Patch:
        return Patch(module, path, wrapper, "dramatiq", "dramatiq")

    return (
        row("dramatiq.actor", "Actor.message_with_options", made),
        row("dramatiq.worker", "_WorkerThread.process_message", messages.performed("dramatiq", _said)),
    )
