"""Celery: who a task is for rides in its message, and is in force around its run in the worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import wrapt

from attribkit import context, faults
from attribkit.context import EMPTY, leave
from attribkit.instrumentation.hops.messages import HEADER, Messages
from attribkit.instrumentation.patching import Patch

__all__ = ["follow", "patches"]

_ATTRIBUTE = "_attribkit"


def patches(messages: Messages) -> tuple[Patch, ...]:
    """Return the row that every way of sending a task passes: delay, apply_async, send_task, chains, groups, chords,
    links and retries."""

    def send_task(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            name = args[0] if args else kwargs["name"]
            text = messages.text("celery", name)
            if text is not None:
                kwargs = {**kwargs, "headers": {**(kwargs.get("headers") or {}), HEADER: text}}
        except Exception as fault:
            faults.note("celery.send_task", fault)
        return wrapped(*args, **kwargs)

    return (Patch("celery.app.base", "Celery.send_task", send_task, "celery", "celery"),)


def follow(messages: Messages) -> Callable[[], None]:
    """Put a task's scope in force while a worker runs it, from when Celery is imported. Return what ends that."""
    undo: list[Callable[[], None]] = []
    on = [True]

    def started(task: Any = None, **_: Any) -> None:
        """The task's message has arrived: from here on its handlers, its callbacks and its chord run in its scope."""
        try:
            request = task.request
            if request.is_eager or request.called_directly:
                return
            said = (request.headers or {}).get(HEADER) or getattr(request, HEADER, None)
            scope = messages.scope(said, "celery", task.name)
            before = context.scope()
            if scope is not before:
                setattr(request, _ATTRIBUTE, (context.enter(scope), scope, before))
        except Exception as fault:
            faults.note("celery.started", fault)

    def ended(task: Any = None, **_: Any) -> None:
        entered = task.request.__dict__.pop(_ATTRIBUTE, None)
        if entered is not None:
            leave(*entered)

    def forked(**_: Any) -> None:
        """A pool process is a copy of the worker: what the worker was started in is no task's."""
        context.enter(EMPTY)

    def imported(module: Any) -> None:
        if not on:
            return
        receivers: tuple[tuple[Any, Callable[..., None]], ...] = (
            (module.task_prerun, started),
            (module.task_postrun, ended),
            (module.worker_process_init, forked),
        )
        for signal, receiver in receivers:
            signal.connect(receiver, weak=False, dispatch_uid=_uid(receiver))
            undo.append(partial(signal.disconnect, receiver, dispatch_uid=_uid(receiver)))
        with module.task_prerun.lock:  # first, so that a handler of the app's own opens its scope inside ours
            order = module.task_prerun.receivers
            order.insert(0, order.pop())

    def remove() -> None:
        on.clear()
        for each in undo:
            each()

    wrapt.register_post_import_hook(imported, "celery.signals")
    return remove


def _uid(receiver: Callable[..., None]) -> str:
    return f"attribkit.{receiver.__name__}"
