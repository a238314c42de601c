"""Counts out of foreign JSON, and the split of a total into parts that do not overlap."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attribkit.usage.model import Usage

__all__ = ["MOST", "Meters", "amount", "count", "part", "split_input", "split_output", "text_of", "usage_of"]

MOST = 10**12
"""No reply holds more tokens than this; a greater count is a fault of the sender."""

Meters = list[tuple[str, int | Decimal]]


def count(payload: Mapping[str, Any], key: str, problems: list[str]) -> int:
    """Return a count, 0 when it is absent. What cannot be a count becomes a problem and counts 0."""
    value = payload.get(key)
    if value is None:
        return 0
    if type(value) is int and 0 <= value <= MOST:
        return value
    if type(value) is float and 0 <= value <= MOST and value.is_integer():
        return int(value)  # protobuf's JSON writes whole numbers as floats
    problems.append(f"{key} is {_shown(value)}, not a count")
    return 0


def amount(payload: Mapping[str, Any], key: str, problems: list[str]) -> Decimal | None:
    """Return a quantity or a sum of money that may have decimals (seconds, USD); None when absent or impossible."""
    value = payload.get(key)
    if value is None:
        return None
    if type(value) is int and 0 <= value <= MOST:
        return Decimal(value)
    if type(value) is float and 0 <= value <= MOST:
        return Decimal(repr(value))
    problems.append(f"{key} is {_shown(value)}, not an amount")
    return None


def part(payload: Mapping[str, Any], key: str, problems: list[str]) -> Mapping[str, Any] | None:
    """Return what an inner object says that is not 0, None when that is nothing; another type is a problem."""
    value = payload.get(key)
    if not value:
        return None
    if type(value) is dict or isinstance(value, Mapping):
        return {name: said for name, said in value.items() if said} or None
    problems.append(f"{key} is {_shown(value)}, not an object")
    return None


def split_input(
    total: int,
    *,
    problems: list[str],
    cached: int = 0,
    written: int = 0,
    written_1h: int = 0,
    audio: int = 0,
    image: int = 0,
    video: int = 0,
    cached_audio: int = 0,
    cached_image: int = 0,
) -> Meters:
    """Return the meters of an input total that includes every part named here.

    `written` is all cache writes, of which `written_1h` are the long-lived ones. Where a provider states cached and
    audio tokens without saying how many are both, they are taken to overlap only as far as they must.
    """
    cached_text = cached - cached_audio - cached_image
    text = total - cached_text - written - audio - image - video
    if text < 0 and cached_text >= -text and audio >= -text and not cached_audio:
        cached_audio = -text
        cached_text -= cached_audio
        text = 0
    written_5m = written - written_1h
    audio -= cached_audio
    image -= cached_image
    if text < 0 or cached_text < 0 or audio < 0 or image < 0 or written_5m < 0:
        problems.append(f"the parts of the input are more than its total of {total}")
        return []
    meters: Meters = []
    if text:
        meters.append(("input", text))
    if cached_text:
        meters.append(("cache_read", cached_text))
    if written_5m:
        meters.append(("cache_write_5m", written_5m))
    if written_1h:
        meters.append(("cache_write_1h", written_1h))
    if audio:
        meters.append(("audio_input", audio))
    if cached_audio:
        meters.append(("audio_cache_read", cached_audio))
    if image:
        meters.append(("image_input", image))
    if cached_image:
        meters.append(("image_cache_read", cached_image))
    if video:
        meters.append(("video_input", video))
    return meters


def split_output(total: int, *, problems: list[str], audio: int = 0, image: int = 0, video: int = 0) -> Meters:
    """Return the meters of an output total that includes audio, image and video tokens."""
    text = total - audio - image - video
    if text < 0:
        problems.append(f"the parts of the output are more than its total of {total}")
        return []
    meters: Meters = []
    if text:
        meters.append(("output", text))
    if audio:
        meters.append(("audio_output", audio))
    if image:
        meters.append(("image_output", image))
    if video:
        meters.append(("video_output", video))
    return meters


def usage_of(
    meters: Meters,
    problems: list[str],
    *,
    reasoning: int = 0,
    model: str | None = None,
    tier: str | None = None,
    region: str | None = None,
    speed: str | None = None,
    stated_usd: Decimal | None = None,
) -> Usage:
    """Return the Usage. With any problem among the counts its total cannot be trusted, so it is not `known`."""
    return Usage(tuple(meters), reasoning, not problems, tuple(problems), model, tier, region, speed, stated_usd)


def text_of(payload: Mapping[str, Any], key: str) -> str | None:
    """Return a text of a plausible length, None for anything else."""
    value = payload.get(key)
    return value if isinstance(value, str) and 0 < len(value) <= 256 else None


def _shown(value: object) -> str:
    if isinstance(value, bool | type(None)):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value) if -1e15 < value < 1e15 else f"a number beyond {MOST}"
    return f"a {type(value).__name__}"
