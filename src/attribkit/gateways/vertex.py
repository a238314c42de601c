"""Vertex AI: labels in a generateContent body, which Google's billing export shows.

Google's page on labels for API calls: 64 labels, 32 for partner models (so 32 here), keys of 1 to 63 and values of up
to 63 characters, lower-case letters, digits, `_` and `-`, keys starting with a letter. What is outside is folded
(capitals to small letters, accents off, the rest to `_`), and a folded value ends in `-` and 8 hex digits, so that it
stays apart.

A key may have at most 1,000 different values over the life of a billing account, and is dropped without notice after
that. So fields that are new for each run or user (workflow_id, session_id, user_id) are not sent; a route's `fields`
setting sends them all the same, and its `buckets` setting turns a field of many values, such as the tenants of a large
account, into one of a fixed number of buckets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import NOTHING, Silent
from attribkit.gateways.fitting import Entry, Pairs, digest, entries, opaque
from attribkit.gateways.service_tiers import asked

__all__ = ["Vertex"]

_NOT_IN_LABEL = re.compile("[^a-z0-9_-]")
_UNBOUNDED = frozenset({"workflow_id", "session_id", "user_id"})


def _folded(text: str) -> str:
    plain = text if text.isascii() else unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _NOT_IN_LABEL.sub("_", plain.lower())


def _label(text: str) -> str:
    folded = _folded(text)
    return folded if folded == text else f"{folded}-{digest(text)}"


def _key(text: str) -> str:
    folded = _folded(text)
    return folded if folded[:1].isalpha() else f"x{folded}"


_LABELS = Pairs(32, 63, 63, write_key=_key, write=_label)


class Vertex(Silent):
    name: ClassVar[str] = "vertex"
    body_apis: frozenset[str] = frozenset({"generateContent"})
    body_field: str | None = "labels"

    def __init__(
        self,
        *,
        order: tuple[str, ...] = (),
        tiers: Mapping[str, str] = NOTHING,
        buckets: Mapping[str, int] = NOTHING,
    ) -> None:
        super().__init__(order=order, tiers=tiers)
        self.named = frozenset(order)
        self.buckets = tuple(sorted(buckets.items()))

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if api not in self.body_apis or not attribution:
            return NOTHING
        ready, _ = _facts(attribution, self.order, self.named, self.buckets)
        labels, _ = _LABELS.merged(ready, body.get("labels"))
        return {"labels": labels} if labels is not None else NOTHING

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        ready, unbounded = _facts(attribution, self.order, self.named, self.buckets)
        return _LABELS.merged(ready, (body or NOTHING).get("labels"))[1] + unbounded

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return asked(self.tiers.get(tier, tier), api, body) if api in self.body_apis else NOTHING


@lru_cache(maxsize=1024)
def _facts(
    attribution: Attribution, order: tuple[str, ...], named: frozenset[str], buckets: tuple[tuple[str, int], ...]
) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Return what may be a label, and the fields that would use up their key's values."""
    sizes = dict(buckets)
    pairs: list[tuple[str, str]] = []
    unbounded: list[str] = []
    for key, value in entries(attribution, order):
        size = sizes.get(key)
        if size is not None:
            value = f"bucket-{int(opaque(value)[:12], 16) % size}"
        elif key in _UNBOUNDED and key not in named:
            unbounded.append(key)
            continue
        pairs.append((key, value))
    return _LABELS.ready(pairs), tuple(unbounded)
