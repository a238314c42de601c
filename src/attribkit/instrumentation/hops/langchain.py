"""LangChain: who a run is for stands in its metadata, and what the app has put there is adopted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import wrapt

from attribkit import context, faults
from attribkit.attribution import Attribution
from attribkit.context import Scope, adopted, bound, in_force, restored, well_known
from attribkit.instrumentation.patching import Patch

__all__ = ["NAMES", "adopt", "captured", "completed", "config_of", "named", "patches"]

NAMES = frozenset(("tenant_id", "workflow_id", "workflow"))
"""A run's metadata that hold one of these may say who the run is for."""


# -- what the app says in its config ----------------------------------------------------------------------------------


def named(metadata: object) -> dict[str, str] | None:
    """Return the attribution fields in a config's metadata, None unless it names a tenant or a workflow.

    What we have put there ourselves is no word of the app's.
    """
    if not metadata or (type(metadata) is not dict and not isinstance(metadata, Mapping)) or NAMES.isdisjoint(metadata):
        return None
    for name in NAMES:
        value = metadata.get(name)
        if value is not None and type(value) is not _Said:
            return well_known({key: value for key, value in metadata.items() if type(value) is not _Said})
    return None


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

        undo.append(
            context.add_adopter(running.get, lambda config: named(config.get("metadata")), lambda: running.set(None))
        )

    def remove() -> None:
        on.clear()
        for each in undo:
            each()

    wrapt.register_post_import_hook(imported, "langchain_core.runnables.config")
    return remove


def completed(metadata: object) -> Scope | None:
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


def config_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the metadata of the config that a runnable is called with."""
    config = kwargs.get("config") or (args[1] if len(args) > 1 else None)
    return config.get("metadata") if isinstance(config, Mapping) else None


def _retrieve(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A retriever does not put its config in force for what it calls: its embeddings find it here."""
    there = completed(config_of(args, kwargs))
    if there is None:
        return wrapped(*args, **kwargs)
    with restored(there):
        return wrapped(*args, **kwargs)


def _aretrieve(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    there = completed(config_of(args, kwargs)) or captured()
    work = wrapped(*args, **kwargs)
    return work if there is None else bound(work, there)


# -- what we say in a run's metadata ----------------------------------------------------------------------------------


class _Said(str):
    """A value that we have put into a run's metadata: a run inside may have another one, the app's own never change.

    Copied it stays what it is, pickled it is a plain string.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)

    def __copy__(self) -> _Said:
        return self

    def __deepcopy__(self, memo: object) -> _Said:
        return self


_said: tuple[Attribution | None, dict[str, _Said]] = None, {}
"""The latest attribution and what is said of it: the runs of one scope come in a row."""


def _configure(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Every run's callback manager is made here: LangSmith and other handlers read its metadata."""
    manager = wrapped(*args, **kwargs)
    if manager.handlers:
        _tell(manager)
    return manager


def _direct_configure(original: Any, switch: list[None]) -> Any:
    def configure(*args: Any, **kwargs: Any) -> Any:
        manager = own["__wrapped__"](*args, **kwargs)
        if switch and manager.handlers:
            _tell(manager)
        return manager

    own = vars(configure)
    return configure


def _tell(manager: Any) -> None:
    """Say who a run is for whose handlers hear of it. The runs inside it say it themselves."""
    here = context.scope().attribution
    if not here.fields:
        return
    try:
        known, values = _said
        if known is not here:
            values = _saying(here)
        there = manager.metadata
        if values.keys().isdisjoint(there):
            # What add_metadata does with texts; it looks for nested tables in all that is there, twice.
            manager.metadata = {**there, **values}
            manager.inheritable_metadata = {**manager.inheritable_metadata, **values}
        else:
            _tell_anew(manager, there, values)
    except Exception as fault:
        faults.note("langchain.configure", fault)


def _saying(here: Attribution) -> dict[str, _Said]:
    global _said
    _said = here, {key: _Said(value) for key, value in here.fields}
    return _said[1]


def _tell_anew(manager: Any, there: dict[str, Any], values: dict[str, _Said]) -> None:
    """Say who a run is for where its metadata say something already: we may, of a run outside it, or the app."""
    first = next(iter(values))
    if there.get(first) is values[first]:
        return  # inherited from a run of the same scope
    new = {key: value for key, value in values.items() if key not in there or type(there[key]) is _Said}
    manager.metadata = {**there, **new}
    manager.inheritable_metadata = {**manager.inheritable_metadata, **new}


def patches() -> tuple[Patch, ...]:
    """Return the rows for the metadata of runs."""
    return (
        Patch(
            "langchain_core.callbacks.manager",
            "_configure",
            _configure,
            "langchain",
            "langchain-core",
            hot=True,
            direct=_direct_configure,
        ),
        Patch("langchain_core.retrievers", "BaseRetriever.invoke", _retrieve, "langchain", "langchain-core"),
        Patch("langchain_core.retrievers", "BaseRetriever.ainvoke", _aretrieve, "langchain", "langchain-core"),
    )
