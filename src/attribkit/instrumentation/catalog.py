"""The table of all patches: one room for each group, loaded when the first of its libraries is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from attribkit.instrumentation.patching import Patch
from attribkit.pipeline import Pipeline

if TYPE_CHECKING:
    from attribkit.instrumentation.hops.messages import Messages
    from attribkit.instrumentation.hops.peers import Peers

__all__ = ["GROUPS", "LISTENERS", "ROOMS", "Parts", "Room"]


class Parts:
    """What rooms are built of."""

    __slots__ = ("carrier_key", "messages", "peers", "pipeline", "read_replies")

    def __init__(
        self,
        pipeline: Pipeline,
        messages: Messages,
        peers: Peers | None,
        carrier_key: bytes | None,
        read_replies: bool = True,
    ) -> None:
        self.pipeline = pipeline
        self.messages = messages
        """Writes the fields into the messages of jobs."""
        self.peers = peers
        """The services that get the carrier."""
        self.carrier_key = carrier_key
        """Signs what child programs get."""
        self.read_replies = read_replies
        """Whether a gateway says something in its response headers."""


class Room:
    """The rows of some libraries."""

    __slots__ = ("group", "libraries", "rows")

    def __init__(self, group: str, libraries: tuple[str, ...], rows: Callable[[Parts], Iterable[Patch]]) -> None:
        self.group = group
        self.libraries = libraries
        """Modules. Nothing of the room is loaded before one of them is imported. (Not a namespace package: there is no
        moment at which such a one has been imported.)"""
        self.rows = rows


def _openai(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import openai

    return openai.patches(parts.pipeline, read_replies=parts.read_replies)


def _anthropic(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import anthropic

    return anthropic.patches(parts.pipeline)


def _google_genai(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import google_genai

    return google_genai.patches(parts.pipeline)


def _bedrock(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import bedrock

    return bedrock.patches(parts.pipeline)


def _bedrock_async(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import bedrock

    return bedrock.patches_async(parts.pipeline)


def _http(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import http_httpx
    from attribkit.instrumentation.clients.http_calls import RawCalls

    return http_httpx.patches(RawCalls(parts.pipeline))


def _http_requests(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import http_rows

    return http_rows.requests(parts.pipeline)


def _http_aiohttp(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import http_rows

    return http_rows.aiohttp(parts.pipeline)


def _http_cohere(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import http_sdks

    return http_sdks.patches()


def _redirects(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.clients import redirects

    return redirects.patches(parts.pipeline)


def _asyncio(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import tasks

    return tasks.patches()


def _threads(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import threads

    return threads.patches()


def _processes(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import processes

    return processes.patches(parts.carrier_key)


def _queues(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops.queues import rows

    return rows.patches()


def _memory_streams(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import memory_streams

    return memory_streams.patches()


def _process_queues(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import process_queues

    return process_queues.patches("queues")


def _process_pipes(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import process_queues

    return process_queues.patches("connection")


def _process_managers(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import process_queues

    return process_queues.patches("managers")


def _langchain(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import langchain, langchain_models, runnables

    return (*langchain.patches(), *langchain_models.patches(parts.pipeline), *runnables.patches())


def _langgraph(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import langgraph

    return langgraph.patches()


def _langgraph_remote(parts: Parts) -> Iterable[Patch]:
    if parts.peers is None:
        return ()
    from attribkit.instrumentation.hops import langgraph_remote

    return langgraph_remote.patches(parts.peers)


def _llama_index(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import llama_index

    return llama_index.patches()


def _pydantic_ai(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import pydantic_ai

    return pydantic_ai.patches()


def _peers(parts: Parts) -> Iterable[Patch]:
    if parts.peers is None:
        return ()
    from attribkit.instrumentation.hops import grpc, peers

    return (*peers.patches(parts.peers), *grpc.patches(parts.peers))


def _web(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import web

    return web.patches()


def _celery(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import celery

    return celery.patches(parts.messages)


def _dramatiq(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import dramatiq

    return dramatiq.patches(parts.messages)


def _rq(parts: Parts) -> Iterable[Patch]:
    from attribkit.instrumentation.hops import rq

    return rq.patches(parts.messages)


ROOMS = (
    Room("openai", ("openai",), _openai),
    Room("anthropic", ("anthropic",), _anthropic),
    Room("google_genai", ("google.genai",), _google_genai),
    Room("bedrock", ("botocore",), _bedrock),
    Room("bedrock", ("aiobotocore",), _bedrock_async),
    Room("http", ("httpx", "httpx2"), _http),
    Room("http", ("requests",), _http_requests),
    Room("http", ("aiohttp",), _http_aiohttp),
    Room("http", ("cohere",), _http_cohere),
    Room("redirects", ("httpx", "httpx2"), _redirects),
    Room("asyncio", ("asyncio", "anyio"), _asyncio),
    Room("threads", ("threading",), _threads),
    Room("processes", ("subprocess", "multiprocessing", "concurrent.futures.process"), _processes),
    Room("langchain", ("langchain_core",), _langchain),
    Room("langgraph", ("langgraph.pregel",), _langgraph),
    Room("langgraph", ("langgraph_sdk",), _langgraph_remote),
    Room("llama_index", ("llama_index.llms.openai", "llama_index.core"), _llama_index),
    Room("pydantic_ai", ("pydantic_ai",), _pydantic_ai),
    Room("peers", ("httpx", "httpx2", "requests", "aiohttp", "websockets", "grpc"), _peers),
    Room("queues", ("queue", "asyncio"), _queues),
    Room("queues", ("anyio.streams.memory",), _memory_streams),
    Room("queues", ("multiprocessing.queues",), _process_queues),
    Room("queues", ("multiprocessing.connection",), _process_pipes),
    Room("queues", ("multiprocessing.managers",), _process_managers),
    Room("web", ("starlette", "sse_starlette", "fastapi", "werkzeug", "django"), _web),
    Room("celery", ("celery",), _celery),
    Room("dramatiq", ("dramatiq",), _dramatiq),
    Room("rq", ("rq",), _rq),
)

GROUPS = (*dict.fromkeys(room.group for room in ROOMS), "telemetry")
"""What `hops={...: False}` can turn off."""


def _origins(parts: Parts) -> Callable[[], None]:
    from attribkit.instrumentation.hops import tasks

    return tasks.find_origins()


def _adopt(parts: Parts) -> Callable[[], None]:
    from attribkit.instrumentation.hops import langchain

    return langchain.adopt()


def _simple_queue(parts: Parts) -> Callable[[], None]:
    from attribkit.instrumentation.hops.queues import simple

    return simple.replace_simple_queue()


def _received(parts: Parts) -> Callable[[], None]:
    from attribkit.instrumentation.hops import programs

    return programs.received(parts.carrier_key)


def _follow(parts: Parts) -> Callable[[], None]:
    from attribkit.instrumentation.hops import celery

    return celery.follow(parts.messages)


LISTENERS: tuple[tuple[str, str, Callable[[Parts], Callable[[], None]]], ...] = (
    ("asyncio", "asyncio", _origins),
    ("langchain", "langchain_core", _adopt),
    ("celery", "celery", _follow),
    ("queues", "queue", _simple_queue),
    ("processes", "os", _received),
)
"""What a group turns on beside its rows when a library is imported: a function that starts it and returns its end."""
