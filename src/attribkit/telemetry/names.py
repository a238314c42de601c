"""Attribute names on spans and metrics: OpenTelemetry's GenAI names, attribkit's own, and how older ones are read.

The GenAI names are those of the semantic-conventions-genai repository, as opentelemetry-util-genai 1.3b0 writes them.
Those of cost are the open proposal semantic-conventions-genai#443: no release has any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribkit.attribution import WELL_KNOWN

__all__ = [
    "ALIASES",
    "FIELD_PREFIX",
    "INFERENCE_OPERATIONS",
    "PREVIOUS",
    "SCOPE",
    "attribute_of",
    "field_of",
    "fields_of",
    "operation_of",
    "read_aliases",
]

SCOPE = "attribkit"
"""The instrumentation scope of attribkit's own spans and metrics."""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
"""Seconds, as a double."""
INPUT_TOKENS = "gen_ai.usage.input_tokens"
"""All input, cached tokens included."""
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
"""All output, reasoning included."""
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"
WORKFLOW_NAME = "gen_ai.workflow.name"
TOKEN_TYPE = "gen_ai.token.type"
COST_AMOUNT = "gen_ai.usage.cost.amount"
COST_CURRENCY = "gen_ai.usage.cost.currency"
COST_SOURCE = "gen_ai.usage.cost.source"
"""`local` when attribkit priced the call, `provider` when the provider or gateway stated the amount."""
REQUEST_TIER = "openai.request.service_tier"
RESPONSE_TIER = "openai.response.service_tier"
SERVER_ADDRESS = "server.address"
HTTP_STATUS = "http.response.status_code"
ERROR_TYPE = "error.type"

COST_USD = "attribkit.cost.usd"
"""The exact cost as a decimal string; `gen_ai.usage.cost.amount` is a double."""
COST_STATUS = "attribkit.cost.status"
COST_REASON = "attribkit.cost.reason"
COST_STATED = "attribkit.cost.stated_usd"
PRICE_VERSION = "attribkit.price.version"
CALL_ID = "attribkit.call.id"
OPERATION_ID = "attribkit.call.operation_id"
CALL_STATUS = "attribkit.call.status"
CALL_HOP = "attribkit.call.hop"
CALL_ATTEMPTS = "attribkit.call.attempts"
CALL_COUNT = "attribkit.call.count"
"""On a span of another instrumentor that covers several of our calls: how many are summed on it."""
CALL_GATEWAY = "attribkit.call.gateway"
GATEWAY_REQUEST_ID = "attribkit.call.gateway_request_id"

FIELD_PREFIX = "attribkit."
_OWN_FACTS = ("attribkit.cost.", "attribkit.price.", "attribkit.call.")

ALIASES: Mapping[str, str] = {"tenant_id": "tenant.id", "user_id": "user.id", "session_id": "session.id"}
"""Field -> the general name it also stands under, where a span has not got that attribute yet."""

INFERENCE_OPERATIONS = frozenset({"chat", "text_completion", "embeddings", "generate_content"})
"""Values of `gen_ai.operation.name` on a span that is one model call, tokens included."""

OPERATIONS: Mapping[str, str] = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "converse": "chat",
    "invoke": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "generate_content": "generate_content",
    "generateContent": "generate_content",
    "predict": "generate_content",
    "images": "generate_content",
    "speech": "generate_content",
    "transcriptions": "generate_content",
    "translations": "generate_content",
}
"""`LLMCall.api` -> `gen_ai.operation.name`; an api that is not here stands for itself."""

