"""Amazon Bedrock: `requestMetadata` in a Converse body, the same as a header for InvokeModel.

Read in botocore 1.44.5's model of bedrock-runtime: 1 to 16 entries, keys of 1 to 256 and values of up to 256
characters, both only letters, digits, white space and `: _ @ $ # = / + , - .`; the header is JSON of at most 8,500
characters. What is outside is written as in quoted-printable: `=` and two hex digits for each byte of UTF-8, and `=`
itself as `=3D`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from string import ascii_letters, digits
from typing import Any, ClassVar

from attribkit.attribution import Attribution
from attribkit.gateways.base import NOTHING, Headers, Silent
from attribkit.gateways.fitting import Entry, Pairs, entries, in_json, text_writer

__all__ = ["Bedrock"]

_write = text_writer(sign="=", allowed=f"{ascii_letters}{digits} :_@$#/+,-.")
_METADATA = Pairs(16, 256, 256, write_key=_write, write=_write)
_TIERS = {"priority": "priority", "default": "default", "standard": "default", "flex": "flex", "reserved": "reserved"}


class Bedrock(Silent):
    name: ClassVar[str] = "bedrock"
    request_id_header: ClassVar[str | None] = "x-amzn-requestid"
    body_apis: frozenset[str] = frozenset({"converse"})
    body_field: str | None = "requestMetadata"

    def headers(self, attribution: Attribution) -> Headers:
        entries_, _ = _METADATA.merged(_ready(attribution, self.order))
        said: Headers = ()
        if entries_:
            text = ",".join(f"{in_json(key)}:{in_json(value)}" for key, value in entries_.items())
            said = (("x-amzn-bedrock-request-metadata", "{" + text + "}"),)
        tier = attribution.get("tier")
        word = _TIERS.get(self.tiers.get(tier, tier)) if tier is not None else None
        return (*said, ("x-amzn-bedrock-service-tier", word)) if word is not None else said

    def left_out(self, attribution: Attribution, body: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        return _METADATA.merged(_ready(attribution, self.order), (body or NOTHING).get("requestMetadata"))[1]

    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if api not in self.body_apis or not attribution:
            return NOTHING
        metadata, _ = _METADATA.merged(_ready(attribution, self.order), body.get("requestMetadata"))
        return {"requestMetadata": metadata} if metadata is not None else NOTHING

    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        word = _TIERS.get(self.tiers.get(tier, tier))
        if word is None or api not in self.body_apis or body.get("serviceTier") is not None:
            return NOTHING
        return {"serviceTier": {"type": word}}


@lru_cache(maxsize=1024)
def _ready(attribution: Attribution, order: tuple[str, ...]) -> tuple[Entry, ...]:
    return _METADATA.ready(entries(attribution, order))
