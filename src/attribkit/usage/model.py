"""What a model call consumed, in meters that do not overlap."""

from decimal import Decimal
from typing import NamedTuple

__all__ = ["INPUT_METERS", "NO_USAGE", "OUTPUT_METERS", "Usage"]

INPUT_METERS = (
    "input",  # text that was not cached, and all input that a provider does not split
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "audio_input",
    "audio_cache_read",
    "image_input",
    "image_cache_read",
    "video_input",
    "citation_input",
)
OUTPUT_METERS = ("output", "audio_output", "image_output", "video_output", "reasoning_apart")
"""Token meters by direction. "output" includes reasoning; "reasoning_apart" is reasoning that has a price of its own
(Perplexity's deep research). Further meters, not tokens: requests, seconds, characters, images, pages, web_search,
file_search, code_session, grounding, and what a provider's own dialect adds."""

_INPUT, _OUTPUT = frozenset(INPUT_METERS), frozenset(OUTPUT_METERS)


class Usage(NamedTuple):
    """What one reply says it consumed. No token is in two meters; a meter of zero is left out."""

    meters: tuple[tuple[str, int | Decimal], ...] = ()
    reasoning_tokens: int = 0
    """A part of "output", for information: it is billed there."""
    known: bool = True
    """False when the reply stated no usage at all, or none that can be used."""
    problems: tuple[str, ...] = ()
    """What was impossible in the payload (negative, not a number, parts over the whole), a short text each."""
    model: str | None = None
    """The model that served the call, when the payload states it."""
    tier: str | None = None
    """The service tier that served the call, when the usage object states it (Anthropic, Gemini, Bedrock)."""
    region: str | None = None
    """The inference region, when the usage object states it (Anthropic inference_geo)."""
    speed: str | None = None
    """The speed that served the call, when the usage object states it (Anthropic)."""
    stated_usd: Decimal | None = None
    """The cost that the payload itself states (OpenRouter, Perplexity)."""
    estimated: str | None = None
    """How these numbers were estimated; None when the provider stated them."""
    rounds: tuple["Usage", ...] = ()
    """The parts of one reply that are priced apart: the server asked a model several times for it (Anthropic's
    compaction, advisor, fallback). Together they are `meters`; one with a `model` was made by another model."""

    def get(self, meter: str) -> int | Decimal:
        """Return the quantity of one meter, 0 when it is not there."""
        for name, quantity in self.meters:
            if name == meter:
                return quantity
        return 0

    @property
    def input_tokens(self) -> int:
        """All input tokens, cached ones included (as the OpenTelemetry GenAI conventions count them)."""
        total = 0
        for name, quantity in self.meters:
            if name in _INPUT:
                total += int(quantity)
        return total

    @property
    def output_tokens(self) -> int:
        """All output tokens, reasoning included."""
        total = 0
        for name, quantity in self.meters:
            if name in _OUTPUT:
                total += int(quantity)
        return total


NO_USAGE = Usage(known=False)
