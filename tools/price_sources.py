"""Readers of the open price lists: each turns one list into offers in the catalog's own terms.

An offer is one model of one seller with its dated rows. Facts carry over, code does not: the lists are LiteLLM's
model_prices JSON, genai-prices' data and model-prices' snapshot (all MIT), read from their unpacked wheels.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

Card = dict[str, str]
Row = dict[str, Any]
MILLION = Decimal(1_000_000)


@dataclass
class Offer:
    """What one list says of one model."""

    seller: str
    model: str
    rows: list[Row]
    source: str
    names: set[str] = field(default_factory=set)
    matches: Callable[[str], bool] | None = None
    """Whether a foreign name means this model, for lists that say so by pattern."""
    region: str | None = None
    checked: str | None = None
    """The day the list itself read the seller's page, when it says so."""


def text(value: Decimal) -> str:
    """Return a price as plain text, without the noise of a binary float."""
    value = value.normalize()
    digits = len(value.as_tuple().digits)
    if digits > 12:
        value = round(value, 12 - value.adjusted() - 1).normalize()
    return format(value, "f")


def amount(value: float | int | str, per: Decimal) -> str:
    return text(Decimal(repr(value) if isinstance(value, float) else str(value)) * per)


# LiteLLM ------------------------------------------------------------------------------------------------------------

SELLERS_OF_LITELLM = {
    "text-completion-openai": "openai", "azure_ai": "azure", "azure_text": "azure", "bedrock_converse": "bedrock",
    "bedrock_mantle": "bedrock", "cohere_chat": "cohere", "together_ai": "together", "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks", "codestral": "mistral", "text-completion-codestral": "mistral",
    "dashscope": "alibaba", "meta_llama": "meta", "lambda_ai": "lambda", "nvidia_nim": "nvidia", "jina_ai": "jina",
    "vercel_ai_gateway": "vercel", "text-completion-inception": "inception", "xiaomi_mimo": "xiaomi",
    "amazon_nova": "nova", "featherless_ai": "featherless", "clf_ai_gateway": "cloudflare_gateway",
}  # fmt: skip
SKIPPED_OF_LITELLM = {
    "one of https://docs.litellm.ai/docs/providers", "github_copilot", "chatgpt", "ollama", "lemonade",
    "dataforseo", "exa_ai", "firecrawl", "searxng", "serper", "tavily", "linkup", "parallel_ai", "google_pse",
    "you_com", "duckduckgo", "tinyfish", "nimble", "bing_grounding", "agentcore", "apiserpent", "openrouter",
    "strands_decider", "microsoft_365_copilot", "eu_jev", "sagemaker", "transcribe", "aws_polly", "reducto",
}  # fmt: skip
"""Not sellers of model calls by usage: search tools, subscriptions, local servers, stubs."""

_METER_OF_LITELLM: dict[str, tuple[str, Decimal]] = {
    "input_cost_per_token": ("input", MILLION),
    "output_cost_per_token": ("output", MILLION),
    "cache_read_input_token_cost": ("cache_read", MILLION),
    "input_cost_per_token_cache_hit": ("cache_read", MILLION),
    "cache_creation_input_token_cost": ("cache_write_5m", MILLION),
    "cache_creation_input_token_cost_above_1hr": ("cache_write_1h", MILLION),
    "cache_creation_input_token_cost_above_12hr": ("cache_write_1h", MILLION),
    "input_cost_per_audio_token": ("audio_input", MILLION),
    "output_cost_per_audio_token": ("audio_output", MILLION),
    "cache_read_input_audio_token_cost": ("audio_cache_read", MILLION),
    "input_cost_per_image_token": ("image_input", MILLION),
    "output_cost_per_image_token": ("image_output", MILLION),
    "cache_read_input_image_token_cost": ("image_cache_read", MILLION),
    "input_cost_per_video_token": ("video_input", MILLION),
    "output_cost_per_video_token": ("video_output", MILLION),
    "input_cost_per_character": ("characters", MILLION),
    "output_cost_per_character": ("characters_output", MILLION),
    "input_cost_per_second": ("seconds", Decimal(3600)),
    "output_cost_per_second": ("seconds_output", Decimal(3600)),
    "input_cost_per_image": ("images", Decimal(1)),
    "output_cost_per_image": ("images_output", Decimal(1)),
    "output_cost_per_video_per_second": ("videos_seconds", Decimal(1)),
    "input_cost_per_query": ("search_units", Decimal(1000)),
    "ocr_cost_per_page": ("pages", Decimal(1000)),
    "input_cost_per_request": ("requests", Decimal(1000)),
    "file_search_cost_per_1k_calls": ("file_search", Decimal(1)),
    "code_interpreter_cost_per_session": ("code_session", Decimal(1)),
    "google_maps_grounding_cost_per_query": ("maps_grounding", Decimal(1000)),
    "citation_cost_per_token": ("citation_input", MILLION),
}
_TIER_OF_LITELLM = {"batches": "batch"}
_TIERS = ("batches", "flex", "priority", "balanced", "ultrafast", "decisions")
_STEP = re.compile(r"_above_(\d+)k_tokens")
_IMAGE = re.compile(r"(?P<quality>low|medium|high|standard|hd)/(?P<size>\d+-x-\d+)/(?P<model>.+)")
"""What LiteLLM writes before an image model: its price for one image of this quality and size."""


