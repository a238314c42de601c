"""Anthropic's Messages usage, direct, on Vertex, on Bedrock's InvokeModel and on Azure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attribkit.usage.counts import Meters, count, part, text_of
from attribkit.usage.model import Usage

__all__ = ["from_messages"]


def from_messages(payload: Mapping[str, Any]) -> Usage:
    """Read a Messages usage object, whose input count leaves cache reads and cache writes out.

    Thinking tokens are inside `output_tokens`. `cache_creation_input_tokens` is the sum of the 5-minute and 1-hour
    writes in `cache_creation`; without that split all of it is 5-minute writes, the default lifetime. Where the server
    asked a model several times, `iterations` has all that is billed: the totals leave compaction and the advisor out,
    and the input of later rounds (platform.claude.com/docs/en/build-with-claude/compaction).
    """
    problems: list[str] = []
    meters = _tokens(payload, problems)
    reasoning = 0
    details = payload.get("output_tokens_details")
    if details:
        details = part(payload, "output_tokens_details", problems)
        if details is not None:
            reasoning = count(details, "thinking_tokens", problems)
    searches = 0
    tools = payload.get("server_tool_use")
    if tools:
        tools = part(payload, "server_tool_use", problems)
        if tools is not None:
            searches = count(tools, "web_search_requests", problems)
    tier = payload.get("service_tier")
    if tier is not None:
        tier = text_of(payload, "service_tier")
    region = payload.get("inference_geo")
    if region is not None:
        region = text_of(payload, "inference_geo")
        if region == "not_available":  # models from before inference_geo
            region = None
    speed = payload.get("speed")
    if speed is not None:
        speed = text_of(payload, "speed")
    rounds: tuple[Usage, ...] = ()
    if payload.get("iterations"):
        rounds = _rounds(payload["iterations"], problems, Usage(tier=tier, region=region, speed=speed))
    if rounds:
        made = sum(one.output_tokens for one in rounds)
        if made < count(payload, "output_tokens", problems):
            problems.append(f"the iterations have {made} output tokens, fewer than the reply")
        meters = _together(rounds)
        rounds = tuple(one for one in rounds if one.meters) if len(rounds) > 1 or rounds[0].model else ()
    if searches:
        meters.append(("web_search", searches))
        if rounds:
            rounds = (rounds[0]._replace(meters=(*rounds[0].meters, ("web_search", searches))), *rounds[1:])
    return Usage(tuple(meters), reasoning, not problems, tuple(problems), None, tier, region, speed, None, None, rounds)


def _tokens(payload: Mapping[str, Any], problems: list[str]) -> Meters:
    meters: Meters = []
    tokens = count(payload, "input_tokens", problems)
    if tokens:
        meters.append(("input", tokens))
    tokens = count(payload, "cache_read_input_tokens", problems)
    if tokens:
        meters.append(("cache_read", tokens))
    written = count(payload, "cache_creation_input_tokens", problems)
    by_lifetime = part(payload, "cache_creation", problems)
    if by_lifetime is not None:
        short = count(by_lifetime, "ephemeral_5m_input_tokens", problems)
        long = count(by_lifetime, "ephemeral_1h_input_tokens", problems)
        if written and short + long > written:
            problems.append(f"cache writes by lifetime are more than their total of {written}")
        elif short + long < written:
            short = written - long
        if short:
            meters.append(("cache_write_5m", short))
        if long:
            meters.append(("cache_write_1h", long))
    elif written:
        meters.append(("cache_write_5m", written))
    tokens = count(payload, "output_tokens", problems)
    if tokens:
        meters.append(("output", tokens))
    return meters


def _rounds(iterations: Any, problems: list[str], plain: Usage) -> tuple[Usage, ...]:
    """Read each time that a model was asked. `plain` says what holds for the model of the call."""
    if not isinstance(iterations, list | tuple):
        problems.append(f"iterations is a {type(iterations).__name__}, not a list")
        return ()
    rounds = []
    for entry in iterations:
        if not isinstance(entry, Mapping):
            problems.append(f"iterations holds a {type(entry).__name__}")
            continue
        meters, model = tuple(_tokens(entry, problems)), text_of(entry, "model")
        speed = None if entry.get("type") == "advisor_message" else plain.speed
        rounds.append(plain._replace(meters=meters, model=model, speed=speed))
    return tuple(rounds)


def _together(rounds: tuple[Usage, ...]) -> Meters:
    total: dict[str, int | Decimal] = {}
    for one in rounds:
        for meter, quantity in one.meters:
            total[meter] = total.get(meter, 0) + quantity
    return list(total.items())
