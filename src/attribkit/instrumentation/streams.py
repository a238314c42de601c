"""Proxies of streams: they forward every item and close the operation exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

from attribkit import faults
from attribkit.calls import CallStatus, Reply
from attribkit.pipeline import Operation

__all__ = ["Reading", "watch", "watch_async"]


class Reading(Protocol):
    """What one client's stream items add up to."""

    def read(self, item: Any) -> bool:
        """Take one item in. True when it is nothing but the usage that we asked for."""

    def reply(self) -> Reply:
        """Return the facts read so far."""


def _taken(reading: Reading, item: Any) -> bool:
    try:
        return reading.read(item)
    except Exception as fault:
        faults.note("stream.read", fault)
        return False


def watch(items: Iterator[Any], operation: Operation, reading: Reading) -> Iterator[Any]:
    """Forward `items`; finish `operation` when they end, abandon it when nobody wants the rest."""
    operation.streaming(reading.reply)
    return _watch(items, operation, reading)


def _watch(items: Iterator[Any], operation: Operation, reading: Reading) -> Iterator[Any]:
    hides = operation.hides_usage_chunk
    fresh = True
    try:
        for item in items:
            only_usage = _taken(reading, item)
            if fresh:
                fresh = False
                operation.first_chunk()
            if not (only_usage and hides):
                yield item
    except GeneratorExit:
        operation.abandon(reading.reply())
        raise
    except BaseException as error:
        operation.abandon(reading.reply(), "error", type(error).__name__)
        raise
    operation.finish(reading.reply())


def watch_async(items: AsyncIterator[Any], operation: Operation, reading: Reading) -> AsyncIterator[Any]:
    """The same for an async stream."""
    operation.streaming(reading.reply)
    return _watch_async(items, operation, reading)


async def _watch_async(items: AsyncIterator[Any], operation: Operation, reading: Reading) -> AsyncIterator[Any]:
    hides = operation.hides_usage_chunk
    fresh = True
    try:
        async for item in items:
            only_usage = _taken(reading, item)
            if fresh:
                fresh = False
                operation.first_chunk()
            if not (only_usage and hides):
                yield item
    except GeneratorExit:
        operation.abandon(reading.reply())  # `items` closes when it is let go, as it would without us
        raise
    except BaseException as error:
        status: CallStatus = "cancelled" if type(error).__name__ == "CancelledError" else "error"
        operation.abandon(reading.reply(), status, type(error).__name__)
        raise
    operation.finish(reading.reply())
