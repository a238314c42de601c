"""The model calls of the probes, as an app's own small functions: they know nothing of tenants."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["MODEL", "answer", "answer_async", "async_client", "client", "message", "warm"]

MODEL = "gpt-5-mini"
_clients: dict[int, Any] = {}


def client() -> Any:
    """Return this process's OpenAI client, made when first asked for: most apps have one at module level."""
    here = os.getpid()
    if here not in _clients:
        import openai

        _clients[here] = openai.OpenAI()
    return _clients[here]


def async_client() -> Any:
    """Return a new AsyncOpenAI client; it belongs to the loop that it is first used in, and has to be closed."""
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
    """Make one call whose only purpose is what a library builds at its first: forks inherit it."""
    import openai

    once: Any = openai.OpenAI()
    with once:
        once.chat.completions.create(model=MODEL, messages=message("Hello."))