PREVIOUS: Mapping[str, tuple[str, ...]] = {
    PROVIDER: ("gen_ai.system", "llm.provider", "llm.system"),
    REQUEST_MODEL: ("llm.request.model", "llm.model_name", "langfuse.observation.model.name", "embedding.model_name"),
    RESPONSE_MODEL: ("llm.response.model",),
    INPUT_TOKENS: ("gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens", "llm.token_count.prompt"),
    OUTPUT_TOKENS: ("gen_ai.usage.completion_tokens", "llm.usage.completion_tokens", "llm.token_count.completion"),
    CACHE_READ: (
        "gen_ai.usage.cache_read_input_tokens",
        "llm.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    CACHE_WRITE: (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    REASONING: (
        "gen_ai.usage.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    REQUEST_TIER: ("gen_ai.openai.request.service_tier",),
    RESPONSE_TIER: ("gen_ai.openai.response.service_tier",),
    COST_AMOUNT: ("gen_ai.usage.cost", "gen_ai.cost.total_cost", "llm.cost.total", "mlflow.llm.cost"),
    "gen_ai.conversation.id": ("session.id",),
    "gen_ai.tool.name": ("tool.name", "traceloop.entity.name"),
    WORKFLOW_NAME: ("traceloop.workflow.name",),
}
"""Current name -> what the same fact was, or is elsewhere, called: earlier releases of the conventions, Traceloop
(`llm.usage.*`), OpenInference (`llm.token_count.*`), Langfuse, LiteLLM, OpenLIT, MLflow. First come, first read."""

_OPENINFERENCE = {
    "LLM": "chat",
    "EMBEDDING": "embeddings",
    "TOOL": "execute_tool",
    "AGENT": "invoke_agent",
    "RETRIEVER": "retrieval",
    "CHAIN": "invoke_workflow",
}
_LANGFUSE = {
    "generation": "chat",
    "embedding": "embeddings",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "retriever": "retrieval",
    "chain": "invoke_workflow",
}
_TRACELOOP = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
_MLFLOW = {"CHAT_MODEL": "chat", "LLM": "chat", "EMBEDDING": "embeddings", "TOOL": "execute_tool"}
KINDS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("openinference.span.kind", _OPENINFERENCE),
    ("llm.request.type", _TRACELOOP),
    ("langfuse.observation.type", _LANGFUSE),
    ("mlflow.spanType", _MLFLOW),
)


def attribute_of(field: str) -> str:
    """Return the span attribute that carries an attribution field ("tenant_id" -> "attribkit.tenant_id")."""
    return FIELD_PREFIX + field


def field_of(attribute: str) -> str | None:
    """Return the attribution field that an attribute carries, None when it carries none."""
    if not attribute.startswith(FIELD_PREFIX) or attribute.startswith(_OWN_FACTS):
        return None
    return attribute[len(FIELD_PREFIX) :]


def fields_of(attributes: Mapping[str, Any], *, aliases: Mapping[str, str] = ALIASES) -> dict[str, str]:
    """Return the attribution fields that a span's attributes state; aliases are read where our own name is missing."""
    fields = {}
    for attribute, value in attributes.items():
        field = field_of(attribute)
        if field and isinstance(value, str) and value:
            fields[field] = value
    for field, alias in aliases.items():
        value = attributes.get(alias)
        if field not in fields and isinstance(value, str) and value:
            fields[field] = value
    return {name: fields[name] for name in (*WELL_KNOWN, *sorted(set(fields) - set(WELL_KNOWN))) if name in fields}


def operation_of(attributes: Mapping[str, Any]) -> str | None:
    """Return what a span is about in the words of `gen_ai.operation.name`, whoever wrote it; None when it does not say.

    Read are the conventions' own attribute and the kinds of OpenInference, Traceloop, Langfuse and MLflow.
    """
    operation = attributes.get(OPERATION)
    if isinstance(operation, str):
        return operation
    for attribute, kinds in KINDS:
        kind = attributes.get(attribute)
        if isinstance(kind, str):
            known = kinds.get(kind.strip('"'))
            if known is not None:
                return known
    return None


def read_aliases(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `attributes` with every fact that stands under a previous name also under its current one.

    A current name that is there stays as it is. Nothing is removed.
    """
    read = dict(attributes)
    for name, previous in PREVIOUS.items():
        if name not in read:
            for old in previous:
                if old in read:
                    read[name] = read[old]
                    break
    if OPERATION not in read:
        operation = operation_of(read)
        if operation is not None:
            read[OPERATION] = operation
    return read
