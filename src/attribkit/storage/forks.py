"""Who has to let go of something before the process forks: threads first, then the connections that they use."""

from __future__ import annotations

import os
import weakref
from functools import cache
from typing import Literal, Protocol

__all__ = ["ForkAware", "let_go_at_fork"]


class ForkAware(Protocol):
    """Something that a child must not share with its parent."""

    def before_fork(self) -> None:
        """Stop, close, and take the locks that the child must find in order. Must not wait for long, nor raise."""

    def after_fork_in_parent(self) -> None:
        """Give the locks back."""

    def after_fork_in_child(self) -> None:
        """Forget what is the parent's and start anew."""


_threads: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_connections: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_stopped: list[ForkAware] = []


def let_go_at_fork(what: ForkAware, kind: Literal["thread", "connection"]) -> None:
    """Call `what` around every fork of this process for as long as it lives."""
    (_threads if kind == "thread" else _connections).add(what)
    _register()


@cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before() -> None:
    for what in (*_threads, *_connections):
        _stopped.append(what)
        what.before_fork()


def _in_parent() -> None:
    while _stopped:
        _stopped.pop().after_fork_in_parent()


def _in_child() -> None:
    while _stopped:
        _stopped.pop().after_fork_in_child()
