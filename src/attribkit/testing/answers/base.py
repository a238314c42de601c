"""What an answer is, and what every endpoint makes it from: text, counts, examples of a schema."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from attribkit.testing.behaviour import Behaviour
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import Tokens, seed_of

__all__ = [
    "SERVED_AS",
    "Answer",
    "Context",
    "Event",
    "choose_tools",
    "example_of",
    "not_found",
    "pieces",
    "text_of",
    "words_for",
]

JSON = dict[str, Any]
Event = tuple[str | None, Any]

SERVED_AS = {
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "gpt-5.1": "gpt-5.1-2025-11-13",
    "gpt-5.2": "gpt-5.2-2025-12-11",
    "o3": "o3-2025-04-16",
    "o4-mini": "o4-mini-2025-04-16",
}
"""The dated snapshot that OpenAI names in the reply when the alias was asked for."""

_SERVED_TIERS = {"flex": "flex", "priority": "priority", "fast": "priority", "scale": "scale"}

_SENTENCES = (
    "Thank you for the details, I have looked at the account.",
    "The order left our warehouse yesterday and is on its way.",
    "A refund goes back to the card that paid, within five working days.",
    "Your plan renews at the end of the month unless it is changed before.",
    "The invoice was issued twice, so one of the two has been cancelled.",
    "Please restart the device once and let me know whether the light stays on.",
    "According to the policy this case is covered in full.",
    "I have passed the case on to a colleague who can confirm the address.",
    "The error in the log points to an expired token, and a new one is ready.",
    "There is nothing further to do on your side at the moment.",
    "The limit for your region was raised last week.",
    "You will get a message as soon as the replacement ships.",
)


class Answer(NamedTuple):
    """What to send, and what to write down. Exactly one of `body` and `events` is set."""

    body: Any = None
    """An object to send as JSON, or bytes."""
    events: Iterable[Event] | None = None
    """Server-sent events: (event name or None, object or ready text); bytes are sent as they are."""
    status: int = 200
    content_type: str = "application/json"
    """Of a stream: `text/event-stream`, unless this says another."""
    response_id: str | None = None
    model: str | None = None
    tier: str | None = None
    usage: Any = None
    """The usage object as the API states it, also when a stream was not asked for it."""
    charges: tuple[Charge, ...] = ()


class Context(NamedTuple):
    """What an endpoint knows besides the body."""

    seq: int
    method: str
    path: str
    """Without prefix and query: "/chat/completions"."""
    behaviour: Behaviour
    owner: tuple[tuple[str, str], ...]
    """Who the request is for, as its headers say."""
    store: dict[str, Any]
    """Objects that outlive a request, by id."""
    raw: bytes = b""
    content_type: str = ""

    def served(self, model: str | None) -> str:
        """Return the model that answers for `model`."""
        return self.behaviour.model or SERVED_AS.get(model or "", model or "gpt-5-mini-2025-08-07")

    def tier(self, asked: object) -> str | None:
        """Return the service tier that serves a request which asked for `asked`."""
        if self.behaviour.tier:
            return None if self.behaviour.tier == "null" else self.behaviour.tier
        return _SERVED_TIERS.get(asked if isinstance(asked, str) else "", "default")

    def usage(self, tokens: Tokens, shape: Callable[[Tokens], JSON]) -> Any:
        """Return the usage object, or what the request wants to see in its place."""
        return self.behaviour.usage if self.behaviour.states_usage else shape(tokens)


def now() -> int:
    """Return the Unix time in seconds."""
    return int(time.time())


def not_found(path: str) -> Answer:
    """Return OpenAI's 404."""
    message = f"Invalid URL ({path})"
    return Answer(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}, status=404
    )


def text_of(content: Any) -> str:
    """Return the text in a prompt: strings and text parts, joined by line ends. Ids, images and sounds have none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(filter(None, map(text_of, content)))
    if isinstance(content, dict):
        for key in ("content", "text", "input", "output"):
            if content.get(key):
                return text_of(content[key])
    return ""


def words_for(model: str | None, prompt: str) -> list[str]:
    """Return the words of the answer: the same for the same model and prompt."""
    seed = seed_of(model, prompt)
    first, count = (seed >> 24) % len(_SENTENCES), 3 + (seed >> 32) % 4
    step = (1, 5, 7, 11)[(seed >> 40) % 4]
    return " ".join(_SENTENCES[(first + step * i) % len(_SENTENCES)] for i in range(count)).split()


def pieces(text: str, count: int) -> list[str]:
    """Cut `text` into the chunks of a stream: exactly `count`, or of about four words each when it is 0."""
    if not count:
        return re.findall(r"(?:\S+\s*){1,4}", text) or [text]
    words = re.findall(r"\S+\s*", text) or [""]
    while len(words) < count:
        words += words
    cut = [words[i * len(words) // count : (i + 1) * len(words) // count] for i in range(count)]
    return ["".join(part) for part in cut]


def example_of(schema: Any, hint: str, root: Any = None, depth: int = 0) -> Any:
    """Return a value that a JSON schema takes, with `hint` wherever it wants free text."""
    if not isinstance(schema, dict) or depth > 12:
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        target: Any = root
        for step in str(schema["$ref"]).lstrip("#/").split("/"):
            target = target.get(step, {}) if isinstance(target, dict) else {}
        return example_of(target, hint, root, depth + 1)
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example_of(schema[key][0], hint, root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        return {k: example_of(v, hint, root, depth + 1) for k, v in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [example_of(schema.get("items") or {"type": "string"}, hint, root, depth + 1)]
    if kind in ("integer", "number"):
        return schema.get("minimum", 3)
    return {"boolean": True, "null": None}.get(str(kind), hint[:200])


def choose_tools(tools: Any, tool_choice: Any, hint: str) -> list[tuple[str, str]]:
    """Return the calls a model would make: every function tool once, or the forced one, with example arguments."""
    if not isinstance(tools, list) or tool_choice == "none":
        return []
    forced = None
    if isinstance(tool_choice, dict):
        forced = (tool_choice.get("function") or tool_choice).get("name")
    calls = []
    for tool in tools:
        function = tool.get("function") or tool
        name = function.get("name")
        if not name or (forced and name != forced) or tool.get("type", "function") not in ("function", "custom"):
            continue
        schema = function.get("parameters") or function.get("input_schema") or {"type": "object"}
        calls.append((str(name), json.dumps(example_of(schema, hint))))
    return calls
