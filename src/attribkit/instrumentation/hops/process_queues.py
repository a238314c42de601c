"""The queues and pipes of multiprocessing: an item brings the scope in which it was put to another process.

Each message carries the scope itself, so nothing is shared and it holds however a process was started. What a manager
serves keeps the scope beside the queue in the manager's process, where attribkit is turned on in it.
"""

from __future__ import annotations

import sys
from multiprocessing.process import current_process
from typing import Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.context import EMPTY, Scope
from attribkit.context import scope as in_variable
from attribkit.instrumentation.hops.frames import user_of
from attribkit.instrumentation.hops.parcels import Parcel, arrivals
from attribkit.instrumentation.hops.queues import notes
from attribkit.instrumentation.patching import Patch

__all__ = ["patches"]

_LIBRARY = ("multiprocessing.", "concurrent.")
_PUTS = ("put", "put_nowait")
_METHODS = (*_PUTS, "get", "get_nowait")
_QUEUES = ("Queue", "JoinableQueue")
_OF_APP = "_attribkit_pipe"


def _parcel(of: Any, item: object) -> object:
    """Return what is sent in the place of `item`: itself if it makes no claim."""
    try:
        scope = notes.claimed(of, item)
        return item if scope is None else Parcel(item, scope.attribution.fields)
    except Exception as fault:
        faults.note("queues.parcel", fault)
        return item


def _with_parcel(
    of: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = "obj"
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (_parcel(of, args[0]), *args[1:]), kwargs
    return args, {**kwargs, name: _parcel(of, kwargs[name])} if name in kwargs else kwargs


# -- queues -----------------------------------------------------------------------------------------------------------


def _put(wrapped: Any, of: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    told = "_on_queue_feeder_error"  # the hook that gets an item that cannot be pickled
    plain = getattr(sys.modules["multiprocessing.queues"].Queue, told, None)
    if getattr(type(of), told, plain) is plain:
        args, kwargs = _with_parcel(of, args, kwargs)
    return wrapped(*args, **kwargs)


def _get(wrapped: Any, of: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    here = in_variable()
    if here is not EMPTY:
        notes.note_attempt(of, False)
    with arrivals() as arrived:
        item = wrapped(*args, **kwargs)
    claim = None
    if arrived and arrived[-1][0] is item:
        claim = Scope(Attribution(arrived[-1][1]), "carried")
    notes.note_arrived(of, item, claim, here)
    return item


# -- pipes ------------------------------------------------------------------------------------------------------------


def _pipe(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    ends = wrapped(*args, **kwargs)
    for end in ends:
        setattr(end, _OF_APP, True)
    return ends


def _send(wrapped: Any, end: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if getattr(end, _OF_APP, False) and not user_of(sys._getframe(1))[0].startswith(_LIBRARY):
        args, kwargs = _with_parcel(end, args, kwargs)
    return wrapped(*args, **kwargs)


def _recv(wrapped: Any, end: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    module, function = user_of(sys._getframe(1))
    if not module.startswith(_LIBRARY):
        return _get(wrapped, end, args, kwargs)
    if function != "serve_client":
        return wrapped(*args, **kwargs)
    with arrivals() as arrived:
        request = wrapped(*args, **kwargs)
    notes.brought(arrived[-1] if arrived else None)
    return request


# -- a manager's queues -----------------------------------------------------------------------------------------------


def _call(wrapped: Any, proxy: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of the manager: what is put goes there in a parcel, and what is got comes in one."""
    method = args[0] if args else None
    if method not in _METHODS or proxy._token.typeid not in _QUEUES or len(args) < 2 or not _family(proxy):
        return wrapped(*args, **kwargs)
    if method in _PUTS:
        given, named = _with_parcel(proxy, args[1], args[2] if len(args) > 2 else {}, "item")
        return wrapped(method, given, named)
    return _get(wrapped, proxy, args, kwargs)


def _family(proxy: Any) -> bool:
    """Return whether the manager is a process of this program, which can read a parcel."""
    return getattr(proxy, "_authkey", None) == current_process().authkey


_WRAPPERS: dict[str, tuple[tuple[str, Any], ...]] = {
    "queues": (
        ("Queue.put", _put),
        ("Queue.get", _get),
        ("JoinableQueue.put", _put),
        ("SimpleQueue.put", _put),
        ("SimpleQueue.get", _get),
    ),
    "connection": (("Pipe", _pipe), ("_ConnectionBase.send", _send), ("_ConnectionBase.recv", _recv)),
    "managers": (("BaseProxy._callmethod", _call),),
}


def patches(module: str) -> tuple[Patch, ...]:
    """Return the rows of one module of multiprocessing: queues, connection or managers."""
    name = f"multiprocessing.{module}"
    return tuple(Patch(name, path, wrapper, "queues", "multiprocessing") for path, wrapper in _WRAPPERS[module])
