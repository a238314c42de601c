"""LangChain's work that runs later: a stream or a coroutine of a runnable keeps the scope in which it was made."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from attribkit.context import Scope, bound, restored
from attribkit.instrumentation.hops.langchain import captured
from attribkit.instrumentation.patching import Patch

__all__ = ["INSIDE", "made_here", "patches"]

INSIDE = ("langchain_core.", "langgraph.", "langchain.")
"""Who calls from there is a runnable's own body, which has its scope already."""

_STREAMS = ("stream", "astream")
_TRANSFORMS = ("transform", "atransform")
_EVENTS = ("astream_events", "astream_log", "batch_as_completed", "abatch_as_completed")
_MADE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("base", "Runnable", ("ainvoke", "abatch", *_STREAMS, *_TRANSFORMS, *_EVENTS)),
    ("base", "RunnableSequence", ("ainvoke", "abatch", *_STREAMS, *_TRANSFORMS)),
    ("base", "RunnableParallel", ("ainvoke", *_STREAMS, *_TRANSFORMS)),
    ("base", "RunnableGenerator", ("ainvoke", *_STREAMS, *_TRANSFORMS)),
    ("base", "RunnableLambda", ("ainvoke", *_STREAMS, *_TRANSFORMS)),
    ("base", "RunnableEachBase", ("ainvoke", "astream_events")),
    ("base", "RunnableBindingBase", ("ainvoke", "abatch", *_STREAMS, *_TRANSFORMS, *_EVENTS)),
    ("branch", "RunnableBranch", ("ainvoke", *_STREAMS)),
    ("configurable", "DynamicRunnable", ("ainvoke", "abatch", *_STREAMS, *_TRANSFORMS)),
    ("fallbacks", "RunnableWithFallbacks", ("ainvoke", "abatch", *_STREAMS)),
    ("passthrough", "RunnablePassthrough", ("ainvoke", *_STREAMS, *_TRANSFORMS)),
    ("passthrough", "RunnableAssign", ("ainvoke", *_STREAMS, *_TRANSFORMS)),
    ("passthrough", "RunnablePick", ("ainvoke", *_STREAMS, *_TRANSFORMS)),
    ("retry", "RunnableRetry", ("ainvoke", "abatch")),
    ("router", "RouterRunnable", ("ainvoke", "abatch", *_STREAMS)),
)


def made_here(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    work = wrapped(*args, **kwargs)
    if sys._getframe(1).f_globals.get("__name__", "").startswith(INSIDE):
        return work
    here = captured()
    return work if here is None else bound(work, here)


def _pulled_here(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A model's stream of events (v3) is driven by callbacks that its consumer pulls: they run in the maker's scope."""
    here = captured()
    if here is not None and args and callable(args[0]):
        args = (_under(here, args[0]), *args[1:])
    return wrapped(*args, **kwargs)


def _under(here: Scope, callback: Callable[[], Any]) -> Callable[[], Any]:
    if inspect.iscoroutinefunction(callback):

        async def pulled_async() -> Any:
            with restored(here):
                return await callback()

        return pulled_async

    def pulled() -> Any:
        with restored(here):
            return callback()

    return pulled


def patches() -> tuple[Patch, ...]:
    """Return the rows that bind what runnables, models and tools hand back unfinished."""

    def row(module: str, path: str, package: str = "langchain-core") -> Patch:
        place = f"{package.replace('-', '_')}.{module}"
        return Patch(place, path, made_here, "langchain", package, False, True)

    return (
        *(row(f"runnables.{module}", f"{cls}.{name}") for module, cls, names in _MADE for name in names),
        row("language_models.chat_models", "BaseChatModel.ainvoke"),
        row("language_models.chat_models", "BaseChatModel.agenerate"),
        row("language_models.chat_models", "BaseChatModel.astream_events"),
        row("language_models.chat_models", "_ChatModelBinding.astream_events"),
        row("language_models.llms", "BaseLLM.ainvoke"),
        row("language_models.llms", "BaseLLM.abatch"),
        row("tools.base", "BaseTool.ainvoke"),
        row("tools.base", "BaseTool.arun"),
        row("tools.structured", "StructuredTool.ainvoke"),
        row("tools.simple", "Tool.ainvoke"),
        *(
            Patch(
                "langchain_core.language_models.chat_model_stream",
                path,
                _pulled_here,
                "langchain",
                "langchain-core",
                False,
            )
            for path in ("ChatModelStream.set_start", "ChatModelStream.bind_pump", "AsyncChatModelStream.set_start")
        ),
        *(
            row("chat_models.base", f"_ConfigurableModel.{name}", "langchain")
            for name in ("ainvoke", "abatch", *_STREAMS, *_TRANSFORMS, *_EVENTS)
        ),
    )
