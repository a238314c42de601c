"""The words in which providers take a service tier, for targets that pass the body on to them.

Read in the request types of openai 3.54, anthropic 2.12, google-genai 3.4 and in botocore 1.44.5's model of
bedrock-runtime. A word that an API does not know is not sent: the provider would refuse the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribkit.gateways.base import NOTHING

__all__ = ["asked"]

_CHAT = {word: word for word in ("auto", "default", "flex", "scale", "priority", "fast")} | {"standard": "default"}
_WORDS: Mapping[str, Mapping[str, str]] = {
    "chat": _CHAT,
    "responses": _CHAT | {"ultrafast": "ultrafast"},
    # "auto" is how Anthropic is asked for priority capacity, where the account has any.
    "messages": {"auto": "auto", "standard_only": "standard_only", "standard": "standard_only", "priority": "auto"},
    "generateContent": {word: word for word in ("flex", "standard", "priority")} | {"default": "standard"},
}


def asked(tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `service_tier` in the words of `api`; {} when it has no such word or the user has set one."""
    words = _WORDS.get(api)
    word = words.get(tier) if words is not None else None
    if word is None or body.get("service_tier") is not None or body.get("serviceTier") is not None:
        return NOTHING
    return {"service_tier": word}
