"""Web frameworks: background tasks, streamed bodies and dependencies keep what was in force where they were made."""

from __future__ import annotations

from collections.abc import Callable
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from attribkit import context, faults
from attribkit.context import Scope, bound, in_force, leave, restored
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]

_ATTRIBUTE = "_attribkit_scope"


def _captured() -> Scope:
    here = in_force()
    return Scope(here.attribution, "carried" if here.attribution else here.hop)


def _kept(work: Any, here: Scope) -> Any:
    """Return `work`, if it is a generator of either kind, with `here` in force around each step.

    A generator that runs in a thread pool is driven in a fresh copy of the context at each step: its own scopes would
    not outlive the first one, so it is kept together even where nothing is in force yet.
    """
    kind = type(work)
    if kind is GeneratorType or (kind is AsyncGeneratorType and here.attribution):
        return bound(work, here)
    return work


def _with_first(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str, change: Callable[[Any], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (change(args[0]), *args[1:]), kwargs
    if name in kwargs:
        return args, {**kwargs, name: change(kwargs[name])}
    return args, kwargs


def _made(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A background task was made: remember what is in force."""
    try:
        here = _captured()
        if here.attribution:
            setattr(instance, _ATTRIBUTE, here)
    except Exception as fault:
        faults.note("web.background", fault)
    return wrapped(*args, **kwargs)


async def _run(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A background task or a streamed response runs, after the scope it was made in may have closed."""
    here = getattr(instance, _ATTRIBUTE, None)
    if here is None:
        return await wrapped(*args, **kwargs)
    with restored(here):
        return await wrapped(*args, **kwargs)


def _streamed(name: str) -> Callable[..., Any]:
    def made(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A streamed response was made: its content, `name` or the first argument, belongs to what is in force."""
        try:
            here = _captured()
            if here.attribution:
                setattr(instance, _ATTRIBUTE, here)
            args, kwargs = _with_first(args, kwargs, name, lambda content: _kept(content, here))
        except Exception as fault:
            faults.note("web.streamed", fault)
        return wrapped(*args, **kwargs)

    return made


def _iterated(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A sync generator endpoint is about to be iterated in the thread pool."""
    args, kwargs = _with_first(args, kwargs, "iterator", lambda work: _kept(work, _captured()))
    return wrapped(*args, **kwargs)


class _Entered:
    """A sync context manager that tells which scope was in force once it had been entered."""

    __slots__ = ("_inner", "scope")

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.scope: Scope | None = None

    def __enter__(self) -> Any:
        value = self._inner.__enter__()
        self.scope = context.scope()
        return value

    def __exit__(self, *exc: Any) -> Any:
        return self._inner.__exit__(*exc)


class _Dependency:
    """A `yield` dependency of the sync kind: it opens its scope in a thread, in a copy of the context that is gone
    when the endpoint runs. The scope is put in force again where the endpoint will see it."""

    def __init__(self, inner: Any, entered: _Entered) -> None:
        self._inner, self._entered = inner, entered
        self._token: Any = None

    async def __aenter__(self) -> Any:
        self._before = context.scope()
        value = await self._inner.__aenter__()
        opened = self._entered.scope
        if opened is not None and opened is not self._before:
            self._token = context.enter(opened)
        return value

    async def __aexit__(self, *exc: Any) -> Any:
        try:
            return await self._inner.__aexit__(*exc)
        finally:
            if self._token is not None and self._entered.scope is not None:
                leave(self._token, self._entered.scope, self._before)


def _depended(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args:
        return wrapped(*args, **kwargs)
    entered = _Entered(args[0])
    return _Dependency(wrapped(entered, *args[1:], **kwargs), entered)


def patches() -> tuple[Patch, ...]:
    """Return the rows for Starlette, FastAPI, sse-starlette, Werkzeug (Flask) and Django."""

    def row(module: str, path: str, wrapper: Any, distribution: str = "", *, required: bool = True) -> Patch:
        return Patch(module, path, wrapper, "web", distribution or module.partition(".")[0], required)

    starlette = _streamed("content")
    return (
        row("starlette.background", "BackgroundTask.__init__", _made),
        row("starlette.background", "BackgroundTask.__call__", _run),
        row("starlette.responses", "StreamingResponse.__init__", starlette),
        row("starlette.responses", "StreamingResponse.__call__", _run),
        row("sse_starlette.sse", "EventSourceResponse.__init__", starlette, "sse-starlette"),
        row("sse_starlette.sse", "EventSourceResponse.__call__", _run, "sse-starlette"),
        row("fastapi.dependencies.utils", "contextmanager_in_threadpool", _depended),
        row("fastapi.routing", "iterate_in_threadpool", _iterated, required=False),
        row("werkzeug.wrappers.response", "Response.__init__", _streamed("response")),
        row("django.http.response", "StreamingHttpResponse._set_streaming_content", _streamed("value")),
    )
