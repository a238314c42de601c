"""What LangChain tells of a model's call: the facts of its request, and of its messages. No content is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attribkit.calls import LLMCall, Reply

__all__ = ["Tally", "call_of_llm", "call_of_model", "of_llm_result", "of_result"]

_MODEL_NAMES = ("model", "model_name", "model_id", "deployment_name")
_NOT_OPTIONS = frozenset({"run_manager", "config", "input", "messages", "stream"})
_OWN_IDS = ("run-", "lc_")
"""How the message ids begin that LangChain makes when the provider gives none."""


# -- requests ---------------------------------------------------------------------------------------------------------


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _first_of(mapping: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((text for name in names if (text := _text(mapping.get(name)))), None)


def _contents(given: Any) -> dict[str, Any]:
    """Return a prompt as a body whose length can be taken: for a budget's worst case, and for a stream that is cut."""
    if isinstance(given, str):
        return {"input": given}
    messages = given.to_messages() if hasattr(given, "to_messages") else given
    if not isinstance(messages, list):
        return {}
    return {"messages": [{"content": getattr(each, "content", each)} for each in messages]}


def _said_of(model: Any, options: Mapping[str, Any]) -> tuple[str, str | None, int | None]:
    """Return provider, model name and the bound on output tokens, as the model class tells LangSmith.

    The provider is "" where the class does not say it: LangChain's own guess is the name of the class.
    """
    told: Mapping[str, Any] = {}
    own = getattr(type(model), "_get_ls_params", None)
    try:
        if own is not None:
            told = model._get_ls_params(**options)
    except Exception:
        told = {}
    stated = own is not None and not own.__module__.startswith("langchain_core.")
    name = _text(told.get("ls_model_name")) or _first_of(vars(model), _MODEL_NAMES)
    most = told.get("ls_max_tokens")
    provider = _text(told.get("ls_provider")) if stated else None
    return provider or "", name, most if isinstance(most, int) else None


def _call(api: str, given: Any, model: Any, options: Mapping[str, Any], stream: bool) -> LLMCall:
    provider, name, most = _said_of(model, options)
    body = _contents(given)
    if most is not None:
        body["max_tokens"] = most
    return LLMCall("langchain", provider, api, "", name, stream, body)


def call_of_model(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, stream: bool = False
) -> Callable[[], LLMCall]:
    """Return a function that reads the call of a chat model, or of a text model's stream."""
    given = args[0] if args else kwargs.get("messages", kwargs.get("input"))
    options = {key: value for key, value in kwargs.items() if key not in _NOT_OPTIONS}
    api = "chat" if hasattr(model, "_generate_with_cache") else "completions"
    return lambda: _call(api, given, model, options, stream)


def call_of_llm(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[[], LLMCall]:
    """Return a function that reads the call of a text model, or what is in the parameters by which it is cached."""
    if isinstance(model, Mapping):
        return lambda: LLMCall("langchain", "", "completions", "", _first_of(model, _MODEL_NAMES))
    prompts = args[0] if args else kwargs.get("prompts")
    joined = "".join(prompts) if isinstance(prompts, list) and all(isinstance(each, str) for each in prompts) else None
    return lambda: _call("completions", joined, model, {}, False)


# -- replies ----------------------------------------------------------------------------------------------------------


def _usage(stated: object) -> dict[str, Any] | None:
    """Return a message's usage_metadata in a form whose dialect cannot be mistaken: with its details."""
    if not isinstance(stated, Mapping) or "input_tokens" not in stated:
        return None
    details = stated.get("input_token_details")
    return {**stated, "input_token_details": {"cache_read": 0, **(details if isinstance(details, Mapping) else {})}}


def _of_message(message: Any, usage: Mapping[str, Any] | None) -> Reply:
    told = getattr(message, "response_metadata", None)
    told = told if isinstance(told, Mapping) else {}
    named = _text(told.get("id")) or _text(getattr(message, "id", None))
    return Reply(
        usage=usage,
        model=_first_of(told, ("model_name", "model", "model_id")),
        service_tier=_text(told.get("service_tier")),
        response_id=None if named is None or named.startswith(_OWN_IDS) else named,
    )


def of_result(result: Any) -> Reply:
    """Read a ChatResult."""
    messages = [generation.message for generation in result.generations]
    usage = next((found for each in messages if (found := _usage(getattr(each, "usage_metadata", None)))), None)
    return _of_message(messages[0] if messages else None, usage or _of_output(result.llm_output))


def of_llm_result(result: Any) -> Reply:
    """Read an LLMResult: one request for all its prompts, or usage that stands with each generation."""
    total: dict[str, Any] = {}
    for generations in result.generations:
        for generation in generations:
            stated = (getattr(generation, "generation_info", None) or {}).get("usage_metadata")
            if isinstance(stated, Mapping):
                _add(total, stated)
    output = result.llm_output if isinstance(result.llm_output, Mapping) else {}
    return Reply(usage=_usage(total) or _of_output(output), model=_first_of(output, ("model_name", "model")))


def _of_output(output: object) -> Mapping[str, Any] | None:
    """Return the usage object that integrations hand on as the provider wrote it."""
    if not isinstance(output, Mapping):
        return None
    stated = output.get("token_usage") or output.get("usage")
    return stated if isinstance(stated, Mapping) and stated else None


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add one usage to another, details included: what LangChain does when it joins chunks."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            inner = total.get(key)
            _add(total.setdefault(key, {}) if isinstance(inner, dict) or inner is None else {}, value)
        elif isinstance(value, int) and not isinstance(value, bool):
            before = total.get(key, 0)
            total[key] = before + value if isinstance(before, int) else value


class Tally:
    """What has been read of a stream, as numbers and names."""

    __slots__ = ("_events", "_message", "_usage", "characters", "chunks", "ended")

    def __init__(self, events: Any = None) -> None:
        """`events` is what LangChain joins a stream of events in; such a stream says its facts at its end."""
        self._events = events
        self.ended = False
        self.chunks = 0
        self.characters = 0
        self._usage: dict[str, Any] = {}
        self._message: Reply = Reply()

    def take(self, item: Any) -> None:
        self.chunks += 1
        if isinstance(item, str):
            self.characters += len(item)
            return
        content = getattr(item, "content", None)
        if isinstance(content, str):
            self.characters += len(content)
        stated = getattr(item, "usage_metadata", None)
        if isinstance(stated, Mapping):
            _add(self._usage, stated)
        if getattr(item, "response_metadata", None) or self.chunks == 1:
            new, old = _of_message(item, None), self._message
            self._message = Reply(
                model=new.model or old.model,
                service_tier=new.service_tier or old.service_tier,
                response_id=new.response_id or old.response_id,
            )

    def ends(self) -> bool:
        """Return True once, at the last event: nobody need pull the stream any further."""
        if self._events is None or self.ended or self._events.output_message is None:
            return False
        self.ended = True
        return True

    def reply(self) -> Reply:
        joined = getattr(self._events, "output_message", None)
        if joined is not None:
            return _of_message(joined, _usage(joined.usage_metadata))._replace(chunks=self.chunks)
        return self._message._replace(usage=_usage(self._usage), chunks=self.chunks, characters=self.characters)
