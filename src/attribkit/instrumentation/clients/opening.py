"""How a call of any SDK is begun and put in force, where that SDK has a choke point of its own."""

from __future__ import annotations

from types import TracebackType

from attribkit import context
from attribkit.calls import LLMCall
from attribkit.context import Scope, enter, leave
from attribkit.errors import AttributionRequired, BudgetExceeded
from attribkit.pipeline import Operation, Pipeline

__all__ = ["REFUSALS", "InForce", "begin", "status_of", "under_way"]


def begin(pipeline: Pipeline, call: LLMCall, *, wait: bool = True) -> Operation:
    """Return the operation of `call` for what is in force here. Raises AttributionRequired and BudgetExceeded.

    With `wait=False` nothing blocks: an operation that `waits` has to be `admitted()` before anything else.
    """
    here = context.in_force()
    return pipeline.begin(call, here.attribution, here.hop, wait, here.operation)


def under_way() -> Operation | None:
    """Return the model call inside which we are, of whichever SDK; None when there is none."""
    operation = context.scope().operation
    return operation if isinstance(operation, Operation) and not operation.closed else None


class InForce:
    """Puts an operation in force for the length of a block, so that what is below the SDK sees it; a block that raises
    fails the operation."""

    __slots__ = ("_operation", "_scope", "_token")

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        operation = self._operation
        self._scope = Scope(operation.attribution, operation.hop, operation)
        self._token = enter(self._scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self._token, self._scope)
        if error is not None:
            status = status_of(error)
            self._operation.fail(error, http_status=status)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an SDK's exception states, None when it states none."""
    if not isinstance(error, Exception):  # the code of a SystemExit is no HTTP status
        return None
    for name in ("status_code", "code", "http_status"):
        status = getattr(error, name, None)
        if type(status) is int and 100 <= status < 600:
            return status
    said = getattr(error, "response", None)
    if isinstance(said, dict):  # botocore's ClientError
        status = (said.get("ResponseMetadata") or {}).get("HTTPStatusCode")
    return status if type(status) is int else None


REFUSALS = (AttributionRequired, BudgetExceeded)
"""What may reach the caller of a model."""
