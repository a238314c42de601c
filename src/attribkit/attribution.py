"""Who a model call is for: a frozen value of string fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

__all__ = ["MAX_FIELDS", "MAX_KEY", "MAX_VALUE", "WELL_KNOWN", "Attribution", "shortened"]

WELL_KNOWN = (
    "tenant_id",
    "workflow",
    "workflow_id",
    "feature",
    "environment",
    "team",
    "cost_center",
    "user_id",
    "session_id",
    "agent",
    "tier",
)
"""Fields with a meaning of their own. Any other key is a free dimension."""

MAX_FIELDS = 64
MAX_KEY = 64
MAX_VALUE = 1024

_NOT_A_KEY = re.compile(r"[^A-Za-z0-9_.\-]")


def shortened(text: str, limit: int) -> str:
    """Return `text` in at most `limit` characters: what is too long ends in `~` and 8 hex digits of its SHA-256.

    So a cut value stays apart from other values with the same beginning, and is the same wherever it is cut to
    the same limit.
    """
    if len(text) <= limit:
        return text
    from hashlib import sha256  # 3.6 MB of OpenSSL, which an import alone does not need

    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{text[: max(0, limit - 9)]}~{digest}"[:limit]


def _key(key: object) -> str:
    return shortened(_NOT_A_KEY.sub("_", str(key)), MAX_KEY)


class Attribution:
    """Who a model call is for. Immutable and hashable; equal values are interchangeable.

    Fields are strings, sorted by key. Every well-known field can be read as an attribute (`attribution.tenant_id`),
    any field with `get()`; one that is not set is None. Values that are None or empty are left out; other types
    become text; a value over 1,024 characters is shortened (`shortened`), a character that no key can have becomes
    an underscore, and fields beyond the 64th are left out. Nothing here raises: it runs on the app's request path.
    """

    __slots__ = ("_hash", "fields")
    fields: tuple[tuple[str, str], ...]
    _hash: int

    tenant_id: str | None
    workflow: str | None
    workflow_id: str | None
    feature: str | None
    environment: str | None
    team: str | None
    cost_center: str | None
    user_id: str | None
    session_id: str | None
    agent: str | None
    tier: str | None

    def __init__(self, fields: tuple[tuple[str, str], ...] = ()) -> None:
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "_hash", hash(fields))

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Attribution:
        """Return the attribution that holds `fields`, cleaned and bounded as the class says."""
        return cls().merged(fields)

    def merged(self, changes: Mapping[str, object]) -> Attribution:
        """Return a copy in which `changes` win over what was set further out; None and "" change nothing."""
        fields = dict(self.fields)
        for key, value in changes.items():
            if value is None:
                continue
            text = value if type(value) is str else str(getattr(value, "value", value))
            if not text:
                continue
            if type(key) is not str or len(key) > MAX_KEY or not key.isidentifier() or not key.isascii():
                key = _key(key)
            fields[key] = text if len(text) <= MAX_VALUE else shortened(text, MAX_VALUE)
        if len(fields) > MAX_FIELDS:
            kept = sorted(fields, key=lambda name: name not in WELL_KNOWN)[:MAX_FIELDS]
            fields = {key: fields[key] for key in kept}
        return Attribution(tuple(sorted(fields.items())))

    def without(self, *keys: str) -> Attribution:
        """Return a copy that lacks `keys`."""
        return Attribution(tuple(pair for pair in self.fields if pair[0] not in keys))

    def pseudonymised(self, keys: frozenset[str], secret: bytes, *, key_id: str = "") -> Attribution:
        """Return a copy in which the values of `keys` are keyed pseudonyms (HMAC-SHA-256, 128 bits, in hex).

        The same value under the same secret gives the same pseudonym. `key_id` stands in front of it, so that
        pseudonyms of two secrets can be told apart while one replaces the other.
        """
        import hmac

        prefix = f"{key_id}." if key_id else ""
        return Attribution(
            tuple(
                (key, prefix + hmac.digest(secret, value.encode("utf-8", "surrogatepass"), "sha256").hex()[:32])
                if key in keys
                else (key, value)
                for key, value in self.fields
            )
        )

    def get(self, key: str, default: str | None = None) -> str | None:
        """Return the value of `key`, or `default`."""
        for name, value in self.fields:
            if name == key:
                return value
        return default

    def as_dict(self) -> dict[str, str]:
        """Return the fields as a new dict."""
        return dict(self.fields)

    def __getattr__(self, name: str) -> str | None:
        if name in WELL_KNOWN:
            return self.get(name)
        raise AttributeError(f"'Attribution' has no attribute {name!r}; a free dimension is read with get({name!r})")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Attribution cannot be changed; make another with merged()")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an Attribution cannot be changed; make another with without()")

    def __reduce__(self) -> tuple[type[Attribution], tuple[tuple[tuple[str, str], ...]]]:
        return Attribution, (self.fields,)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Attribution) and self.fields == other.fields)

    def __hash__(self) -> int:
        return self._hash

    def __bool__(self) -> bool:
        return bool(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.fields)

    def __repr__(self) -> str:
        return f"Attribution({', '.join(f'{key}={value!r}' for key, value in self.fields)})"
