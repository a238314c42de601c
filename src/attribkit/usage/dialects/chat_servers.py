"""Providers that answer in OpenAI's Chat Completions shape and mean something else by it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attribkit.usage.counts import amount, count, part
from attribkit.usage.dialects.openai import from_chat, from_responses
from attribkit.usage.model import Usage

__all__ = ["from_gemini_chat", "from_mistral", "from_openrouter", "from_perplexity", "from_xai"]

_TICKS_PER_USD = Decimal(10) ** 10


def from_xai(payload: Mapping[str, Any]) -> Usage:
    """Read xAI: chat completions leave reasoning tokens out of `completion_tokens` (`total_tokens` shows it)."""
    problems: list[str] = []
    if "prompt_tokens" in payload:
        usage = from_chat(payload)
        reasoning = usage.reasoning_tokens
        if reasoning and usage.known:
            prompt = count(payload, "prompt_tokens", problems)
            completion = count(payload, "completion_tokens", problems)
            total = count(payload, "total_tokens", problems)
            inside = total == prompt + completion and completion >= reasoning
            if not inside:
                usage = usage._replace(meters=_with_more_output(usage.meters, reasoning))
    else:
        usage = from_responses(payload)
    if "num_sources_used" in payload:
        sources = count(payload, "num_sources_used", problems)
        if sources:
            usage = usage._replace(meters=(*usage.meters, ("live_search_source", sources)))
    ticks = amount(payload, "cost_in_usd_ticks", problems)
    if ticks is not None:
        usage = usage._replace(stated_usd=ticks / _TICKS_PER_USD)
    return usage


def from_gemini_chat(payload: Mapping[str, Any]) -> Usage:
    """Read Gemini's OpenAI-compatible endpoint, whose `completion_tokens` leave thoughts out: `total_tokens` has them,
    and they are billed as output."""
    usage = from_chat(payload)
    problems: list[str] = []
    counted = count(payload, "prompt_tokens", problems) + count(payload, "completion_tokens", problems)
    thoughts = count(payload, "total_tokens", problems) - counted
    if thoughts > 0 and usage.known and not problems and count(payload, "completion_tokens", problems):
        reasoning = max(usage.reasoning_tokens, thoughts)
        usage = usage._replace(meters=_with_more_output(usage.meters, thoughts), reasoning_tokens=reasoning)
    return usage


def from_openrouter(payload: Mapping[str, Any]) -> Usage:
    """Read OpenRouter: `cost` is what the account was charged, in USD credits. With the user's own provider key
    (`is_byok`) it is OpenRouter's fee alone, and the upstream cost comes on top."""
    usage = from_chat(payload) if "prompt_tokens" in payload else from_responses(payload)
    problems: list[str] = []
    stated = amount(payload, "cost", problems)
    if stated is None:
        return usage
    if payload.get("is_byok") is True:
        details = part(payload, "cost_details", problems)
        upstream = amount(details, "upstream_inference_cost", problems) if details is not None else None
        if upstream is None:
            return usage._replace(estimated="list price: the upstream cost of a call with an own key is not stated")
        stated += upstream
    return usage._replace(stated_usd=stated)


def from_perplexity(payload: Mapping[str, Any]) -> Usage:
    """Read Perplexity: one request fee by search context size on top of the tokens.

    Deep research bills citation tokens, search queries and reasoning tokens apart; reasoning is then outside
    `completion_tokens`.
    """
    usage = from_chat(payload) if "prompt_tokens" in payload else from_responses(payload)
    problems: list[str] = []
    meters = usage.meters
    citations = count(payload, "citation_tokens", problems)
    queries = count(payload, "num_search_queries", problems)
    apart = count(payload, "reasoning_tokens", problems)
    if citations:
        meters += (("citation_input", citations),)
    if apart:
        meters += (("reasoning_apart", apart),)
    if queries:
        meters += (("search_queries", queries),)
    size = payload.get("search_context_size")
    if size in ("low", "medium", "high"):
        meters += ((f"requests_{size}", 1),)
    stated = None
    cost = payload.get("cost")
    if isinstance(cost, Mapping):
        stated = amount(cost, "total_cost", problems)
    return usage._replace(
        meters=meters,
        stated_usd=stated,
        known=usage.known and not problems,
        problems=(*usage.problems, *problems),
    )


def from_mistral(payload: Mapping[str, Any]) -> Usage:
    """Read Mistral: chat as OpenAI's, OCR by pages, audio prompts by seconds."""
    problems: list[str] = []
    if "pages_processed" in payload:
        pages = count(payload, "pages_processed", problems)
        return Usage((("pages", pages),) if pages else (), 0, not problems, tuple(problems))
    usage = from_chat(payload)
    seconds = payload.get("prompt_audio_seconds")
    if type(seconds) is int and seconds > 0:
        usage = usage._replace(meters=(*usage.meters, ("seconds", seconds)))
    return usage


def _with_more_output(
    meters: tuple[tuple[str, int | Decimal], ...], more: int
) -> tuple[tuple[str, int | Decimal], ...]:
    grown = tuple((name, quantity + more) if name == "output" else (name, quantity) for name, quantity in meters)
    return grown if grown != meters else (*meters, ("output", more))
