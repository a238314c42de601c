"""The table of all patches."""

from __future__ import annotations

from attribkit.instrumentation.clients import (
    anthropic,
    openai,
    redirects,
)
from attribkit.instrumentation.hops import (
    langchain,
    langgraph,
    peers,
    web,
)
from attribkit.instrumentation.hops.peers import Peers
from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Pipeline

__all__ = ["GROUPS", "patches"]

GROUPS = (
    "openai",
    "anthropic",
    "redirects",
    "langchain",
    "langgraph",
    "peers",
    "web",
    "telemetry",
)
"""What `hops={...: False}` can turn off."""


def patches(pipeline: Pipeline, *, read_replies: bool = True, own: Peers | None = None) -> tuple[Patch, ...]:
    """Return every row, clients first. `own` are the services that get the carrier."""
    return (
        *openai.patches(pipeline, read_replies=read_replies),
        *anthropic.patches(pipeline),
        *redirects.patches(pipeline),
        *langchain.patches(),
        *langgraph.patches(),
        *peers.patches(own),
        *web.patches(),
    )
