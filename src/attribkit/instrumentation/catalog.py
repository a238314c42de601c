"""The table of all patches."""

from __future__ import annotations

from collections.abc import Callable

from attribkit.instrumentation.clients import (
    anthropic,
    http,
    openai,
    redirects,
)
from attribkit.instrumentation.hops import (
    celery,
    jobs,
    langchain,
    langchain_metering,
    langgraph,
    peers,
    processes,
    queues,
    runnables,
    tasks,
    threads,
    web,
)
from attribkit.instrumentation.hops.messages import Messages
from attribkit.instrumentation.hops.peers import Peers
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Pipeline

__all__ = ["GROUPS", "LISTENERS", "patches"]

GROUPS = (
    "openai",
    "anthropic",
    "http",
    "redirects",
    "asyncio",
    "threads",
    "processes",
    "langchain",
    "langgraph",
    "peers",
    "queues",
    "web",
    "celery",
    "dramatiq",
    "telemetry",
)
"""What `hops={...: False}` can turn off."""

LISTENERS: tuple[tuple[str, Callable[[], Callable[[], None]]], ...] = (
    ("asyncio", tasks.find_origins),
    ("langchain", langchain.adopt),
    ("queues", queues.replace_simple_queue),
)
"""What a group turns on beside its rows: a function that starts it and returns what ends it."""


def patches(
    pipeline: Pipeline,
    *,
    messages: Messages,
    read_replies: bool = True,
    own: Peers | None = None,
    carrier_key: bytes | None = None,
) -> tuple[Patch, ...]:
    """Return every row, clients first. `own` are the services that get the carrier, `messages` write those of jobs,
    `carrier_key` signs those of child programs."""
    return (
        *openai.patches(pipeline, read_replies=read_replies),
        *anthropic.patches(pipeline),
        *http.patches(pipeline),
        *redirects.patches(pipeline),
        *tasks.patches(),
        *threads.patches(),
        *processes.patches(carrier_key),
        *langchain.patches(),
        *langchain_metering.patches(pipeline),
        *runnables.patches(),
        *langgraph.patches(),
        *peers.patches(own),
        *queues.patches(),
        *web.patches(),
        *celery.patches(messages),
        *jobs.patches(messages),
    )
