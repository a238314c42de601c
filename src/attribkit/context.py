"""The attribution in force: the one ContextVar, and what opens, carries and restores a scope."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import threading
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextvars import Context, ContextVar, Token
from types import TracebackType
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from attribkit.attribution import WELL_KNOWN, Attribution
from attribkit.errors import ConfigurationError
from attribkit.ids import new_id

__all__ = [
    "DRIVES",
    "EMPTY",
    "Origins",
    "Scope",
    "attributed",
    "bound",
    "carry",
    "conflicts",
    "current",
    "disown",
    "enter",
    "entrypoint",
    "in_force",
    "leave",
    "moved",
    "number",
    "observe_workflows",
    "opened_so_far",
    "place",
    "placed",
    "remember_origins",
    "reset",
    "restored",
    "scope",
]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
HopName = Literal["inherited", "carried", "adopted", "restored", "extracted", "none"]

_IDENTITY = frozenset({"tenant_id", "user_id", "session_id", "workflow_id"})


class Scope:
    """What the ContextVar holds: the attribution, how it arrived, and what is under way in it. Never changed."""

    __slots__ = ("attribution", "ended", "hop", "opened", "opener", "operation", "origin", "since")

    def __init__(
        self,
        attribution: Attribution,
        hop: HopName = "inherited",
        operation: object | None = None,
        origin: object | None = None,
        since: int = 0,
    ) -> None:
        self.attribution = attribution
        self.hop: HopName = hop
        self.operation = operation
        """The operation that a client patch has under way here; opaque to this room."""
        self.origin = origin
        """The coroutine in whose body it was opened, where that one was made in another scope (`Origins`)."""
        self.since = since
        """When its tenant came in force: scopes are numbered as they open (`number`)."""
        self.opened = False
        """True for one that was opened where it is in force, or where the running task was created; False for one that
        came from elsewhere."""
        self.opener: object = None
        """The `place` where the app itself opened a scope with this tenant; None where that is not known."""
        self.ended: Scope | None = None
        """What is in force instead of it once it is closed: scopes in generators do not close in order."""

    def of_work(self, made_at: tuple[str, int, str] | None) -> Scope | None:
        """Return the scope of work that is made in it; None where it has none for sure.

        `made_at`: the file, the line and the function that made it, None where that is not known.
        """
        return self


EMPTY = Scope(Attribution(), "none")
_current: ContextVar[Scope] = ContextVar("attribkit", default=EMPTY)


scope: Callable[[], Scope] = _current.get
"""Returns the scope in force; never None. The variable's own method: patches ask at every call."""

enter: Callable[[Scope], Token[Scope]] = _current.set
"""Puts a scope in force and returns what `leave` takes; for patches, where a context manager costs too much."""

reset: Callable[[Token[Scope]], None] = _current.reset
"""Undoes `enter`, where nothing but the same frame can have been entered in; anywhere else `leave` does."""


def current() -> Attribution:
    """Return the attribution in force. It is empty, not None, when no scope is open."""
    return _here().attribution


_threads = threading.local()


def place() -> object:
    """Return what stands for the running task, or the thread where none runs. The same place gives an equal object."""
    tasks: Any = sys.modules.get("asyncio.tasks")
    if tasks is not None:
        try:
            loop = tasks.events._get_running_loop()
            task = None if loop is None else tasks.current_task(loop)
            if task is not None:
                return weakref.ref(task)
        except (AttributeError, TypeError):  # asyncio is being imported; a task of a foreign kind
            pass
    try:
        return _threads.place
    except AttributeError:
        _threads.place = here = object()
        return here


# -- adopted fields ---------------------------------------------------------------------------------------------------

Adopter = Callable[[Any], Mapping[str, str] | None]
_adopters: tuple[tuple[Callable[[], Any], Adopter], ...] = ()
_disowners: tuple[Callable[[], object], ...] = ()


