"""Proxies of streams: they forward every item and close the operation exactly once.

A chunk costs little more than being handed on: what is needed of a stream is its first item, its latest one and their
number, and these stay in the proxy's own frame.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from attribkit import faults
from attribkit.calls import CallStatus, Reply
from attribkit.pipeline import Operation

__all__ = ["Items", "abandon_if_dropped", "watch", "watch_async"]


class Items(Protocol):
    """How one client's stream items are read."""

    def sift(self, operation: Operation) -> Callable[[Any], bool] | None:
        """Return what each item is shown to before it is handed on, None when that is nothing. It says True of an item
        that is not for the caller: one that holds nothing but the usage that we asked for."""

    def reply(self, first: Any, latest: Any, count: int) -> Reply:
        """Return the facts of a stream of which so much has been read."""


def _read(items: Items, first: Any, latest: Any, count: int) -> Reply:
    try:
        return items.reply(first, latest, count) if count else Reply()
    except Exception as fault:
        faults.note("stream.read", fault)
        return Reply(chunks=count)


def _seen_by(proxy: Any, items: Items, frame_of: Callable[[Any], Any]) -> Callable[[], Reply]:
    """Return a function that tells what `proxy` has forwarded so far; it does not keep the proxy alive."""
    reference = weakref.ref(proxy)

    def seen() -> Reply:
        proxy = reference()
        frame = frame_of(proxy) if proxy is not None else None
        local = frame.f_locals if frame is not None else {}
        return _read(items, local.get("first"), local.get("item"), local.get("count", 0))

    return seen


def abandon_if_dropped(stream: Any, operation: Operation) -> None:
    """Abandon `operation` when `stream` is let go before anything was read of it.

    A generator that never began to run is not told that it ends, and the connection, which nobody closes then, keeps
    the operation alive.
    """

    def dropped(reference: object) -> None:
        if operation.unread and not operation.closed:
            operation.abandon(Reply())

    operation.watched = weakref.ref(stream, dropped)


def watch(source: Iterator[Any], operation: Operation, items: Items) -> Iterator[Any]:
    """Forward `source`; finish `operation` when it ends, abandon it when nobody wants the rest."""
    proxy = _watch(source, operation, items)
    operation.streaming(_seen_by(proxy, items, lambda proxy: proxy.gi_frame))
    abandon_if_dropped(proxy, operation)
    return proxy


def _watch(source: Iterator[Any], operation: Operation, items: Items) -> Iterator[Any]:
    first = item = None
    count = 0
    hides = items.sift(operation)
    look = operation.first_look()
    try:
        for item in source:
            first, count = item, 1
            operation.first_chunk()
            if hides is None or not hides(item):
                yield item
            break
        if hides is None:
            for count, item in enumerate(source, 2):
                if count == look:
                    look = operation.looked(_read(items, first, item, count))
                yield item
        else:
            for count, item in enumerate(source, 2):
                if count == look:
                    look = operation.looked(_read(items, first, item, count))
                if not hides(item):
                    yield item
    except GeneratorExit:
        operation.abandon(_read(items, first, item, count))
        raise
    except BaseException as error:
        operation.abandon(_read(items, first, item, count), "error", type(error).__name__)
        raise
    operation.finish(_read(items, first, item, count))


def watch_async(source: AsyncIterator[Any], operation: Operation, items: Items) -> AsyncIterator[Any]:
    """The same for an async stream."""
    proxy = _watch_async(source, operation, items)
    operation.streaming(_seen_by(proxy, items, lambda proxy: proxy.ag_frame))
    abandon_if_dropped(proxy, operation)
    return proxy


async def _watch_async(source: AsyncIterator[Any], operation: Operation, items: Items) -> AsyncIterator[Any]:
    first = item = None
    count = 0
    hides = items.sift(operation)
    look = operation.first_look()
    try:
        async for item in source:
            if not count:
                first = item
                operation.first_chunk()
            count += 1
            if count == look:
                look = operation.looked(_read(items, first, item, count))
            if hides is None or not hides(item):
                yield item
    except GeneratorExit:
        operation.abandon(_read(items, first, item, count))  # `source` closes when it is let go, as it would without us
        raise
    except BaseException as error:
        status: CallStatus = "cancelled" if type(error).__name__ == "CancelledError" else "error"
        operation.abandon(_read(items, first, item, count), status, type(error).__name__)
        raise
    operation.finish(_read(items, first, item, count))
