"""Patches as rows of data: applied by handle, taken off by handle, and reported."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import inspect
import platform
import sys
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, cast

import wrapt

from attribkit import faults

__all__ = ["Patch", "PatchState", "Patches", "Standby", "Status", "Wrapper", "takes"]

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
Replacement = Callable[[Any, list[None]], Any]
"""Takes the original and a switch, an empty list once the patch is off; returns what stands in the original's place."""
Direct = Callable[[Callable[..., Any], list[None]], Callable[..., Any] | None]
"""The same for a plain function with parameters that it knows; returns None where the parameters are others."""
_NOT_YET = "its library is not imported yet"
_PERHAPS = "its module is not imported yet, and only some versions have it"
Status = Literal["applied", "waiting", "missing", "unsupported", "off"]


class Standby:
    """Puts a patch on while it is needed, where a wrapper costs too much to stand on a hot path for nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._put_on: Callable[[], None] | None = None
        self._take_off: Callable[[], None] | None = None
        self.on = False

    def ready(self, put_on: Callable[[], None] | None, take_off: Callable[[], None] | None) -> None:
        """Say how it is put on and taken off; None when it never will be again."""
        with self._lock:
            self._put_on, self._take_off, self.on = put_on, take_off, False

    def wake(self) -> None:
        """Put the patch on."""
        with self._lock:
            if not self.on and self._put_on is not None:
                self._put_on()
                self.on = True

    def rest(self, needed: Callable[[], bool]) -> None:
        """Take it off unless it is `needed`: what is asked before may have changed in another thread."""
        with self._lock:
            if self.on and self._take_off is not None and not needed():
                self._take_off()
                self.on = False

    def forked(self) -> None:
        """In a child process nobody holds the lock."""
        self._lock = threading.RLock()


class Patch:
    """One wrapped attribute of one library."""

    __slots__ = (
        "direct",
        "distribution",
        "group",
        "hot",
        "module",
        "own",
        "path",
        "replaces",
        "required",
        "standby",
        "wrapper",
    )

    def __init__(
        self,
        module: str,
        path: str,
        wrapper: Wrapper | Replacement,
        group: str,
        distribution: str,
        required: bool = True,
        own: bool = False,
        hot: bool = False,
        standby: Standby | None = None,
        replaces: bool = False,
        direct: Direct | None = None,
    ) -> None:
        self.module = module
        """The module that defines the attribute; importing it is what applies the patch."""
        self.path = path
        """A dotted path inside the module: `Class.method` or `function`."""
        self.wrapper = wrapper
        self.group = group
        """The setting that turns it off: openai, langchain, ..."""
        self.distribution = distribution
        """The package whose version is reported."""
        self.required = required
        """False for a target that only some versions have; without it the call is still right."""
        self.own = own
        """True for a target that is wrapped only where the class itself has it: a stranger who has wrapped an inherited
        method on a subclass calls the original past our wrapper on the base class."""
        self.hot = hot
        """True on the path of every model call: a plain function stands there, as a wrapper object costs 10,000
        instructions each time. For methods, and for functions of a module that are no coroutine functions."""
        self.standby = standby
        """What puts it on and takes it off as it is needed; None for a patch that is always on."""
        self.replaces = replaces
        """True where `wrapper` is a `Replacement`: for a target that is used so often that a proxy in front of it
        shows."""
        self.direct = direct
        """For a hot target: makes a function that names the parameters, where packing and unpacking them shows. It
        calls its own `__wrapped__`. Where that cannot stand there, `wrapper` does."""


class PatchState(NamedTuple):
    """How one patch stands."""

    group: str
    target: str
    status: Status
    version: str | None
    reason: str | None = None

    @property
    def optional(self) -> bool:
        """Whether it waits for a module that this version of its library may not have."""
        return self.reason == _PERHAPS


class _Applied:
    """A patch that is on: the object that holds the attribute, and our wrapper."""

    __slots__ = ("handle", "inherited", "name", "owner", "switch")

    def __init__(self, owner: Any, name: str, handle: Any, inherited: bool, switch: list[None]) -> None:
        self.owner, self.name, self.handle, self.inherited, self.switch = owner, name, handle, inherited, switch

    def undo(self) -> None:
        """Take our wrapper out, from under other wrappers too, and make it inert wherever a reference is left."""
        self.switch.clear()
        original = self.handle.__wrapped__
        there = vars(self.owner).get(self.name)
        if there is self.handle:
            if self.inherited:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, original)
            return
        above = there
        while above is not None:
            below = getattr(above, "__wrapped__", None)
            if below is self.handle:
                above.__wrapped__ = original
                if isinstance(above, wrapt.ObjectProxy):
                    return
                break
            above = below
        # A plain function stands above: it calls us through a closure, and its own undo may hold us to put us back.
        for holder in gc.get_referrers(self.handle):
            if isinstance(holder, types.CellType):
                holder.cell_contents = original
                continue
            if not isinstance(holder, (dict, type, types.ModuleType)):
                holder = getattr(holder, "__dict__", None)  # an object whose attributes stand in itself
            if isinstance(holder, dict) and "__module__" not in holder:
                for key in [key for key, value in holder.items() if value is self.handle]:
                    holder[key] = original


def _nothing(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return wrapped(*args, **kwargs)


def takes(function: types.FunctionType, *names: str, more: bool = False) -> bool:
    """Return whether a function has parameters of these names, and no others; with `more`, others by keyword."""
    code = function.__code__
    rest = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    return rest == (inspect.CO_VARKEYWORDS if more else 0) and _parameters(code) == names


def _parameters(code: types.CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _plain(original: types.FunctionType, wrapper: Wrapper, switch: list[None], *, method: bool) -> Callable[..., Any]:
    """Return a function that calls `wrapper` for a method, or for a function of a module, and can be undone like a
    wrapper of wrapt."""
    if not method:

        @functools.wraps(original)
        def patched_function(*args: Any, **kwargs: Any) -> Any:
            if switch:
                return wrapper(patched_function.__wrapped__, None, args, kwargs)
            return original(*args, **kwargs)

        return patched_function

    bound = types.MethodType

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def patched_coroutine(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
            if switch:
                return await wrapper(bound(patched_coroutine.__wrapped__, instance), instance, args, kwargs)
            return await original(instance, *args, **kwargs)

        return patched_coroutine

    @functools.wraps(original)
    def patched(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        if switch:
            return wrapper(bound(patched.__wrapped__, instance), instance, args, kwargs)
        return original(instance, *args, **kwargs)

    return patched


class Patches:
    """The patches of one instrument(): applies what is imported, waits for what is not, undoes exactly its own."""

    def __init__(self) -> None:
        self._rows: list[Patch] = []
        self._applied: dict[Patch, _Applied] = {}
        self._states: dict[Patch, tuple[Status, str | None]] = {}
        self._on = True

    def apply(self, rows: Iterable[Patch]) -> None:
        """Apply each row now, or when its module is imported."""
        hooked = set()
        for row in rows:
            self._rows.append(row)
            if row.module in sys.modules:
                self._apply(row)
            else:
                self._note(row, "waiting", _NOT_YET if row.required else _PERHAPS)
                if row.module not in hooked:
                    hooked.add(row.module)
                    wrapt.register_post_import_hook(self._imported, row.module)

    def expect(
        self, group: str, libraries: Iterable[str], rows: Callable[[], Iterable[Patch]], *, off: bool = False
    ) -> None:
        """Make the rows of a group now, if one of its libraries is imported, or when the first of them is."""
        libraries = tuple(libraries)
        waiting = [Patch(name, "", _nothing, group, name.partition(".")[0]) for name in libraries]
        if off:
            for row in waiting:
                self._note(row, "off", "turned off by the settings")
            return
        made = [False]

        def imported(module: Any = None) -> None:
            if made[0] or not self._on:
                return
            made[0] = True
            for row in waiting:
                self._states.pop(row, None)
            try:
                self.apply(rows())
            except Exception as error:  # whatever is wrong with our rows, the user's import goes on
                faults.note(f"patches of {group}", error)

        if any(library in sys.modules for library in libraries):
            imported()
            return
        for row in waiting:
            self._note(row, "waiting", _NOT_YET)
            wrapt.register_post_import_hook(imported, row.module)

    def _imported(self, module: Any) -> None:
        for row in self._rows:
            if row.module == module.__name__ and row in self._states and self._states[row][0] == "waiting":
                self._apply(row)

    def _apply(self, row: Patch) -> None:
        if not self._on:
            return
        module = sys.modules.get(row.module)
        owner: Any = module
        try:
            *parents, name = row.path.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            getattr(owner, name)
            if row.own and name not in vars(owner):
                self._states.pop(row, None)
                return
        except AttributeError:
            self._note(row, "missing" if row.required else "unsupported", f"this version has no {row.path}")
            return
        try:
            if row.standby is None:
                self._wrap(row, module, owner, name)
                self._note(row, "applied")
            else:
                row.standby.ready(lambda: self._wrap(row, module, owner, name), lambda: self._applied.pop(row).undo())
                self._note(row, "applied", "put on while it is needed")
        except Exception as error:  # whatever is wrong with our patch, the user's import goes on
            self._note(row, "unsupported", f"it cannot be wrapped: {type(error).__name__}")
            faults.note(f"patch {row.module}:{row.path}", error)

    def _wrap(self, row: Patch, module: Any, owner: Any, name: str) -> None:
        inherited = name not in vars(owner)
        switch = [None]  # its truth is asked for at each call: an empty list turns the wrapper off
        original = vars(owner).get(name)
        handle: Any
        if row.replaces:
            handle = cast(Replacement, row.wrapper)(original, switch)
            handle.__wrapped__ = original
            setattr(owner, name, handle)
        elif row.hot and type(original) is types.FunctionType:
            handle = None if row.direct is None else row.direct(original, switch)
            if handle is None:
                handle = _plain(original, cast(Wrapper, row.wrapper), switch, method=isinstance(owner, type))
            else:
                functools.update_wrapper(handle, original)
            setattr(owner, name, handle)
        else:
            handle = wrapt.wrap_object(module, row.path, wrapt.FunctionWrapper, (row.wrapper, switch))
        self._applied[row] = _Applied(owner, name, handle, inherited, switch)

    def _note(self, row: Patch, status: Status, reason: str | None = None) -> None:
        self._states[row] = status, reason

    def undo(self) -> None:
        """Take every patch off; what waits will not come on."""
        self._on = False
        for row in self._rows:
            if row.standby is not None:
                row.standby.ready(None, None)
        for applied in self._applied.values():
            try:
                applied.undo()
            except Exception as error:
                faults.note("patch undo", error)
        self._applied.clear()

    def report(self) -> Callable[[], tuple[PatchState, ...]]:
        """Return a function that tells how each patch stands now. It looks up the versions of the packages, which takes
        longer than applying the patches."""
        states = tuple(self._states.items())

        def told() -> tuple[PatchState, ...]:
            version = functools.cache(_version)
            return tuple(
                PatchState(row.group, _target(row), status, version(row.distribution), reason)
                for row, (status, reason) in states
            )

        return told


def _target(row: Patch) -> str:
    return f"{row.module}:{row.path}" if row.path else row.module


def _version(distribution: str) -> str | None:
    if distribution in sys.stdlib_module_names:
        return platform.python_version()
    module = sys.modules.get(distribution.replace("-", "_"))
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
