"""What is made in one tenant's scope and entered, or read, in another's is for whom it was made for; sync as async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import attribkit

pytestmark = [pytest.mark.usefixtures("settled"), pytest.mark.filterwarnings("ignore")]

ASK = [{"role": "user", "content": "Where is my order?"}]
CLAUDE = {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": ASK}
CHAT = {"model": "gpt-5-mini", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}


def read(response: Any) -> None:
    """Read what a context manager gave, by whichever method it has."""
    for name in ("iter_lines", "__iter__"):
        if hasattr(response, name):
            assert list(getattr(response, name)()) is not None
            return


def entered(made: Any) -> None:
    with made as response:
        read(response)


async def entered_async(made: Any) -> None:
    async with made as response:
        each = response.aiter_lines() if hasattr(response, "aiter_lines") else response
        each = each.iter_lines() if hasattr(each, "iter_lines") else each
        async for _ in each:
            pass


def pulled(made: Any) -> None:
    assert list(made)


def openai_client(seen: Any, kind: str) -> Any:
    openai = pytest.importorskip("openai")
    return getattr(openai, kind)(api_key="k", base_url=seen.base_url)


def openai_chat(seen: Any, kind: str = "OpenAI") -> Any:
    return openai_client(seen, kind).chat.completions.stream(model="gpt-5-mini", messages=ASK)


def openai_responses(seen: Any, kind: str = "OpenAI") -> Any:
    return openai_client(seen, kind).responses.stream(model="gpt-5-mini", input="Where is my order?")


def openai_streaming_response(seen: Any, kind: str = "OpenAI") -> Any:
    client = openai_client(seen, kind)
    return client.chat.completions.with_streaming_response.create(model="gpt-5-mini", messages=ASK)


def anthropic_client(seen: Any, kind: str) -> Any:
    anthropic = pytest.importorskip("anthropic")
    return getattr(anthropic, kind)(api_key="k", base_url=seen.gateway.url)


def anthropic_stream(seen: Any, kind: str = "Anthropic") -> Any:
    return anthropic_client(seen, kind).messages.stream(**CLAUDE)


def anthropic_beta_stream(seen: Any, kind: str = "Anthropic") -> Any:
    messages = anthropic_client(seen, kind).beta.messages
    if not hasattr(messages, "stream"):
        pytest.skip("this version has no such stream")
    return messages.stream(**CLAUDE)


def anthropic_streaming_response(seen: Any, kind: str = "Anthropic") -> Any:
    return anthropic_client(seen, kind).messages.with_streaming_response.create(**CLAUDE)


def anthropic_tool_runner(seen: Any) -> Any:
    messages = anthropic_client(seen, "Anthropic").beta.messages
    if not hasattr(messages, "tool_runner"):
        pytest.skip("this version has no tool runner")
    return messages.tool_runner(tools=[], **CLAUDE)


def httpx_stream(seen: Any, library: str = "httpx") -> Any:
    http = pytest.importorskip(library)
    return http.stream("POST", f"{seen.base_url}/chat/completions", json=CHAT)


def httpx_client_stream(seen: Any, library: str = "httpx") -> Any:
    http = pytest.importorskip(library)
    return http.Client().stream("POST", f"{seen.base_url}/chat/completions", json=CHAT)


def httpx_client_stream_async(seen: Any, library: str = "httpx") -> Any:
    http = pytest.importorskip(library)
    return http.AsyncClient().stream("POST", f"{seen.base_url}/chat/completions", json=CHAT)


def cohere_stream(seen: Any) -> Any:
    client = pytest.importorskip("cohere").ClientV2(api_key="k", base_url=seen.gateway.url)
    return client.chat_stream(model="command-r-plus", messages=ASK)


STREAMS = (openai_chat, openai_responses, openai_streaming_response)
MESSAGES = (anthropic_stream, anthropic_beta_stream, anthropic_streaming_response)


def shapes() -> Iterator[Any]:
    """Yield for each shape what makes it and what reads it."""
    for make, kinds in [(make, ("OpenAI", "AsyncOpenAI")) for make in STREAMS] + [
        (make, ("Anthropic", "AsyncAnthropic")) for make in MESSAGES
    ]:
        for kind, end in zip(kinds, (entered, entered_async), strict=True):
            yield pytest.param(lambda seen, make=make, kind=kind: make(seen, kind), end, id=f"{make.__name__}-{kind}")
    yield pytest.param(anthropic_tool_runner, pulled, id="anthropic_tool_runner")
    yield pytest.param(cohere_stream, pulled, id="cohere_stream")
    for library in ("httpx", "httpx2"):
        for make, end in (
            (httpx_stream, entered),
            (httpx_client_stream, entered),
            (httpx_client_stream_async, entered_async),
        ):
            yield pytest.param(
                lambda seen, make=make, library=library: make(seen, library), end, id=f"{make.__name__}-{library}"
            )


@pytest.mark.parametrize("entering", ["globex", None])
@pytest.mark.parametrize(("make", "end"), list(shapes()))
def test_it_is_for_whom_it_was_made_for(
    observe: Any, make: Callable[[Any], Any], end: Callable[[Any], Any], entering: str | None
) -> None:
    seen = observe()

    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            made = make(seen)
        with attribkit.attributed(**({"tenant_id": entering} if entering else {})):
            awaited = end(made)
            if awaited is not None:
                await awaited
            assert attribkit.current().tenant_id == entering

    asyncio.run(main())
    (record,), (request,), (_,) = seen.records, seen.requests(), seen.call_spans()
    assert request.attribution["tenant_id"] == record.attribution.tenant_id == "acme"
    assert (record.status, record.cost.status) == ("ok", "priced")


@pytest.mark.parametrize("make", [openai_chat, anthropic_stream, httpx_client_stream, cohere_stream])
def test_what_was_made_for_nobody_is_for_whoever_enters_it(observe: Any, make: Any) -> None:
    seen = observe()
    made = make(seen)
    with attribkit.attributed(tenant_id="acme"):
        (pulled if make is cohere_stream else entered)(made)
    assert [record.attribution.tenant_id for record in seen.records] == ["acme"]


def test_an_error_inside_the_block_is_the_blocks_own(observe: Any) -> None:
    seen = observe()
    with attribkit.attributed(tenant_id="acme"):
        made = httpx_client_stream(seen)
    with pytest.raises(KeyError, match="mine"), made:
        raise KeyError("mine")
    (record,) = seen.records
    assert (record.status, record.attribution.tenant_id) == ("abandoned", "acme")
