"""The dialects by name, and the hosted gateways by host. A new gateway is one file and one row here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from attribkit.gateways.base import Silent

__all__ = ["DIALECTS", "HOSTED", "dialect_class"]

DIALECTS: Mapping[str, str] = {
    "portkey": "Portkey",
    "litellm": "LiteLLM",
    "tierup": "TierUp",
    "helicone": "Helicone",
    "cloudflare": "Cloudflare",
    "openrouter": "OpenRouter",
    "vercel": "Vercel",
    "truefoundry": "TrueFoundry",
    "bedrock": "Bedrock",
    "vertex": "Vertex",
    "openai": "OpenAI",
    "anthropic": "Anthropic",
    "custom": "Custom",
}
"""Name of a dialect, which is also its module's -> the class in it. Only those in use are imported."""

HOSTED: tuple[tuple[str, str], ...] = (
    ("api.portkey.ai", "portkey"),
    ("api.tierup.ai", "tierup"),
    ("gateway.ai.cloudflare.com", "cloudflare"),
    ("openrouter.ai", "openrouter"),
    ("ai-gateway.vercel.sh", "vercel"),
    (".helicone.ai", "helicone"),
    (".truefoundry.ai", "truefoundry"),
    (".truefoundry.com", "truefoundry"),
    (".truefoundry.cloud", "truefoundry"),
)
"""Hosts of hosted gateways; a dot in front stands for every host under it. The providers' own hosts are not here: what
their dialects say goes to a provider only when the user names it."""


def dialect_class(name: str) -> type[Any]:
    """Return the class of a dialect in `DIALECTS`."""
    found: type[Silent] = getattr(importlib.import_module(f"attribkit.gateways.{name}"), DIALECTS[name])
    return found