def litellm_offers(path: Path) -> Iterator[Offer]:
    """Yield the offers of model_prices_and_context_window_backup.json."""
    for key, entry in json.loads(path.read_text()).items():
        provider = entry.get("litellm_provider")
        if not provider or provider in SKIPPED_OF_LITELLM or "commitment" in key:
            continue
        seller = "vertex" if provider.startswith("vertex_ai") else SELLERS_OF_LITELLM.get(provider, provider)
        row = _litellm_row(entry, seller)
        if row is None:
            continue
        model, region = _litellm_name(key, provider, seller)
        if model is not None and (image := _IMAGE.fullmatch(model)):
            quality, size, model = image["quality"], image["size"].replace("-", ""), image["model"]
            price = row["standard"].get("images") or row["standard"].get("images_output")
            if price is None or (quality == "standard" and "gpt-image" in model):
                continue
            row = {"standard": {f"images_output:{quality}/{size}": price}}
        if model is None or "x-" in model.partition("/")[0]:
            continue
        offer = Offer(seller, model, [row], entry.get("source") or "https://github.com/BerriAI/litellm", region=region)
        yield offer


def _litellm_name(key: str, provider: str, seller: str) -> tuple[str | None, str | None]:
    region = None
    parts = key.split("/")
    if parts[0] in (provider, seller, "azure", "bedrock", "vertex_ai", "bedrock_mantle") and len(parts) > 1:
        parts = parts[1:]
    if seller == "azure" and parts[0] in ("eu", "us", "apac", "global", "global-standard", "us-gov"):
        word = parts.pop(0)
        region = {"eu": "datazone-eu", "us": "datazone-us", "apac": "datazone-apac", "us-gov": "usgov"}.get(word)
    if seller == "bedrock":
        while len(parts) > 1:
            word = parts.pop(0)
            if word.count("-") >= 2 and word[-1].isdigit():
                region = word
    if seller == "azure" and parts[0] == "speech":
        parts = parts[1:]
    model = "/".join(parts)
    if seller == "azure" and "container" in model:
        return None, None
    return model.lower() if seller in ("azure", "bedrock", "openai", "anthropic", "gemini", "vertex") else model, region


def _litellm_row(entry: dict[str, Any], seller: str) -> Row | None:
    cards: dict[str, Card] = {}
    steps: dict[int, dict[str, Card]] = {}
    for field_name, value in entry.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or "cost" not in field_name:
            continue
        name, tier, over = field_name, "standard", None
        for word in _TIERS:
            if name.endswith("_" + word):
                name, tier = name.removesuffix("_" + word), _TIER_OF_LITELLM.get(word, word)
        if step := _STEP.search(name):
            name, over = name.replace(step.group(0), ""), int(step.group(1)) * 1000
        if name == "output_cost_per_reasoning_token" and seller == "perplexity":
            meter, per = "reasoning_apart", MILLION
        elif name in _METER_OF_LITELLM:
            meter, per = _METER_OF_LITELLM[name]
        else:
            continue
        if not value and not meter.startswith("cache_write"):
            continue  # an open list writes 0 for "not known" as well as for free
        card = (cards if over is None else steps.setdefault(over, {})).setdefault(tier, {})
        card[meter] = amount(value, per)
    for tier in entry.get("tiered_pricing") or ():
        _litellm_tier(tier, cards, steps)
    _litellm_fees(entry, seller, cards)
    if not any(cards.get("standard", {}).get(meter) for meter in cards.get("standard", {})):
        return None
    row: Row = dict(cards)
    if steps:
        shift = 1 if seller == "xai" else 0  # xAI's step starts at the threshold itself
        row["steps"] = [{"over": over - shift, **steps[over]} for over in sorted(steps)]
    uplift = {}
    for region in ("eu", "us"):
        if factor := entry.get(f"regional_processing_uplift_multiplier_{region}"):
            uplift[region] = text(Decimal(repr(factor)))
    if factor := entry.get("regional_endpoint_uplift_multiplier"):
        uplift["*"] = text(Decimal(repr(factor)))
    if seller == "anthropic" and (factor := (entry.get("provider_specific_entry") or {}).get("us")):
        uplift["us"] = text(Decimal(repr(factor)))
    if uplift:
        row["uplift"] = uplift
    return row


def _litellm_tier(tier: dict[str, Any], cards: dict[str, Card], steps: dict[int, dict[str, Card]]) -> None:
    """A step of Alibaba's and others' `tiered_pricing`, whose range is in tokens."""
    card: Card = {}
    for field_name, value in tier.items():
        if field_name in _METER_OF_LITELLM and isinstance(value, int | float) and value:
            meter, per = _METER_OF_LITELLM[field_name]
            card[meter] = amount(value, per)
    first = tier.get("range", [0])[0]
    if not card or "input" not in card:
        return
    if not first:
        cards.setdefault("standard", {}).update(card)
    else:
        steps.setdefault(int(first), {})["standard"] = card


def _litellm_fees(entry: dict[str, Any], seller: str, cards: dict[str, Card]) -> None:
    by_size = entry.get("search_context_cost_per_query")
    if not isinstance(by_size, dict) or "standard" not in cards:
        return
    for size in ("low", "medium", "high"):
        value = by_size.get(f"search_context_size_{size}")
        if not value:
            continue
        if seller == "perplexity":
            cards["standard"][f"requests_{size}"] = amount(value, Decimal(1000))
        elif size == "medium":
            meter = "grounding" if seller in ("gemini", "vertex") else "web_search"
            cards["standard"][meter] = amount(value, Decimal(1000))


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
                row = _genai_row(prices, seller)
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
                    _add_variant(row, tier, variant.prices, seller)
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
            step[tier] = {**row[tier], **card}


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
                and last["standard"]["cache_read"] != row["standard"]["cache_read"]
            )
            if same and not cache_moved:
                kept[-1] = {**row, "from": last["from"]}
                continue
        kept.append(row)
    return kept
