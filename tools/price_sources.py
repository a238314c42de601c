"""Readers of the open price lists: each turns one list into offers in the catalog's own terms.

Facts carry over, code does not: the lists are genai-prices' data and model-prices' snapshot (both MIT), read from their
unpacked wheels; the reader of LiteLLM's list is part of the package (attribkit.pricing.lists).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from attribkit.pricing.lists import Card, Offer, Row, text

# genai-prices -------------------------------------------------------------------------------------------------------

SELLERS_OF_GENAI = {
    "google": "gemini", "aws": "bedrock", "x-ai": "xai", "voyageai": "voyage", "moonshotai": "moonshot",
    "zhipuai": "bigmodel", "ovhcloud": "ovhcloud",
}  # fmt: skip
SKIPPED_OF_GENAI = {"github-copilot", "openai-decisions", "cursor"}
_METER_OF_GENAI = {
    "input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m", "cache_write_5m_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h", "input_audio_mtok": "audio_input", "output_audio_mtok": "audio_output",
    "cache_audio_read_mtok": "audio_cache_read", "input_image_mtok": "image_input",
    "output_image_mtok": "image_output", "cache_image_read_mtok": "image_cache_read",
    "input_video_mtok": "video_input", "output_video_mtok": "video_output", "web_searches_kcount": "web_search",
    "storage_searches_kcount": "file_search", "requests_kcount": "requests", "input_mchars": "characters",
    "audio_hours": "seconds", "input_audio_hours": "seconds", "input_document_kpages": "pages",
    "output_reasoning_mtok": "reasoning_apart", "output_citation_mtok": "citation_input",
}  # fmt: skip
_TIER_OF_GENAI = {
    ("processing", "batch"): "batch", ("service_tier", "flex"): "flex", ("service_tier", "priority"): "priority",
    ("service_tier", "fast"): "fast", ("speed", "fast"): "fast",
}  # fmt: skip


def genai_offers(directory: Path) -> Iterator[Offer]:
    """Yield the offers of the genai_prices package unpacked in `directory`."""
    sys.path.insert(0, str(directory))
    from genai_prices.data import providers
    from genai_prices.types import ClauseEquals, ClauseOr, ClauseStartsWith, StartDateConstraint, TimeOfDateConstraint

    for provider in providers:
        if provider.id in SKIPPED_OF_GENAI or provider.id.startswith("huggingface"):
            continue
        seller = SELLERS_OF_GENAI.get(provider.id, provider.id)
        for model in provider.models:
            if seller == "openai" and model.id.startswith("gpt-oss"):
                continue  # open weights that OpenAI itself does not sell: a router's price
            fees_of = "anthropic" if "claude" in model.id else seller
            if not isinstance(model.prices, list):
                dated = [(None, model.prices)]
            elif any(isinstance(p.constraint, TimeOfDateConstraint) for p in model.prices):
                continue  # hours and days together are beyond that format: rows kept by hand have them
            else:
                dated = [
                    (
                        p.constraint.start_date.isoformat() if isinstance(p.constraint, StartDateConstraint) else None,
                        p.prices,
                    )
                    for p in model.prices
                ]
            rows = []
            for start, prices in dated:
                row = _genai_row(prices, fees_of)
                if row is not None:
                    rows.append({"from": start, **row} if start else row)
            if not rows:
                continue
            for variant in model.price_variants or ():
                tier = _TIER_OF_GENAI.get(next(iter(variant.when.items())))
                if tier:
                    start = getattr(variant.constraint, "start_date", None)
                    day = start.isoformat() if start else "9999"
                    row = [row for row in rows if row.get("from", "") <= day][-1]
                    _add_variant(row, tier, variant.prices, fees_of)
            name = model.id.removeprefix("regional.")
            names: set[str] = set()
            clauses = model.match.or_ if isinstance(model.match, ClauseOr) else [model.match]
            for clause in clauses:
                if isinstance(clause, ClauseEquals):
                    names.add(clause.equals)
                elif isinstance(clause, ClauseStartsWith):
                    names.add(clause.starts_with.rstrip("@-:"))
            yield Offer(
                seller,
                name,
                rows,
                (provider.pricing_urls or ["https://github.com/pydantic/genai-prices"])[0],
                names,
                model.match.is_match if seller != "bedrock" else None,
            )


def _genai_row(prices: Any, seller: str) -> Row | None:
    base, steps = _genai_card(prices, seller)
    if not base:
        return None
    row: Row = {"standard": base}
    if steps:
        row["steps"] = [{"over": over, "standard": {**base, **card}} for over, card in sorted(steps.items())]
    return row


def _genai_card(prices: Any, seller: str) -> tuple[Card, dict[int, Card]]:
    base: Card = {}
    steps: dict[int, Card] = {}
    for key, value in vars(prices).items():
        meter = _METER_OF_GENAI.get(key)
        if meter == "web_search" and seller == "gemini":
            meter = "grounding"
        if meter is None or value is None:
            continue
        if meter == "reasoning_apart" and seller != "perplexity":
            continue
        if hasattr(value, "base"):
            base[meter] = text(value.base)
            for tier in value.tiers:
                steps.setdefault(tier.start, {})[meter] = text(tier.price)
        elif value or meter.startswith("cache_write"):
            base[meter] = text(Decimal(value))
    shift = 1 if seller == "xai" else 0
    return {m: p for m, p in base.items() if p != "0" or m.startswith("cache_write")}, {
        (over if over % 1000 else over - shift): card for over, card in steps.items()
    }


def _add_variant(row: Row, tier: str, prices: Any, seller: str) -> None:
    """A variant states what differs; what it leaves out keeps the standard price, as the list defines it."""
    base, steps = _genai_card(prices, seller)
    if not base:
        return
    standard = row["standard"]
    row[tier] = {**{m: p for m, p in standard.items() if m not in ("web_search", "file_search")}, **base}
    by_step = {step["over"]: step for step in row.get("steps", ())}
    for over, card in steps.items():
        step = by_step.get(over)
        if step is not None:
            left_out = {m: p for m, p in step["standard"].items() if m in row[tier] and m not in base}
            step[tier] = {**row[tier], **left_out, **card}


# model-prices (models.dev history) ----------------------------------------------------------------------------------

SELLERS_OF_MODEL_PRICES = {
    "google": "gemini", "amazon-bedrock": "bedrock", "moonshotai": "moonshot", "stepfun-ai": "stepfun",
    "tencent-tokenhub": "tencent",
}  # fmt: skip
_METER_OF_MODEL_PRICES = {
    "input": "input", "output": "output", "cache_read": "cache_read", "cache_write": "cache_write_5m",
}  # fmt: skip


def model_prices_offers(path: Path) -> Iterator[Offer]:
    """Yield the offers of model_prices/snapshot.json with their history."""
    data = json.loads(path.read_text())
    for provider, models in data["prices"].items():
        seller = SELLERS_OF_MODEL_PRICES.get(provider, provider)
        if seller in ("cognition", "cursor"):
            continue
        for model, timelines in models.items():
            rows: list[Row] = []
            for entry in timelines.get("standard", ()):
                rates = entry.get("rates")
                if not rates:
                    continue
                row = _model_prices_row(rates)
                if row is None:
                    continue
                start = entry["start"] or rates["valid_from"]
                row = {"from": _day(start), **row}
                for mode, tier in (("batch", "batch"), ("flex", "flex"), ("priority", "priority")):
                    card = _mode_at(timelines.get(mode, ()), start)
                    if card:
                        row[tier] = card
                if seller == "anthropic" and (card := _mode_at(timelines.get("fast", ()), start)):
                    row["fast"] = card
                if rows and rows[-1]["from"] == row["from"]:
                    rows.pop()
                rows.append(row)
            rows = _changes_only(rows)
            if len(rows) > 1 and rows[0]["from"] >= rows[1]["from"]:
                del rows[0]["from"]  # the list learned of the model after a change it knows from elsewhere
            if rows:
                if seller == "xai":  # the step starts at the threshold itself
                    for step in (step for row in rows for step in row.get("steps", ())):
                        step["over"] -= 1
                name = model.removeprefix("thinkingmachines/").removeprefix("poolside/")
                yield Offer(seller, name, rows, "https://github.com/wakamex/model-prices")


def _day(stamp: str) -> str:
    return stamp[:10]


def _mode_at(timeline: Any, start: str) -> Card | None:
    found = None
    for entry in timeline:
        if entry["start"] is None or entry["start"] <= start:
            found = entry.get("rates")
    return _model_prices_card(found) if found else None


def _model_prices_card(rates: dict[str, Any]) -> Card:
    card = {}
    for key, meter in _METER_OF_MODEL_PRICES.items():
        value = rates.get(key)
        if value or (value == 0 and meter == "cache_write_5m" and rates.get("input")):
            card[meter] = text(Decimal(repr(value)))
    if card.get("cache_write_5m") == "0":
        del card["cache_write_5m"]
    multiple = rates.get("cache_write_1h_multiple")
    if multiple and "cache_write_5m" in card and "input" in card:
        card["cache_write_1h"] = text(Decimal(card["input"]) * Decimal(repr(multiple)))
    return card


def _model_prices_row(rates: dict[str, Any]) -> Row | None:
    card = _model_prices_card(rates)
    if not card.get("input"):
        return None
    row: Row = {"standard": card}
    steps = [
        {"over": tier["above"], "standard": {**card, **_model_prices_card({**tier})}} for tier in rates.get("tiers", ())
    ]
    if steps:
        row["steps"] = steps
    return row


def _moved(before: str, after: str) -> bool:
    """Return whether a price changed by more than a keeper's rounding (0.13 for 0.125)."""
    return abs(Decimal(before) - Decimal(after)) > Decimal(after) / 20


def _changes_only(rows: list[Row]) -> list[Row]:
    """Drop rows that repeat the price before; a meter that the list learned later holds for the earlier row too."""
    kept: list[Row] = []
    for row in rows:
        if kept:
            last = kept[-1]
            same = all(last["standard"].get(m) == row["standard"].get(m) for m in ("input", "output"))
            cache_moved = (
                "cache_read" in last["standard"]
                and "cache_read" in row["standard"]
                and _moved(last["standard"]["cache_read"], row["standard"]["cache_read"])
            )
            if same and not cache_moved:
                kept[-1] = {**row, "from": last["from"]}
                continue
        kept.append(row)
    return kept
