"""A usage object as an SDK has parsed it, as the JSON that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

__all__ = ["plain"]

_SCALARS = frozenset((int, type(None), str, float, bool))
_KINDS_KEPT = 512
_inner: dict[type, tuple[str, ...]] = {}
_flat: set[type] = set()
"""Those of its classes that hold no models."""


def plain(value: Any) -> Any:
    """Return a parsed model as the JSON it came from: plain dicts, whatever the provider put there."""
    kind = type(value)
    inner = _inner.get(kind)
    if inner is None:
        inner = _inner_fields(kind)
        if inner is None:
            return value
    raw: dict[str, Any] = value.__dict__
    extra = value.__pydantic_extra__
    if extra:
        raw = {**raw, **extra}
    elif inner:
        raw = raw.copy()
    for name in inner:
        item = raw.get(name)
        if item is not None:
            raw[name] = item.__dict__ if type(item) in _flat and not item.__pydantic_extra__ else plain(item)
    return raw


def _inner_fields(kind: type) -> tuple[str, ...] | None:
    """Return the fields of a model class that can hold a model, None when it is no model class."""
    fields = getattr(kind, "model_fields", None)
    if not isinstance(fields, Mapping):
        return None
    inner = tuple(name for name, field in fields.items() if not _scalar(field.annotation))
    if len(_inner) < _KINDS_KEPT:
        _inner[kind] = inner
        if not inner:
            _flat.add(kind)
    return inner


def _scalar(annotation: Any) -> bool:
    parts = get_args(annotation)
    return all(_scalar(part) for part in parts) if parts else annotation in _SCALARS
