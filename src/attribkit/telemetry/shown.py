"""What a span of the SDK's shape shows of itself, whoever started it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["attributes_of", "scope_of"]

_NOTHING: Mapping[str, Any] = {}


def scope_of(span: Any) -> str:
    """Return the name of the instrumentation scope that started `span`, "" when it does not say."""
    try:
        name = span.instrumentation_scope.name
    except AttributeError:
        return ""
    return name if type(name) is str else ""


def attributes_of(span: Any) -> Mapping[str, Any]:
    """Return a span's attributes as they are now, empty when it does not show them."""
    attributes = getattr(span, "attributes", None)
    if attributes is None:
        return _NOTHING
    try:
        copied = attributes.copy()  # in one step; `get` and `in` of the SDK's own mapping are Python
        return copied if type(copied) is dict else dict(attributes)
    except Exception:
        return dict(attributes)
