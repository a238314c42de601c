"""The one order of a call, and one call in it."""

from attribkit.pipeline.operation import Attempt, Operation, Target
from attribkit.pipeline.order import Pipeline

__all__ = ["Attempt", "Operation", "Pipeline", "Target"]
