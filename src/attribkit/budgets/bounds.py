"""The most that a call can use, before it leaves: what it asks, and what it may answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from decimal import Decimal

from attribkit.attribution import Attribution
from attribkit.budgets.reservations import Worst
from attribkit.calls import LLMCall
from attribkit.money import to_pico

__all__ = ["Bounds", "text_bytes"]

_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_NO_OUTPUT = frozenset({"embeddings", "moderations", "transcriptions", "speech", "images"})
_FIRST_OUTPUT = 4096
"""Output tokens that are reserved for a call without a bound of its own, until calls like it have been seen."""
_SEEN = 20
"""Calls of a kind after which the densest of their prompts bounds the next one."""
_MARGIN = 2
_OVERHEAD = 64
"""Tokens that a provider puts around the messages: roles, tool preambles, the start of the answer."""
_PART = 16
_IMAGE = 1536
"""Tokens taken for an image, an audio clip or a file inside a prompt."""
_ENCODED = frozenset({"data", "file_data", "b64_json"})
_KEPT = 4096
_SCALARS = frozenset({int, float, bool, type(None)})


class Bounds:
    """Worst cases from prices and from what was learned. Safe to share between threads.

    A token is at least one byte of text, so the bytes of a prompt bound its tokens; once calls to a model have been
    seen, the densest of them does, with half as much again. The output is bounded by what the call asks for, else by
    twice the longest answer that calls of its kind have had.
    """

    def __init__(self, ceiling: Callable[..., Decimal | None]) -> None:
        self._ceiling = ceiling
        self._lock = threading.Lock()
        self._outputs: dict[tuple[str, str | None], int] = {}
        self._density: dict[tuple[str, str | None], tuple[int, float]] = {}

    def worst_case(
        self,
        call: LLMCall,
        who: Attribution | None = None,
        *,
        model: str | None = None,
        tier: str | None = None,
        output: int | None = None,
    ) -> Worst:
        """Return the most that `call` can use at the prices of `who`, as `model` and in `tier` where they are given,
        and as though it asked for `output` tokens where that is given."""
        body = call.body or {}
        kind = call.api, call.model
        size = text_bytes(body)
        asked = self._input(kind, size)
        stated = None
        for name in _LIMITS:
            if type(body.get(name)) is int:
                stated = body[name]
                break
        whole = output
        if call.api in _NO_OUTPUT:
            output, known = 0, True
        elif stated is not None:
            output, known = max(0, stated), True
        else:
            learned = self._outputs.get(kind)
            output, known = (learned * _MARGIN if learned else _FIRST_OUTPUT), False
        answers = body.get("n")
        if type(answers) is int and answers > 1:
            output *= answers
        if whole is not None:
            output = whole
        asked_tier = tier or body.get("service_tier")
        usd = self._ceiling(
            provider=call.provider or None,
            model=model or call.model,
            input_tokens=asked,
            max_output_tokens=output,
            service_tier=asked_tier if isinstance(asked_tier, str) and asked_tier not in ("auto", "default") else None,
            region=call.region,
            batch=call.batch,
            who=who,
        )
        return Worst(None if usd is None else to_pico(usd), asked + output, output, known, size)

    def _input(self, kind: tuple[str, str | None], size: int) -> int:
        seen = self._density.get(kind)
        if seen is not None and seen[0] >= _SEEN:
            return int(size * min(1.0, seen[1] * 1.5)) + _OVERHEAD
        return size + _OVERHEAD

    def learn(self, call: LLMCall, size: int, input_tokens: int, output_tokens: int) -> None:
        """Take note of what a call has used; `size` is what its worst case said."""
        kind = call.api, call.model
        if output_tokens > self._outputs.get(kind, 0):
            with self._lock:
                if len(self._outputs) >= _KEPT:
                    self._outputs.clear()
                self._outputs[kind] = output_tokens
        count, densest = self._density.get(kind, (0, 0.0))
        density = max(0, input_tokens - _OVERHEAD) / max(1, size)
        if count < _SEEN or density > densest:
            with self._lock:
                if len(self._density) >= _KEPT:
                    self._density.clear()
                self._density[kind] = count + 1, max(densest, density)


def text_bytes(value: object, depth: int = 0) -> int:
    """Return how many bytes of text a request holds, with the tokens of what is no text. Only lengths are read."""
    if isinstance(value, str):
        if value.startswith("data:"):
            return _IMAGE + (0 if value.startswith("data:image") else len(value) // 8)
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if depth > 16:
        return 0
    if type(value) in _SCALARS:
        return 4
    if type(value) is dict or isinstance(value, Mapping):
        size = _PART
        for key, item in value.items():
            if type(item) is str and item.isascii() and item[:5] != "data:":
                length = len(item)
                if length > 1024 and key in _ENCODED:
                    size += _IMAGE + length // 8
                    continue
                size += length
            elif type(item) in _SCALARS and depth < 16:
                size += 4
            elif key in _ENCODED and isinstance(item, str) and len(item) > 1024:
                size += _IMAGE + len(item) // 8
                continue
            else:
                size += text_bytes(item, depth + 1)
            size += (len(key) if type(key) is str else len(str(key))) + 2
        return size
    if isinstance(value, (list, tuple)):
        size = 2 * len(value)
        for item in value:
            size += text_bytes(item, depth + 1)
        return size
    return 4