def add_adopter(
    carried: Callable[[], Any], adopter: Adopter, disown: Callable[[], object] = lambda: None
) -> Callable[[], None]:
    """Ask at every call for what a framework has `carried`; where that is something, `adopter` returns the fields it
    holds. Return a function that takes it off again.

    `disown` makes the framework carry none from here on, in the context in which it is called.
    """
    global _adopters, _disowners
    entry = carried, adopter
    _adopters = (*_adopters, entry)
    _disowners = (*_disowners, disown)

    def remove() -> None:
        global _adopters, _disowners
        _adopters = tuple(a for a in _adopters if a is not entry)
        _disowners = tuple(d for d in _disowners if d is not disown)

    return remove


def in_force() -> Scope:
    """Return the scope in force, completed with what a framework's own context says (`adopted`).

    Fields of an open scope win. Where scope and framework name different tenants, neither is certain: the result has
    no tenant, so that the call is recorded as unattributed rather than guessed.
    """
    here = _current.get()
    if _origins is not None:
        here = _origins.resolved(here)
    for carried, adopter in _adopters:
        there = carried()
        if there:
            found = adopter(there)
            if found:
                here = adopted(here, found)
    return here


def disown() -> None:
    """Put nothing in force in this context, neither a scope nor what a framework carries."""
    _current.set(EMPTY)
    for each in _disowners:
        each()


def adopted(here: Scope, found: Mapping[str, str]) -> Scope:
    """Return `here` completed with `found`; `here` itself when that changes nothing."""
    have = here.attribution
    tenant = found.get("tenant_id")
    if tenant and have.tenant_id and tenant != have.tenant_id:
        _report_conflict()
        return Scope(have.without("tenant_id"), "none", here.operation, here.origin, here.since)
    new = {key: value for key, value in found.items() if have.get(key) is None}
    if not new:
        return here
    return Scope(have.merged(new), "adopted", here.operation, here.origin, here.since)


_conflicts = 0


def conflicts() -> int:
    """Return how many times a scope and a framework's context named different tenants."""
    return _conflicts


def _report_conflict() -> None:
    global _conflicts
    _conflicts += 1
    if _conflicts == 1:
        import logging

        logging.getLogger("attribkit").warning(
            "an open scope and a framework's config name different tenants; such calls are recorded as unattributed, "
            "and this is logged once"
        )


# -- where work was made ----------------------------------------------------------------------------------------------


class Origins(Protocol):
    """Knows the coroutine and async generator objects that run elsewhere than in the scope in which they were made."""

    def opened(self, scope: Scope, at_once: bool = False) -> object:
        """A scope begins; the result is what `closed` takes. `at_once`: nothing was made since `resolved` was asked."""

    def closed(self, opening: Any) -> None:
        """The scope that began with `opening` ends."""

    def moved(self) -> None:
        """Another scope has come in force in this thread, without being opened here."""

    def resolved(self, here: Scope) -> Scope:
        """Return the scope in which the innermost such object on the stack was made, `here` when there is none."""

    def placed(self, scope: Scope) -> Scope:
        """Return `scope` as one that is opened in the body of the innermost such object on the stack."""

    def settled(self, work: object) -> None:
        """`work` has got a scope of its own: where it was made no longer counts."""


_origins: Origins | None = None
_opened = 0
_NEW = -1
"""The number of a scope that brings a tenant into force and is not open yet."""


def remember_origins(origins: Origins | None) -> None:
    """Tell `origins` of every scope, and ask it wherever one is opened upon another, captured or used. None ends it."""
    global _origins
    _origins = origins


def opened_so_far() -> int:
    """Return the number of the latest scope that brought a tenant into force."""
    return _opened


def number(scope: Scope) -> None:
    """Number a scope that opens now, unless it was numbered before."""
    global _opened
    if scope.since == _NEW:
        scope.since = _opened = _opened + 1


