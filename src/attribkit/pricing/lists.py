"""Open price lists in the catalog's own terms: LiteLLM's model_prices JSON, and tables of contract prices as CSV.

An offer is one model of one seller with its dated rows. Facts carry over, code does not.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from attribkit.errors import PriceDataError
from attribkit.pricing.meters import unit_of

__all__ = [
    "MILLION",
    "Card",
    "Offer",
    "Row",
    "amount",
    "both_groundings",
    "contract_rows",
    "is_litellm",
    "litellm_catalog",
    "litellm_offers",
    "text",
]

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
_SIZE = re.compile(r"(\d+|max)-x-(\d+|max)/")
"""A size without a quality, or in steps of sampling: no name of a model."""


def litellm_offers(prices: Mapping[str, Any] | Path) -> Iterator[Offer]:
    """Yield the offers of LiteLLM's model_prices_and_context_window.json, read or to be read."""
    for key, entry in (json.loads(prices.read_text()) if isinstance(prices, Path) else prices).items():
        if not isinstance(entry, dict):
            continue
        provider = str(entry.get("litellm_provider") or "")
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
        if model is None or _SIZE.match(model):
            continue
        offer = Offer(seller, model, [row], entry.get("source") or "https://github.com/BerriAI/litellm", region=region)
        yield offer


def _litellm_name(key: str, provider: str, seller: str) -> tuple[str | None, str | None]:
    region = None
    parts = key.split("/")
    if seller == "perplexity" and parts[:2] == ["perplexity", "perplexity"]:
        return key, None  # the Agent API's own model: without the prefix it has the name of another product
    if parts[0] in (provider, seller, "azure", "bedrock", "vertex_ai", "bedrock_mantle") and len(parts) > 1:
        parts = parts[1:]
    if seller == "azure" and parts[0] in ("eu", "us", "apac", "global", "global-standard", "us-gov"):
        word = parts.pop(0)
        region = {"eu": "datazone-eu", "us": "datazone-us", "apac": "datazone-apac", "us-gov": "usgov"}.get(word)
    if seller == "bedrock":
        while len(parts) > 1:
            word = parts.pop(0)
            if word.count("-") >= 2 and word[0].isalpha() and word[-1].isdigit():
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


def is_litellm(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is LiteLLM's price list."""
    return "format" not in data and any(
        isinstance(entry, dict) and "litellm_provider" in entry for entry in data.values()
    )


def litellm_catalog(data: Mapping[str, Any], *, built: str) -> dict[str, Any]:
    """Return LiteLLM's list as a catalog in one file. It says no dates: its rows hold for all time."""
    sellers: dict[str, Any] = {}
    for offer in litellm_offers(data):
        if offer.region is not None:
            continue
        models = sellers.setdefault(offer.seller, {"models": {}})["models"]
        rows = [{"source": f"{offer.source} (by litellm)", "checked": built, **row} for row in offer.rows]
        for row in rows:
            both_groundings(row["standard"])
        models.setdefault(offer.model, {"rows": rows})
    if not sellers:
        raise PriceDataError("LiteLLM's list has no model with a price")
    return {"format": 1, "version": f"{built.replace('-', '.')}-litellm", "built": built, "sellers": sellers}


def both_groundings(fees: Card) -> None:
    """Complete the price of Google's grounding, which a list says once: up to Gemini 2.5 it is by the prompt (35 USD
    for a thousand), later by the query."""
    price = fees.get("grounding")
    if price and "grounded_prompts" not in fees:
        fees |= {"grounding": "0", "grounded_prompts": price} if price == "35" else {"grounded_prompts": "0"}


def contract_rows(path: Path) -> dict[str, Any]:
    """Return the rows of a CSV as price overrides: columns seller, model and any meter, in the catalog's units; from,
    until and tier where there are such columns. Raises PriceDataError that names the line and the column."""
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.DictReader(file), 2):
            row: dict[str, Any] = {}
            for column, value in line.items():
                column = (column or "").strip().lower()
                if not isinstance(value, str) or not value.strip():
                    continue
                if unit_of(column):
                    try:
                        row[column] = str(Decimal(value.strip().lstrip("$")))
                    except InvalidOperation:
                        raise PriceDataError(f"{path}: line {number}: {column} = {value!r} is not an amount") from None
                elif column in ("seller", "model", "from", "until", "tier", "note"):
                    row[column] = value.strip()
                else:
                    raise PriceDataError(f"{path}: line {number}: {column!r} is no column of prices")
            rows.append(row)
    if not rows:
        raise PriceDataError(f"{path}: has no row of prices under a line of columns: seller, model, input, output, ...")
    return {"price": rows}
