"""Amazon Bedrock's token counts: Converse, the InvokeModel invocation metrics, Titan and Llama replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribkit.usage.counts import Meters, count, usage_of
from attribkit.usage.model import Usage

__all__ = ["from_converse", "from_invocation_metrics", "from_llama", "from_titan"]


def from_converse(payload: Mapping[str, Any]) -> Usage:
    """Read a Converse usage object, whose `inputTokens` leaves cache reads and writes out.

    `cacheDetails` splits the writes by lifetime; without it they are 5-minute writes.
    """
    problems: list[str] = []
    meters: Meters = []
    tokens = count(payload, "inputTokens", problems)
    if tokens:
        meters.append(("input", tokens))
    tokens = count(payload, "cacheReadInputTokens", problems) or count(payload, "cacheReadInputTokenCount", problems)
    if tokens:
        meters.append(("cache_read", tokens))
    written = count(payload, "cacheWriteInputTokens", problems) or count(payload, "cacheWriteInputTokenCount", problems)
    if written:
        long = 0
        details = payload.get("cacheDetails")
        if isinstance(details, list | tuple):
            for row in details:
                if isinstance(row, Mapping) and row.get("ttl") == "1h":
                    long += count(row, "inputTokens", problems)
        if long > written:
            problems.append(f"1-hour cache writes are more than the {written} writes")
            long = written
        if written - long:
            meters.append(("cache_write_5m", written - long))
        if long:
            meters.append(("cache_write_1h", long))
    tokens = count(payload, "outputTokens", problems)
    if tokens:
        meters.append(("output", tokens))
    return usage_of(meters, problems)


def from_invocation_metrics(payload: Mapping[str, Any]) -> Usage:
    """Read `amazon-bedrock-invocationMetrics` of a stream, or the X-Amzn-Bedrock counts as a mapping."""
    return from_converse(
        {
            "inputTokens": payload.get("inputTokenCount"),
            "outputTokens": payload.get("outputTokenCount"),
            "cacheReadInputTokens": payload.get("cacheReadInputTokenCount"),
            "cacheWriteInputTokens": payload.get("cacheWriteInputTokenCount"),
        }
    )


def from_llama(payload: Mapping[str, Any]) -> Usage:
    """Read a Llama InvokeModel reply."""
    return from_converse(
        {"inputTokens": payload.get("prompt_token_count"), "outputTokens": payload.get("generation_token_count")}
    )


def from_titan(payload: Mapping[str, Any]) -> Usage:
    """Read a Titan InvokeModel reply, text or embedding."""
    problems: list[str] = []
    written = 0
    results = payload.get("results")
    if isinstance(results, list | tuple):
        for row in results:
            if isinstance(row, Mapping):
                written += count(row, "tokenCount", problems)
    written += count(payload, "totalOutputTextTokenCount", problems)
    read = count(payload, "inputTextTokenCount", problems)
    meters: Meters = [("input", read)] if read else []
    if written:
        meters.append(("output", written))
    return usage_of(meters, problems)
