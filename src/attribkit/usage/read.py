"""The one way from a raw usage payload to a Usage: which dialect it is, and nothing raised whatever it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attribkit.late import Late
from attribkit.usage.dialects import openai
from attribkit.usage.model import NO_USAGE, Usage
from attribkit.usage.models import plain

__all__ = ["TEXT_METERS", "model_counts", "read_usage", "reads_text"]

if TYPE_CHECKING:
    from attribkit.usage.dialects import anthropic, bedrock, chat_servers, cohere, frameworks, gemini
else:  # an app meets one or two of them
    anthropic, bedrock, chat_servers, cohere, frameworks, gemini = (
        Late(f"{__package__}.dialects.{name}")
        for name in ("anthropic", "bedrock", "chat_servers", "cohere", "frameworks", "gemini")
    )

_Reader = Callable[[Mapping[str, Any]], Usage]

_from_chat: _Reader = openai.from_chat
_plain_chat = openai.plain_chat
model_counts = openai.model_counts
TEXT_METERS = frozenset(("input", "cache_read", "output"))
"""The meters of a usage that `model_counts` reads."""
_CHAT: dict[str, Callable[[], _Reader]] = {
    "xai": lambda: chat_servers.from_xai,
    "openrouter": lambda: chat_servers.from_openrouter,
    "perplexity": lambda: chat_servers.from_perplexity,
    "mistral": lambda: chat_servers.from_mistral,
    "gemini": lambda: chat_servers.from_gemini_chat,
    "vertex": lambda: chat_servers.from_gemini_chat,
}
_ANTHROPIC_ONLY = (
    "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "server_tool_use", "speed",
    "inference_geo",
)  # fmt: skip
_LANGCHAIN_DETAILS = frozenset(
    ("cache_read", "cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "audio", "reasoning")
)
_WRAPPERS = ("usage", "usageMetadata", "usage_metadata", "response", "message", "meta", "body", "usage_info",
             "amazon-bedrock-invocationMetrics")  # fmt: skip


def read_usage(payload: Any, *, provider: str, api: str | None = None) -> Usage:
    """Return what a reply says it consumed. Never raises: absent or impossible usage is `known=False` with problems.

    `payload` is a JSON object, or an SDK's pydantic model of one. `provider` and `api` are words of the price engine
    ("openai", "chat"); the shape of the payload decides where they leave it open. A whole reply is accepted too: its
    usage object is looked for, and its `model` is taken over.
    """
    try:
        if payload is None:
            return NO_USAGE
        if api == "chat" and provider not in _CHAT:
            text_alone = _plain_chat(payload)
            if text_alone is not None:
                return text_alone
        if type(payload) is not dict:
            payload = plain(payload)
            if not isinstance(payload, Mapping):
                return NO_USAGE._replace(problems=(f"usage is a {type(payload).__name__}, not an object",))
        if "prompt_tokens" in payload:
            usage = (_CHAT[provider]() if provider in _CHAT else _from_chat)(payload)
        else:
            reader = _reader_for(payload, provider, api)
            usage = _from_wrapper(payload, provider, api) if reader is None else reader(payload)
        if usage[0] or usage[8] is not None or not usage[2]:
            return usage
        return usage._replace(known=False, problems=("every token count is 0 or absent",))
    except Exception as error:  # a hostile Mapping must not reach the app
        return NO_USAGE._replace(problems=(f"usage cannot be read: {type(error).__name__}",))


def reads_text(provider: str, api: str) -> bool:
    """Return whether `model_counts` may read the usage of such calls."""
    return api == "chat" and provider not in _CHAT


def _reader_for(payload: Mapping[str, Any], provider: str, api: str | None) -> _Reader | None:
    if "prompt_tokens" in payload:
        return _CHAT[provider]() if provider in _CHAT else _from_chat
    if "input_tokens" in payload or "output_tokens" in payload:
        return _input_output_reader(payload, provider, api)
    if "promptTokenCount" in payload or "candidatesTokenCount" in payload or "totalTokenCount" in payload:
        return gemini.from_generate_content
    if "inputTokens" in payload or "outputTokens" in payload:
        return bedrock.from_converse
    if "completion_tokens" in payload or "prompt_cache_hit_tokens" in payload:
        return _CHAT[provider]() if provider in _CHAT else _from_chat
    return _rare_reader(payload, provider)


def _input_output_reader(payload: Mapping[str, Any], provider: str, api: str | None) -> _Reader:
    if api == "langchain":
        return frameworks.from_langchain
    if api == "images":
        return openai.from_images
    for key in _ANTHROPIC_ONLY:
        if key in payload:
            return anthropic.from_messages
    details = payload.get("input_token_details") or payload.get("output_token_details")
    if isinstance(details, Mapping) and not _LANGCHAIN_DETAILS.isdisjoint(details):
        return frameworks.from_langchain
    if provider == "anthropic" or api == "messages":
        return anthropic.from_messages
    if provider in ("xai", "openrouter", "perplexity"):
        return _CHAT[provider]()
    return openai.from_responses


def _rare_reader(payload: Mapping[str, Any], provider: str) -> _Reader | None:
    if "total_tokens" in payload:
        return openai.from_embeddings
    if "billed_units" in payload:
        return cohere.from_billed_units
    if "seconds" in payload:
        return openai.from_duration
    if "characters" in payload or "images" in payload or "video_seconds" in payload:
        return gemini.from_predictions if provider in ("gemini", "vertex") else openai.from_request
    if "prompt_token_count" in payload:
        return bedrock.from_llama if "generation_token_count" in payload else gemini.from_generate_content
    if "inputTokenCount" in payload:
        return bedrock.from_invocation_metrics
    if "inputTextTokenCount" in payload:
        return bedrock.from_titan
    if "pages_processed" in payload:
        return chat_servers.from_mistral
    if provider == "openrouter" and "cost" in payload:
        return chat_servers.from_openrouter
    for key in payload:
        if isinstance(key, str) and key.startswith("gen_ai."):
            return frameworks.from_otel
    return None


def _stated_tier(reply: Mapping[str, Any]) -> str | None:
    """Return the tier that a reply states beside its usage: OpenAI and Groq as text, Bedrock Converse in objects."""
    latency = reply.get("performanceConfig")
    if isinstance(latency, Mapping) and latency.get("latency") == "optimized":
        return "latency-optimized"
    tier = reply.get("service_tier") or reply.get("serviceTier")
    if isinstance(tier, Mapping):
        tier = tier.get("type")
    return tier if isinstance(tier, str) and 0 < len(tier) <= 64 else None


def _from_wrapper(payload: Mapping[str, Any], provider: str, api: str | None) -> Usage:
    """Look for the usage object inside a reply or a batch line; a few levels deep, so that no loop is endless."""
    model: str | None = None
    tier: str | None = None
    tools: Mapping[str, Any] = {}
    grounded: Mapping[str, Any] = {}
    for _ in range(4):
        stated = payload.get("model") or payload.get("modelVersion") or payload.get("model_version")
        if isinstance(stated, str) and stated:
            model = stated
        tier = _stated_tier(payload) or tier
        if isinstance(output := payload.get("output"), list):
            tools = openai.tool_calls(output, payload.get("tools"))
        if candidates := payload.get("candidates"):
            grounded = gemini.grounding(candidates)
        reader = _reader_for(payload, provider, api)
        if reader is not None:
            usage = reader(payload)
            if grounded and "grounding" not in payload:
                usage = gemini.with_grounding(usage, grounded)
            if tools and "server_side_tool_usage_details" not in payload:
                usage = openai.with_tools(usage, tools)
            return usage._replace(model=usage.model or model, tier=usage.tier or tier)
        inner = next((payload[key] for key in _WRAPPERS if isinstance(payload.get(key), Mapping)), None)
        if inner is None:
            break
        payload = inner
    return NO_USAGE if not payload else NO_USAGE._replace(problems=("no token count that is known",))
