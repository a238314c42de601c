"""LangChain: fields that the app already puts in `config["metadata"]` are adopted where no scope has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import wrapt

from attribkit import context, faults
from attribkit.context import Scope, adopted, in_force, restored, well_known
from attribkit.instrumentation.patching import Patch

__all__ = ["adopt", "captured", "named", "patches"]

_NAMES = ("tenant_id", "workflow_id", "workflow")


def named(metadata: object) -> dict[str, str] | None:
    """Return the attribution fields in a config's metadata, None unless it names a tenant or a workflow."""
    if not isinstance(metadata, Mapping) or not any(name in metadata for name in _NAMES):
        return None
    return well_known(metadata)


def captured() -> Scope | None:
    """Return the scope that work made here belongs to, None when nobody is in force: then whoever runs it says."""
    bare = context.scope()
    here = in_force()
    if here.attribution.tenant_id is None and bare.attribution.tenant_id is not None:
        here = bare  # a dispute is for the calls to find: taken along half settled, it could be settled wrongly
    return here if here.attribution else None


def adopt() -> Callable[[], None]:
    """Adopt the fields in the config of the runnable that is running, from when LangChain is imported. Return what ends
    that."""
    undo: list[Callable[[], None]] = []
    on = [True]

    def imported(module: Any) -> None:
        running = getattr(module, "var_child_runnable_config", None)
        if running is None or not on:
            return

        def fields() -> Mapping[str, str] | None:
            config = running.get()
            return named(config.get("metadata")) if config else None

        undo.append(context.add_adopter(fields))

    def remove() -> None:
        on.clear()
        for each in undo:
            each()

    wrapt.register_post_import_hook(imported, "langchain_core.runnables.config")
    return remove


def _completed(metadata: object) -> Scope | None:
    """Return the scope that `metadata` completes, None when it adds nothing."""
    try:
        found = named(metadata)
        if not found:
            return None
        here = in_force()
        there = adopted(here, found)
        return None if there is context.scope() else there
    except Exception as fault:
        faults.note("langchain.adopt", fault)
        return None


def _run_metadata(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    manager = kwargs.get("run_manager") or (args[2] if len(args) > 2 else None)
    return getattr(manager, "metadata", None)


def _generate(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    scope = _completed(_run_metadata(args, kwargs))
    if scope is None:
        return wrapped(*args, **kwargs)
    with restored(scope):
        return wrapped(*args, **kwargs)


async def _agenerate(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    scope = _completed(_run_metadata(args, kwargs))
    if scope is None:
        return await wrapped(*args, **kwargs)
    with restored(scope):
        return await wrapped(*args, **kwargs)


def _stream(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    config = kwargs.get("config") or (args[1] if len(args) > 1 else None)
    scope = _completed(config.get("metadata")) if isinstance(config, Mapping) else None
    items = wrapped(*args, **kwargs)
    return items if scope is None else context.bound(items, scope)


def patches() -> tuple[Patch, ...]:
    """Return the rows that adopt a model call's own config metadata."""

    def row(path: str, wrapper: Any) -> Patch:
        return Patch("langchain_core.language_models.chat_models", path, wrapper, "langchain", "langchain-core")

    return (
        row("BaseChatModel._generate_with_cache", _generate),
        row("BaseChatModel._agenerate_with_cache", _agenerate),
        row("BaseChatModel.stream", _stream),
        row("BaseChatModel.astream", _stream),
    )
