"""LangChain models: their patch rows. What meters a run comes with the first one that no client is known to see."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.context import bound
from attribkit.instrumentation.first_call import FirstCall
from attribkit.instrumentation.hops.langchain import NAMES, captured, completed, config_of
from attribkit.instrumentation.hops.langchain_kinds import Kinds
from attribkit.instrumentation.hops.runnables import INSIDE
from attribkit.instrumentation.patching import Direct, Patch, Wrapper, takes
from attribkit.late import Late
from attribkit.pipeline import Pipeline

if TYPE_CHECKING:
    from attribkit.instrumentation.hops import langchain_metering
else:
    langchain_metering = Late(f"{__package__}.langchain_metering")

__all__ = ["patches"]


class _Models:
    def __init__(self, pipeline: Pipeline) -> None:
        self._kinds = Kinds()
        self._metering = FirstCall(lambda: langchain_metering.Metering(pipeline, self._kinds))

    def metered(self, name: str) -> Wrapper:
        return self._metering.wrapper(name)

    def direct_generate(self, original: Any, switch: list[None]) -> Any:
        """Where a client sees the calls and the run's metadata add nothing, there is nothing to do."""

        def generate(model: Any, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> Any:
            wrapped, there = own["__wrapped__"], None
            if switch:
                try:
                    if not NAMES.isdisjoint(run_manager.metadata):
                        there = completed(run_manager.metadata)
                except (AttributeError, TypeError):
                    pass  # a run without metadata
            if not switch or (there is None and seen_below(model, False)):
                if not more:
                    return wrapped(model, messages, stop, run_manager)
                return wrapped(model, messages, stop, run_manager, **more)
            try:
                generated = self._metering.one().generated
            except Exception as fault:
                faults.note("langchain.metering", fault)
                return wrapped(model, messages, stop=stop, run_manager=run_manager, **more)
            arguments = {"stop": stop, "run_manager": run_manager, **more}
            return generated(types.MethodType(wrapped, model), model, (messages,), arguments, there)

        own, seen_below = vars(generate), self._kinds.seen_below
        return generate if takes(original, "self", "messages", "stop", "run_manager", more=True) else None

    def stream(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items = wrapped(*args, **kwargs)
        there = completed(config_of(args, kwargs))
        if there is None and not sys._getframe(1).f_globals.get("__name__", "").startswith(INSIDE):
            there = captured()
        if not self._kinds.seen_below(instance, True):
            try:
                return self._metering.one().streamed(items, instance, args, kwargs, there)
            except Exception as fault:
                faults.note("langchain.metering", fault)
        return items if there is None else bound(items, there)


def patches(pipeline: Pipeline) -> tuple[Patch, ...]:
    """Return the rows that meter the runs of models."""
    models = _Models(pipeline)
    metered = models.metered
    chats, texts = "langchain_core.language_models.chat_models", "langchain_core.language_models.llms"

    def row(
        module: str, path: str, wrapper: Any, *, required: bool = True, hot: bool = False, direct: Direct | None = None
    ) -> Patch:
        return Patch(module, path, wrapper, "langchain", "langchain-core", required, hot=hot, direct=direct)

    return (
        row(
            chats,
            "BaseChatModel._generate_with_cache",
            metered("generate"),
            hot=True,
            direct=models.direct_generate,
        ),
        row(chats, "BaseChatModel._agenerate_with_cache", metered("agenerate"), hot=True),
        row(chats, "BaseChatModel._convert_cached_generations", metered("hit"), required=False),
        row(chats, "BaseChatModel.stream", models.stream),
        row(chats, "BaseChatModel.astream", models.stream),
        row(chats, "BaseChatModel._iter_v2_events", metered("events"), required=False),
        row(chats, "BaseChatModel._aiter_v2_events", metered("events"), required=False),
        row(texts, "BaseLLM._generate_helper", metered("llm_generate")),
        row(texts, "BaseLLM._agenerate_helper", metered("llm_agenerate")),
        row(texts, "BaseLLM.stream", models.stream),
        row(texts, "BaseLLM.astream", models.stream),
        row(texts, "get_prompts", metered("llm_lookup")),
        row(texts, "aget_prompts", metered("llm_alookup"), required=False),
    )
