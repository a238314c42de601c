"""The loopback gateway's answers are those of OpenAI, as the real SDK reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal

import openai
import pytest
from pydantic import BaseModel

from attribkit.testing import Gateway
from attribkit.testing.tokens import tokens_of

ASK = [{"role": "user", "content": "Where is my order?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}, "limit": {"type": "integer"}}},
    },
}


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="none") as client:
        yield client


class Verdict(BaseModel):
    answer: str
    sure: bool
    labels: list[str]


def test_chat_states_the_usage_that_model_and_prompt_determine(gateway: Gateway, client: openai.OpenAI) -> None:
    replies = [client.chat.completions.create(model="gpt-5-mini", messages=ASK) for _ in range(2)]
    text = replies[0].choices[0].message.content
    assert text
    expected = tokens_of("gpt-5-mini", "Where is my order?", words=len(text.split()))
    for reply in replies:
        usage = reply.usage
        assert usage and usage.prompt_tokens_details and usage.completion_tokens_details
        assert usage.prompt_tokens == expected.input
        assert usage.prompt_tokens_details.cached_tokens == expected.cached
        assert usage.completion_tokens == expected.output
        assert usage.completion_tokens_details.reasoning_tokens == expected.reasoning > 0
        assert reply.model == "gpt-5-mini-2025-08-07"
        assert reply.service_tier == "default"
        assert reply.choices[0].message.content == text
    assert replies[0].id != replies[1].id
    first = gateway.requests()[0]
    usd = (
        Decimal("0.25") * (expected.input - expected.cached)
        + Decimal("0.025") * expected.cached
        + Decimal("2.00") * expected.output
    ) / 1_000_000
    assert first.cost_usd == usd
    assert first.response_id == replies[0].id


def test_a_stream_states_usage_only_when_asked(gateway: Gateway, client: openai.OpenAI) -> None:
    plain = list(client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True))
    asked = list(
        client.chat.completions.create(
            model="gpt-5-mini", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    whole = client.chat.completions.create(model="gpt-5-mini", messages=ASK)
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    assert len(asked) == len(plain) + 1
    assert asked[-1].usage == whole.usage and not asked[-1].choices
    text = "".join(chunk.choices[0].delta.content or "" for chunk in plain)
    assert text == whole.choices[0].message.content
    assert [r.usage for r in gateway.requests()] == [gateway.requests()[0].usage] * 3
    assert gateway.requests()[0].outcome == "answered"
    assert gateway.requests()[0].chunks == len(plain) + 1, "the [DONE] event is one too"


def test_a_stream_can_have_a_given_number_of_chunks(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4.1-mini", messages=ASK, stream=True, extra_headers={"x-loopback": "chunks=100"}
    )
    assert sum(bool(chunk.choices[0].delta.content) for chunk in stream) == 100


def test_tools_are_called_until_their_result_is_there(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="gpt-4.1-mini", messages=ASK, tools=[TOOL]).choices[0]
    assert first.finish_reason == "tool_calls" and first.message.tool_calls
    call = first.message.tool_calls[0]
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments) == {"order": "Where is my order?", "limit": 3}
    turns = [
        *ASK,
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "it left"},
    ]
    second = client.chat.completions.create(model="gpt-4.1-mini", messages=turns, tools=[TOOL]).choices[0]
    assert second.finish_reason == "stop" and second.message.content
    parts = list(client.chat.completions.create(model="gpt-4.1-mini", messages=ASK, tools=[TOOL], stream=True))
    arguments = "".join(
        call.function.arguments or ""
        for part in parts
        for call in part.choices[0].delta.tool_calls or ()
        if call.function
    )
    assert json.loads(arguments) == {"order": "Where is my order?", "limit": 3}
    none = client.chat.completions.create(model="gpt-4.1-mini", messages=ASK, tools=[TOOL], tool_choice="none")
    assert none.choices[0].finish_reason == "stop"


def test_parse_gets_an_example_of_the_schema(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model="gpt-4.1-mini", messages=ASK, response_format=Verdict)
    verdict = parsed.choices[0].message.parsed
    assert verdict and verdict.answer and verdict.sure and verdict.labels


def test_limits_choices_and_tiers(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="gpt-5-mini", messages=ASK, max_completion_tokens=5, n=2, service_tier="flex"
    )
    assert reply.usage and reply.usage.completion_tokens == 10
    assert [choice.finish_reason for choice in reply.choices] == ["length", "length"]
    assert reply.service_tier == "flex"
    other = client.chat.completions.create(
        model="gpt-5-mini",
        messages=ASK,
        service_tier="priority",
        extra_headers={"x-loopback": "tier=default model=gpt-5-nano-2025-08-07"},
    )
    assert (other.service_tier, other.model) == ("default", "gpt-5-nano-2025-08-07")


def test_responses_whole_streamed_and_in_the_background(gateway: Gateway, client: openai.OpenAI) -> None:
    whole = client.responses.create(model="gpt-5-mini", input="Where is my order?", instructions="Be short.")
    assert whole.output_text and whole.usage and whole.usage.input_tokens_details.cached_tokens >= 0
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    with client.responses.stream(model="gpt-5-mini", input="Where is my order?", instructions="Be short.") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert "response.output_text.delta" in kinds
    assert final.usage == whole.usage and final.output_text == whole.output_text
    queued = client.responses.create(model="gpt-5-mini", input="Think.", background=True, metadata={"k": "v"})
    assert queued.status == "queued" and queued.usage is None
    states = [client.responses.retrieve(queued.id) for _ in range(3)]
    assert [state.status for state in states] == ["in_progress", "completed", "completed"]
    assert states[1].usage and states[1].metadata == {"k": "v"}
    assert sum(row.calls for row in gateway.spend()) == 3, "a background response is charged once"


def test_responses_call_tools_and_parse(client: openai.OpenAI) -> None:
    tool = {"type": "function", "strict": True, **TOOL["function"]}
    reply = client.responses.create(model="gpt-4.1-mini", input="Where?", tools=[tool])
    assert reply.output[0].type == "function_call"
    parsed = client.responses.parse(model="gpt-4.1-mini", input="Where?", text_format=Verdict)
    assert parsed.output_parsed and parsed.output_parsed.labels


def test_conversations(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(metadata={"tenant_id": "acme"})
    assert client.conversations.retrieve(conversation.id).metadata == {"tenant_id": "acme"}
    reply = client.responses.create(model="gpt-4.1-mini", input="Hello", conversation=conversation.id)
    assert reply.conversation and reply.conversation.id == conversation.id
    client.conversations.items.create(conversation.id, items=[{"type": "message", "role": "user", "content": "x"}])
    assert client.conversations.delete(conversation.id).deleted


def test_embeddings_as_floats_and_in_base64(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format="float")
    packed = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(floats.data) == 2 and floats.usage == packed.usage
    assert packed.data[1].embedding == pytest.approx(floats.data[1].embedding)


def test_images_and_audio(client: openai.OpenAI) -> None:
    image = client.images.generate(model="gpt-image-1", prompt="A parcel", quality="low")
    assert image.usage and image.usage.output_tokens == 272 and image.data and image.data[0].b64_json
    assert client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello").content.startswith(b"ID3")
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Hello") as spoken:
        assert b"".join(spoken.iter_bytes()).startswith(b"ID3")
    heard = client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=("a.wav", b"RIFF" * 100))
    assert heard.text and heard.usage and heard.usage.type == "tokens" and heard.usage.input_token_details
    timed = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF" * 8000))
    assert timed.usage and timed.usage.type == "duration" and timed.usage.seconds == 3


def test_a_batch_is_answered_line_by_line_at_half_the_price(gateway: Gateway, client: openai.OpenAI) -> None:
    lines = [
        {
            "custom_id": f"q{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-5-mini", "messages": ASK},
        }
        for i in range(3)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    uploaded = client.files.create(file=("in.jsonl", content), purpose="batch")
    assert uploaded.bytes == len(content) and uploaded.filename == "in.jsonl"
    made = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers={"x-portkey-metadata": '{"tenant_id":"acme"}'},
    )
    assert made.status == "validating"
    assert client.batches.retrieve(made.id).status == "in_progress"
    done = client.batches.retrieve(made.id)
    assert done.status == "completed" and done.output_file_id and done.request_counts
    assert done.request_counts.completed == 3
    answers = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [answer["custom_id"] for answer in answers] == ["q0", "q1", "q2"]
    whole = client.chat.completions.create(model="gpt-5-mini", messages=ASK)
    assert whole.usage and answers[0]["response"]["body"]["usage"] == whole.usage.model_dump(exclude_none=True)
    acme, other = gateway.spend(["tenant_id"])
    assert acme.names == ("acme",) and acme.calls == 3
    assert acme.cost_usd == other.cost_usd * 3 / 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_assistants_are_polled_streamed_and_given_tool_outputs(gateway: Gateway) -> None:
    pytest.importorskip("openai.resources.beta.assistants")
    client = openai.OpenAI(base_url=gateway.base_url, api_key="none")
    assistant = client.beta.assistants.create(model="gpt-4.1-mini", instructions="Help.")
    thread = client.beta.threads.create(messages=[{"role": "user", "content": "Where is it?"}])
    run = client.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    assert run.status == "completed" and run.usage and run.usage.total_tokens > 300
    said = client.beta.threads.messages.list(thread.id).data
    assert said[0].role == "assistant" and said[0].run_id == run.id
    waiting = client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, tools=[TOOL], metadata={"k": "v"}
    )
    assert waiting.status == "requires_action" and waiting.required_action
    call = waiting.required_action.submit_tool_outputs.tool_calls[0]
    done = client.beta.threads.runs.submit_tool_outputs_and_poll(
        thread_id=thread.id, run_id=waiting.id, tool_outputs=[{"tool_call_id": call.id, "output": "it left"}]
    )
    assert done.status == "completed" and done.metadata == {"k": "v"}
    with client.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
        stream.until_done()
        streamed = stream.current_run
    assert streamed and streamed.status == "completed" and streamed.usage
    both = client.beta.threads.create_and_run_poll(
        assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": "Hello"}]}
    )
    assert both.status == "completed"
    assert sum(row.calls for row in gateway.spend()) == 4, "one charge for each run"
    client.close()


def test_azure_paths_take_the_model_from_the_deployment(gateway: Gateway) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=gateway.url, azure_deployment="gpt-5-mini", api_key="none", api_version="2025-04-01-preview"
    ) as client:
        reply = client.chat.completions.create(model="ignored-by-azure", messages=ASK)
    assert reply.usage and reply.usage.total_tokens
    request = gateway.requests()[0]
    assert request.path == "/openai/deployments/gpt-5-mini/chat/completions"
    assert request.target.endswith("?api-version=2025-04-01-preview")
    assert request.header("API-KEY") == "none"


def test_models_completions_and_unknown_paths(client: openai.OpenAI) -> None:
    assert "gpt-5-mini" in {model.id for model in client.models.list()}
    assert client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hello").choices[0].text
    with pytest.raises(openai.NotFoundError):
        client.post("/nothing/here", body={}, cast_to=object)


def test_the_async_client_gets_the_same(gateway: Gateway, client: openai.OpenAI) -> None:
    async def ask() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client:
            whole = await client.chat.completions.create(model="gpt-5-mini", messages=ASK)
            parts = [
                chunk.choices[0].delta.content or ""
                async for chunk in await client.chat.completions.create(model="gpt-5-mini", messages=ASK, stream=True)
            ]
            return whole.choices[0].message.content, "".join(parts)

    whole, streamed = asyncio.run(ask())
    assert (
        whole == streamed == client.chat.completions.create(model="gpt-5-mini", messages=ASK).choices[0].message.content
    )
    first, second = gateway.requests()[:2]
    assert first.connection == second.connection, "the connection is kept"
