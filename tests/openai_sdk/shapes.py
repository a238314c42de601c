"""Every shape of an OpenAI call, as users write it. Each takes a client and a prompt, and makes one model request."""

from __future__ import annotations

import io
from typing import Any

MODEL = "gpt-5-mini"


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def chat(client: Any, text: str) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=user(text))
    assert reply.choices[0].message.content


def chat_stream(client: Any, text: str) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=user(text), stream=True))
    assert all(chunk.choices for chunk in chunks), "the chunk that we asked for is not the caller's"


def chat_stream_with_usage(client: Any, text: str) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=MODEL, messages=user(text), stream=True, stream_options=options))
    assert chunks[-1].usage.prompt_tokens > 0 and not chunks[-1].choices


def chat_stream_manager(client: Any, text: str) -> None:
    chats = client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
    with chats.stream(model=MODEL, messages=user(text)) as events:
        for _ in events:
            pass
        assert events.get_final_completion().choices[0].message.content


def chat_raw(client: Any, text: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=user(text))
    assert raw.headers["content-type"] and raw.parse().choices


def chat_raw_unparsed(client: Any, text: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=user(text))
    assert raw.http_response.json()["choices"]


def chat_raw_stream(client: Any, text: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=user(text), stream=True)
    assert all(chunk.choices for chunk in raw.parse())


def chat_streaming_response_read(client: Any, text: str) -> None:
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=user(text)) as response:
        assert b"choices" in response.read()


def chat_streaming_response_parse(client: Any, text: str) -> None:
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=user(text)) as response:
        assert response.parse().choices


def chat_streaming_response_lines(client: Any, text: str) -> None:
    create = client.chat.completions.with_streaming_response.create
    with create(model=MODEL, messages=user(text), stream=True, stream_options={"include_usage": True}) as response:
        assert [line for line in response.iter_lines() if line.startswith("data:")]


def chat_parse(client: Any, text: str) -> None:
    from pydantic import BaseModel

    class Ticket(BaseModel):
        title: str

    chats = client.chat.completions if hasattr(client.chat.completions, "parse") else client.beta.chat.completions
    assert chats.parse(model=MODEL, messages=user(text), response_format=Ticket).choices[0].message.parsed.title


def with_options(client: Any, text: str) -> None:
    client.with_options(max_retries=1).copy(timeout=20).chat.completions.create(model=MODEL, messages=user(text))


def extra_body_and_headers(client: Any, text: str) -> None:
    client.chat.completions.create(
        model=MODEL, messages=user(text), extra_headers={"x-mine": "kept"}, extra_body={"top_k": 3}
    )


def responses(client: Any, text: str) -> None:
    assert client.responses.create(model=MODEL, input=text).output_text


def responses_stream(client: Any, text: str) -> None:
    kinds = [event.type for event in client.responses.create(model=MODEL, input=text, stream=True)]
    assert kinds[-1] == "response.completed"


def embeddings(client: Any, text: str) -> None:
    assert client.embeddings.create(model="text-embedding-3-small", input=[text, "two"]).data[1].embedding


def images(client: Any, text: str) -> None:
    assert client.images.generate(model="gpt-image-1", prompt=text).data


def speech(client: Any, text: str) -> None:
    assert client.audio.speech.create(model="tts-1", voice="alloy", input=text).content


def completions(client: Any, text: str) -> None:
    client.post("/completions", cast_to=object, body={"model": "gpt-3.5-turbo-instruct", "prompt": text})


def transcription(client: Any, text: str) -> None:
    client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", io.BytesIO(b"RIFF")), prompt=text)


SYNC = {
    shape.__name__: shape
    for shape in (
        chat,
        chat_stream,
        chat_stream_with_usage,
        chat_stream_manager,
        chat_raw,
        chat_raw_unparsed,
        chat_raw_stream,
        chat_streaming_response_read,
        chat_streaming_response_parse,
        chat_streaming_response_lines,
        chat_parse,
        with_options,
        extra_body_and_headers,
        responses,
        responses_stream,
        embeddings,
        images,
        speech,
        transcription,
    )
}


async def async_chat(client: Any, text: str) -> None:
    assert (await client.chat.completions.create(model=MODEL, messages=user(text))).choices[0].message.content


async def async_chat_stream(client: Any, text: str) -> None:
    async for chunk in await client.chat.completions.create(model=MODEL, messages=user(text), stream=True):
        assert chunk.choices


async def async_chat_stream_manager(client: Any, text: str) -> None:
    chats = client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
    async with chats.stream(model=MODEL, messages=user(text)) as events:
        async for _ in events:
            pass


async def async_chat_raw(client: Any, text: str) -> None:
    assert (await client.chat.completions.with_raw_response.create(model=MODEL, messages=user(text))).parse().choices


async def async_chat_raw_stream(client: Any, text: str) -> None:
    raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=user(text), stream=True)
    async for chunk in raw.parse():
        assert chunk.choices


async def async_streaming_response(client: Any, text: str) -> None:
    async with client.chat.completions.with_streaming_response.create(model=MODEL, messages=user(text)) as response:
        assert b"choices" in await response.read()


async def async_responses(client: Any, text: str) -> None:
    assert (await client.responses.create(model=MODEL, input=text)).output_text


async def async_responses_stream(client: Any, text: str) -> None:
    kinds = [event.type async for event in await client.responses.create(model=MODEL, input=text, stream=True)]
    assert kinds[-1] == "response.completed"


async def async_embeddings(client: Any, text: str) -> None:
    assert (await client.embeddings.create(model="text-embedding-3-small", input=text)).data


async def async_with_options(client: Any, text: str) -> None:
    await client.with_options(max_retries=0).chat.completions.create(model=MODEL, messages=user(text))


ASYNC = {
    shape.__name__: shape
    for shape in (
        async_chat,
        async_chat_stream,
        async_chat_stream_manager,
        async_chat_raw,
        async_chat_raw_stream,
        async_streaming_response,
        async_responses,
        async_responses_stream,
        async_embeddings,
        async_with_options,
    )
}
