"""Cohere's meta: billed units are charged, token counts are for information."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribkit.usage.counts import Meters, count, part, usage_of
from attribkit.usage.model import NO_USAGE, Usage

__all__ = ["from_billed_units"]


def from_billed_units(payload: Mapping[str, Any]) -> Usage:
    """Read `meta` of a Cohere reply: tokens, search units (rerank), images and classifications."""
    problems: list[str] = []
    units = part(payload, "billed_units", problems) or part(payload, "tokens", problems)
    if units is None:
        return NO_USAGE._replace(problems=tuple(problems))
    meters: Meters = []
    pictures = ("image_tokens", "image_input") if units.get("image_tokens") else ("images", "images")
    for key, meter in (
        ("input_tokens", "input"),
        pictures,  # Embed 4 bills the tokens of an image, Embed 3 the image
        ("output_tokens", "output"),
        ("search_units", "search_units"),
        ("classifications", "classifications"),
    ):
        quantity = count(units, key, problems)
        if quantity:
            meters.append((meter, quantity))
    return usage_of(meters, problems)
