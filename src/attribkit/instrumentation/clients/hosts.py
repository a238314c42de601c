"""Which provider answers at a URL: known hosts only; behind a gateway the model's name decides."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["provider_at"]

_HOSTS = (
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure"),
    ("services.ai.azure.com", "azure"),
    ("cognitiveservices.azure.com", "azure"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("aiplatform.googleapis.com", "vertex"),
    ("openrouter.ai", "openrouter"),
    ("api.mistral.ai", "mistral"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "xai"),
    ("api.groq.com", "groq"),
    ("api.together.xyz", "together"),
    ("api.together.ai", "together"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.moonshot.ai", "moonshot"),
    ("api.moonshot.cn", "moonshot"),
    ("api.z.ai", "zai"),
    ("api.voyageai.com", "voyage"),
    ("amazonaws.com", "bedrock"),
)


def provider_at(url: str) -> str:
    """Return the provider, in the price engine's words, that serves `url`; "" when the host does not tell."""
    host = urlsplit(url).hostname or ""
    for suffix, provider in _HOSTS:
        if host == suffix or host.endswith("." + suffix) or (provider == "vertex" and host.endswith("-" + suffix)):
            return provider
    return ""
