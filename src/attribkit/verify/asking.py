"""The model calls of the probes, as an app's own small functions: they know nothing of tenants."""

from __future__ import annotations

import asyncio
import os
from typing import Any

__all__ = ["MODEL", "answer", "answer_async", "async_client", "client", "message", "warm"]

MODEL = "gpt-5-mini"
_clients: dict[int, Any] = {}
_idle: list[Any] = []
"""An async client that no loop has used yet: making one takes longer than most programs."""


def client() -> Any:
    """Return this process's OpenAI client, made when first asked for: most apps have one at module level."""
    here = os.getpid()
    if here not in _clients:
        if 0 in _clients:
            _clients[here] = _clients.pop(0)
            return _clients[here]
        import openai

        _clients[here] = openai.OpenAI()
    return _clients[here]


def async_client() -> Any:
    """Return an AsyncOpenAI client of one's own. It belongs to the loop that first uses it, and has to be closed."""
    try:
        return _idle.pop()
    except IndexError:
        pass
    import openai

    return openai.AsyncOpenAI()


def message(prompt: str) -> list[dict[str, str]]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": prompt}]


def answer(prompt: str) -> Any:
    """Ask the model."""
    return client().chat.completions.create(model=MODEL, messages=message(prompt)).choices[0].message.content


async def answer_async(client: Any, prompt: str) -> Any:
    """Ask the model through an AsyncOpenAI client."""
    reply = await client.chat.completions.create(model=MODEL, messages=message(prompt))
    return reply.choices[0].message.content


def warm() -> None:
    """Make calls whose only purpose is what libraries build at the first one, and clients: forks inherit all that."""
    import openai

    once: Any = openai.OpenAI()
    with once:
        once.chat.completions.create(model=MODEL, messages=message("Hello."))

    async def once_more() -> None:
        async with openai.AsyncOpenAI() as other:
            await answer_async(other, "Hello.")

    asyncio.run(once_more())
    _clients.setdefault(0, openai.OpenAI())
    if not _idle:
        _idle.append(openai.AsyncOpenAI())
