"""What is known now of queues and their items: nothing until the first is put or asked for in a scope."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

from attribkit.instrumentation.patching import Standby

__all__ = ["OF_ITEM", "beside", "creating", "lasting", "lent", "serving", "term", "thread"]

OF_ITEM = object()
"""The opener of a scope that an item brought."""
beside: dict[int, Any] = {}
"""The `claims.Beside` of each queue, by its identity."""
lasting: WeakSet[Any] = WeakSet()
"""The scopes of items (`consumers.Given`) that anybody still has in force."""
lent: WeakSet[Any] = WeakSet()
"""Those that are `lent` beside any queue."""
term = [object()]
"""Another one after each `uninstrument()`: what items brought before is over."""
serving: list[None] = []
"""Not empty in a process that is a manager."""
thread = threading.local()
creating = Standby()
"""Has the tasks seen that are created while an item is in force."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=creating.forked)
