"""What the numbers in price data mean: the unit each meter is priced in, and which price stands in for
a missing one."""

from __future__ import annotations

from decimal import Context, Decimal

__all__ = ["FEES", "PRICES", "STANDS_IN", "UNITS", "unit_of", "unit_price"]

PRICES = Context(prec=60)
"""Products of counts and prices stay exact here, whatever the application has done to its own decimal context."""

UNITS: dict[str, int] = {
    "input": 1_000_000,
    "cache_read": 1_000_000,
    "cache_write_5m": 1_000_000,
    "cache_write_1h": 1_000_000,
    "audio_input": 1_000_000,
    "audio_cache_read": 1_000_000,
    "image_input": 1_000_000,
    "image_cache_read": 1_000_000,
    "video_input": 1_000_000,
    "citation_input": 1_000_000,
    "output": 1_000_000,
    "audio_output": 1_000_000,
    "image_output": 1_000_000,
    "video_output": 1_000_000,
    "reasoning_apart": 1_000_000,
    "characters": 1_000_000,
    "characters_output": 1_000_000,
    "pixels": 1_000_000,
    "seconds": 3_600,
    "seconds_output": 3_600,
    "images": 1,
    "images_output": 1,
    "videos_seconds": 1,
    "code_session": 1,
    "pages": 1_000,
    "requests": 1_000,
    "requests_low": 1_000,
    "requests_medium": 1_000,
    "requests_high": 1_000,
    "search_queries": 1_000,
    "search_units": 1_000,
    "classifications": 1_000,
    "web_search": 1_000,
    "web_search_preview": 1_000,
    "x_search": 1_000,
    "file_search": 1_000,
    "code_execution": 1_000,
    "grounding": 1_000,
    "grounded_prompts": 1_000,
    "maps_grounding": 1_000,
    "live_search_source": 1_000,
}
"""A price in the data is USD for this many: a million tokens, an hour, a thousand searches, one image. A meter can
carry what its price depends on after a colon: "images_output:hd/1024x1792" is counted in units of "images_output"."""

FEES = frozenset(
    (
        "web_search", "web_search_preview", "x_search", "file_search", "code_execution", "code_session", "grounding",
        "grounded_prompts", "maps_grounding",
        "requests_low", "requests_medium", "requests_high", "search_queries", "live_search_source",
    )
)  # fmt: skip
"""Meters that no tier, step or region changes."""

STANDS_IN: dict[str, tuple[str, ...]] = {
    "cache_read": ("input",),
    "cache_write_5m": ("input",),
    "cache_write_1h": ("cache_write_5m", "input"),
    "audio_input": ("input",),
    "audio_cache_read": ("audio_input", "cache_read", "input"),
    "image_input": ("input",),
    "image_cache_read": ("image_input", "cache_read", "input"),
    "video_input": ("image_input", "input"),
    "citation_input": ("input",),
    "audio_output": ("output",),
    "image_output": ("output",),
    "video_output": ("output",),
    "reasoning_apart": ("output",),
}
"""A card that has no price for a token meter means that these tokens cost what the first listed ones do: without a
cache price cached tokens are ordinary input, without an audio price audio tokens are ordinary tokens."""


def unit_of(meter: str) -> int | None:
    """Return how many of a meter one price in the data is for, None when there is no such meter."""
    return UNITS.get(meter.partition(":")[0])


def unit_price(meter: str, text: str) -> Decimal:
    """Return the price of one unit from the text in the data."""
    return PRICES.divide(Decimal(text), Decimal(UNITS[meter.partition(":")[0]]))