def moved() -> None:
    """Say that another scope has come in force, after `enter` or `leave`, where the app's own code goes on."""
    if _origins is not None:
        _origins.moved()


scope_of: Callable[[Context], Scope] = operator.methodcaller("get", _current, EMPTY)
"""Returns the scope in force in a context that need not be the running one; loops are asked at every step."""


def _here() -> Scope:
    """Return the scope that a new one is opened upon, or that is captured."""
    here = _current.get()
    return here if _origins is None else _origins.resolved(here)


def _inner(here: Scope, attribution: Attribution) -> Scope:
    """Return a scope with `attribution` that is opened upon `here`."""
    same = attribution.tenant_id == here.attribution.tenant_id
    inner = Scope(attribution, "inherited", here.operation, here.origin, here.since if same else _NEW)
    inner.opened = True
    inner.opener = here.opener if same else None
    return inner


def placed(scope: Scope) -> Scope:
    """Return `scope` as one that comes in force where the running code is."""
    return scope if _origins is None else _origins.placed(scope)


# -- opening a scope --------------------------------------------------------------------------------------------------


def leave(token: Token[Scope], entered: Scope, before: Scope = EMPTY) -> None:
    """Undo `enter` exactly. In another Context (a generator closed elsewhere) a token is of no use and nothing may
    raise: there `before` comes back if what was entered is still in force."""
    try:
        _current.reset(token)
    except ValueError:
        if _current.get() is entered:
            _current.set(before)


class restored:
    """Put a captured scope in force for the length of a block."""

    __slots__ = ("_before", "_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> Scope:
        self._before = _current.get()
        self._scope = placed(_again(self._scope))
        self._token = _current.set(self._scope)
        moved()
        return self._scope

    def __exit__(self, *exc: object) -> None:
        leave(self._token, self._scope, self._before)
        moved()


def _again(scope: Scope) -> Scope:
    """Return a scope from elsewhere as one that comes in force here."""
    if scope.hop == "extracted" and not scope.since:  # what another program says begins here
        scope.since = _NEW
        number(scope)
        scope.opened = True
    elif scope.opened:
        again = Scope(scope.attribution, scope.hop, scope.operation, scope.origin, scope.since)
        again.opener = scope.opener
        return again
    return scope


class attributed:
    """Open a scope in which `fields` are in force: `with`, `async with`, or a decorator.

    Inner fields win over outer ones; a field that is None or empty changes nothing. At the end everything is exactly
    as it was. As a decorator it serves functions, coroutine functions, generators and async generators: the last three
    carry what was in force where they were *called*, wherever they are awaited or iterated.
    """

    __slots__ = ("_entered", "_fields")

    def __init__(self, **fields: object) -> None:
        self._fields = fields
        self._entered: list[tuple[Token[Scope], Scope, Scope, object]] = []

    def _opened(self) -> Scope:
        here = _here()
        return _inner(here, here.attribution.merged(self._fields))

    def __enter__(self) -> Attribution:
        before, inner = _current.get(), self._opened()
        if self._fields.get("tenant_id"):
            inner.opener = place()
        opening = None if _origins is None else _origins.opened(inner, at_once=True)
        number(inner)
        self._entered.append((_current.set(inner), inner, before, opening))
        return inner.attribution

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entered:
            token, inner, before, opening = self._entered.pop()
            leave(token, inner, before)
            inner.ended = before if before.ended is None else before.ended
            now = _current.get()
            if now.ended is not None:
                while now.ended is not None:
                    now = now.ended
                _current.set(now)
            if opening is not None and _origins is not None:
                _origins.closed(opening)

    async def __aenter__(self) -> Attribution:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        def opened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Run:
            return _Run(self._opened(), opens=True)

        return _decorated(function, opened)


# -- workflows --------------------------------------------------------------------------------------------------------


class WorkflowSpan(Protocol):
    """One span around an entrypoint; made current around each step of its body."""

    def enter(self) -> object: ...
    def exit(self, token: Any) -> None: ...
    def end(self, error: BaseException | None) -> None: ...


WorkflowObserver = Callable[[str, Attribution], WorkflowSpan | None]
_observer: WorkflowObserver | None = None


def observe_workflows(observer: WorkflowObserver | None) -> None:
    """Let `observer` open a span for every entrypoint that starts; None ends that."""
    global _observer
    _observer = observer


class _Run:
    """One run of a decorated callable: its scope, its span, and how both are put in force around each step."""

    __slots__ = ("_before", "_opening", "_opens", "_scope", "_span", "_span_token", "_token", "_workflow")

    def __init__(self, scope: Scope | None, workflow: str | None = None, *, opens: bool = False) -> None:
        self._scope = scope
        self._workflow = workflow
        self._opens = opens
        self._opening: object = None
        self._span: WorkflowSpan | None = None
        self._span_token: object = None

    def enter(self) -> None:
        self._before = _current.get()
        if self._scope is None:
            self._scope = _here()
        if self._opens and self._scope.opener is None and self._scope.attribution.tenant_id is not None:
            self._scope.opener = place()
        self._token = _current.set(self._scope)
        if not self._opens:
            moved()
        else:
            if _origins is not None:
                self._opening = _origins.opened(self._scope)
            number(self._scope)
        if self._workflow is not None:  # the first step: a generator that nobody iterates has no span
            if _observer is not None:
                self._span = _observer(self._workflow, self._scope.attribution)
            self._workflow = None
        if self._span is not None:
            self._span_token = self._span.enter()

    def leave(self) -> None:
        """Take the scope off again. What the body has opened and not yet closed is kept for its next step."""
        if self._span is not None:
            self._span.exit(self._span_token)
        entered, self._scope = self._scope or EMPTY, _current.get()
        leave(self._token, entered, self._before)
        if self._opening is not None:
            if _origins is not None:
                _origins.closed(self._opening)
            self._opening = None
        else:
            moved()

    def end(self, error: BaseException | None = None) -> None:
        if self._span is not None:
            self._span.end(error)
            self._span = None


def entrypoint(name: str, *, tenant_id: str | Callable[..., object] | None = None, **fields: Any) -> Callable[[F], F]:
    """Decorate the callable where a request enters the program.

    It sets `workflow=name`, mints a time-ordered `workflow_id` unless one is given or inherited, and opens one
    `invoke_workflow` span. `tenant_id` and further fields are a dotted path into the call's arguments
    ("customer.tenant_id": attributes, mapping keys and list indexes), or a callable that gets the call's arguments.
    `tenant_id`, `user_id`, `session_id` and `workflow_id` have to begin with a parameter's name; another field that
    does not is taken literally (`feature="doc-summary"`). A path that leads nowhere at run time leaves the field unset.

    Raises ConfigurationError where the decorator stands, when a path names no parameter of the function.
    """
    wanted = {key: value for key, value in {"tenant_id": tenant_id, **fields}.items() if value is not None}

    def decorate(function: F) -> F:
        target = function.__func__ if isinstance(function, (staticmethod, classmethod)) else function
        signature = inspect.signature(target)
        sources = {key: _source(key, value, signature, target) for key, value in wanted.items()}
        paths = any(isinstance(source, _Path) for source in sources.values())

        def opened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Run:
            here = _here()
            changes: dict[str, object] = {"workflow": name}
            if sources:
                bound = _bound(signature, args, kwargs) if paths else {}
                for key, source in sources.items():
                    changes[key] = source(bound, args, kwargs)
            attribution = here.attribution.merged(changes)
            if attribution.workflow_id is None:
                attribution = attribution.merged({"workflow_id": new_id()})
            return _Run(_inner(here, attribution), name, opens=True)

        return _decorated(function, opened)

    return decorate


class _Path:
    """A dotted path into a call's arguments."""

    def __init__(self, path: str) -> None:
        self._first, *self._rest = path.split(".")

    def __call__(self, bound: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        value = bound.get(self._first)
        for name in self._rest:
            if value is None:
                return None
            try:
                if isinstance(value, Mapping):
                    value = value.get(name)
                elif name.isdigit() and isinstance(value, (list, tuple)):
                    value = value[int(name)]
                else:
                    value = getattr(value, name, None)
            except Exception:
                return None
        return value if isinstance(value, (str, int)) or value is None else str(value)


def _source(key: str, value: Any, signature: inspect.Signature, function: Callable[..., Any]) -> Callable[..., object]:
    if callable(value):

        def called(bound: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
            try:
                return cast(object, value(*args, **kwargs))
            except Exception:
                return None

        return called
    if isinstance(value, str):
        first = value.split(".", 1)[0]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        if first in signature.parameters or (takes_any and key in _IDENTITY):
            return _Path(value)
        if key in _IDENTITY:
            raise ConfigurationError(
                f"entrypoint: {key}={value!r} does not begin with a parameter of {function.__qualname__}"
                f"({', '.join(signature.parameters)}); give a dotted path into its arguments or a callable",
                name=key,
                value=value,
                allowed=signature.parameters,
            )
    return lambda bound, args, kwargs: value


def _bound(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    bound = signature.bind(*args, **kwargs)  # a wrong call raises the TypeError that it would raise without us
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
    return arguments


# -- the four kinds of callable ---------------------------------------------------------------------------------------

Opened = Callable[[tuple[Any, ...], dict[str, Any]], _Run]


def _decorated(function: F, opened: Opened) -> F:
    if isinstance(function, staticmethod):
        return cast(F, staticmethod(_decorated(function.__func__, opened)))
    if isinstance(function, classmethod):
        return cast(F, classmethod(_decorated(function.__func__, opened)))
    if not callable(function):
        raise ConfigurationError(f"attribkit decorates callables, not {type(function).__name__}", value=function)
    drive: Callable[[Any, _Run], Any] | None = None
    if inspect.isasyncgenfunction(function):
        drive = _drive_async_generator
    elif inspect.isgeneratorfunction(function):
        drive = _drive_generator
    elif inspect.iscoroutinefunction(function):
        drive = _drive_coroutine
    if drive is not None:
        return cast(F, _Deferred(function, opened, drive))

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        run = opened(args, kwargs)
        run.enter()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            run.leave()
            run.end(error)
            raise
        run.leave()
        later = _DRIVES.get(type(result))
        if later is not None:  # a plain function that hands back work which has not begun
            return later(result, run)
        run.end()
        return result

    return cast(F, plain)


class _Deferred:
    """A decorated coroutine function, generator function or async generator function.

    Its body runs after the call, so the scope is taken at the call. For `inspect`, asyncio and the frameworks that ask
    them, it is the kind of function that it decorates: they look at the code object, which is the function's own.
    """

    def __init__(self, function: Callable[..., Any], opened: Opened, drive: Callable[[Any, _Run], Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._opened = opened
        self._drive = drive

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._drive(self._function(*args, **kwargs), self._opened(args, kwargs))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name == "_function":  # not set up yet: copy and pickle ask before __init__ has run
            raise AttributeError(name)
        return getattr(self._function, name)

    def __reduce__(self) -> str:
        return self._function.__qualname__

    def __repr__(self) -> str:
        return repr(self._function)


def _drive_generator(inner: Generator[Any, Any, Any], run: _Run) -> Generator[Any, Any, Any]:
    step: Callable[..., Any] = inner.send
    sent: tuple[Any, ...] = (None,)
    try:
        while True:
            run.enter()
            try:
                item = step(*sent)
            finally:
                run.leave()
            try:
                step, sent = inner.send, ((yield item),)
            except GeneratorExit:
                run.enter()
                try:
                    inner.close()
                finally:
                    run.leave()
                run.end()
                raise
            except BaseException as error:
                step, sent = inner.throw, (error,)
    except StopIteration as stop:
        run.end()
        return stop.value
    except BaseException as error:
        run.end(error if not isinstance(error, GeneratorExit) else None)
        raise


async def _drive_coroutine(inner: Coroutine[Any, Any, Any], run: _Run) -> Any:
    run.enter()
    try:
        result = await inner
    except BaseException as error:
        run.leave()
        run.end(error)
        raise
    run.leave()
    run.end()
    return result


async def _drive_async_generator(inner: AsyncGenerator[Any, Any], run: _Run) -> AsyncGenerator[Any, Any]:
    step: Callable[..., Any] = inner.asend
    sent: tuple[Any, ...] = (None,)
    try:
        while True:
            run.enter()
            try:
                item = await step(*sent)
            finally:
                run.leave()
            try:
                step, sent = inner.asend, ((yield item),)
            except GeneratorExit:
                run.enter()
                try:
                    await inner.aclose()
                finally:
                    run.leave()
                run.end()
                raise
            except BaseException as error:
                step, sent = inner.athrow, (error,)
    except StopAsyncIteration:
        run.end()
    except BaseException as error:
        run.end(error if not isinstance(error, GeneratorExit) else None)
        raise


_DRIVES: dict[type, Callable[[Any, _Run], Any]] = {
    types.CoroutineType: _drive_coroutine,
    types.GeneratorType: _drive_generator,
    types.AsyncGeneratorType: _drive_async_generator,
}


DRIVES = frozenset(id(drive.__code__) for drive in (_drive_coroutine, _drive_generator, _drive_async_generator))
"""The code of the frames that put a scope of their own in force for the body above them, by identity."""


def has_scope(run: object) -> bool:
    """Return whether a frame of `DRIVES` with this local `run` has its scope already, before its first step."""
    return isinstance(run, _Run) and run._scope is not None


def bound(work: Any, scope: Scope | None) -> Any:
    """Return `work`, a coroutine or a generator object of either kind, with `scope` in force around each step.

    None stands for what is in force at its first step. What the body itself puts in force stays with it either way,
    and never reaches whoever drives it. Anything else comes back as it is.
    """
    drive = _DRIVES.get(type(work))
    if drive is None:
        return work
    if _origins is not None and scope is not None:
        _origins.settled(work)
    return drive(work, _Run(scope))


@overload
def carry(work: Coroutine[Any, Any, R]) -> Coroutine[Any, Any, R]: ...
@overload
def carry(work: Callable[P, R]) -> Callable[P, R]: ...
def carry(work: Any) -> Any:
    """Bind what is in force now to `work`, which will run elsewhere: a callable of any kind, a coroutine object, a
    generator or an async generator object. Raises ConfigurationError for anything else."""
    here = _here()
    captured = Scope(here.attribution, "carried" if here.attribution else here.hop, since=here.since)
    if type(work) in _DRIVES:
        return bound(work, captured)
    if callable(work):
        if isinstance(work, functools.partial) or not hasattr(work, "__name__"):
            target = work.func if isinstance(work, functools.partial) else type(work).__call__
            kind = _decorated(target, lambda args, kwargs: _Run(captured))
            if isinstance(work, functools.partial):
                return functools.partial(kind, *work.args, **work.keywords)
            return functools.partial(kind, work)
        return _decorated(work, lambda args, kwargs: _Run(captured))
    raise ConfigurationError(
        f"carry() takes a callable, a coroutine or a generator, not {type(work).__name__}", value=work
    )


def well_known(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the well-known fields among a framework's own metadata, as text; `tier` is left to the app."""
    fields = {}
    for key in WELL_KNOWN:
        value = found.get(key)
        if value is not None and key != "tier" and isinstance(value, (str, int)) and not isinstance(value, bool):
            fields[key] = str(value)
    return fields
