"""The OpenAI SDK: every kind of call, streams read elsewhere, retries, clients that are older than attribkit."""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

from attribkit.context import attributed
from attribkit.verify.asking import MODEL, answer, answer_async, async_client, client, message, warm
from attribkit.verify.lab import Lab
from attribkit.verify.probe import Group

__all__ = ["GROUP"]

_older: Any = None


def _prepare() -> None:
    global _older
    import openai

    _older = openai.OpenAI(default_headers={"x-service": "billing"})
    warm()


GROUP = Group(
    "openai",
    "OpenAI SDK",
    needs=("openai>=1.40",),
    extra="openai",
    relies=("openai",),
    remedy="there is no other way in: use a version of openai that attribkit supports",
    prepare=_prepare,
)


@GROUP.probe("chat.completions.create, sync")
def sync(lab: Lab) -> None:
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            answer(tenant.ask())


@GROUP.probe("chat.completions.create, async, tenants at once on one client")
async def concurrent(lab: Lab) -> None:
    async with async_client() as shared:

        async def serve(tenant: Any) -> None:
            with attributed(**tenant.fields):
                for _ in range(2):
                    await answer_async(shared, tenant.ask())
                    await asyncio.sleep(0)

        await asyncio.gather(*(serve(tenant) for tenant in lab.tenants(3)))


def _stream(prompt: str) -> Any:
    return client().chat.completions.create(model=MODEL, messages=message(prompt), stream=True)


@GROUP.probe("stream, read in the scope")
def stream(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        for _ in _stream(tenant.ask()):
            pass


@GROUP.probe("stream, closed after the first chunk")
def stream_closed_early(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        chunks = _stream(tenant.ask())
        next(iter(chunks))
        chunks.close()


@GROUP.probe("streams of two tenants, read outside and in the other's scope")
def stream_read_elsewhere(lab: Lab) -> None:
    one, two = lab.tenants(2)
    with attributed(**one.fields):
        first = _stream(one.ask())
    with attributed(**two.fields):
        second = _stream(two.ask())
        for _ in first:
            pass
    for _ in second:
        pass


@GROUP.probe("async stream, read after its scope")
async def stream_async(lab: Lab) -> None:
    async with async_client() as shared:
        opened = []
        for tenant in lab.tenants(2):
            with attributed(**tenant.fields):
                prompt = tenant.ask()
                opened.append(await shared.chat.completions.create(model=MODEL, messages=message(prompt), stream=True))
        for chunks in opened:
            async for _ in chunks:
                pass


@GROUP.probe("with_raw_response")
def raw_response(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        raw = client().chat.completions.with_raw_response.create(model=MODEL, messages=message(tenant.ask()))
        raw.parse()


@GROUP.probe("with_streaming_response")
def streaming_response(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        create = client().chat.completions.with_streaming_response.create
        with create(model=MODEL, messages=message(tenant.ask())) as response:
            response.read()


@GROUP.probe("responses.create", needs=("openai>=1.66",))
def responses(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        client().responses.create(model=MODEL, input=tenant.ask())


@GROUP.probe("responses.create, stream", needs=("openai>=1.66",))
def responses_stream(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        for _ in client().responses.create(model=MODEL, input=tenant.ask(), stream=True):
            pass


@GROUP.probe("chat.completions.parse", needs=("openai>=1.92",))
def parse(lab: Lab) -> None:
    import pydantic

    class Ticket(pydantic.BaseModel):
        title: str
        urgent: bool

    tenant = lab.tenant()
    with attributed(**tenant.fields):
        client().chat.completions.parse(model=MODEL, messages=message(tenant.ask()), response_format=Ticket)


@GROUP.probe("embeddings.create")
def embeddings(lab: Lab) -> None:
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            client().embeddings.create(model="text-embedding-3-small", input=[tenant.ask(), "another text"])


@GROUP.probe("images.generate")
def images(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        client().images.generate(model="gpt-image-1", prompt=tenant.ask("A red bicycle."))


@GROUP.probe("an Assistants run, its tool outputs and polls")
def assistants(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # sunset at OpenAI, alive on compatible servers
        runs, thread = client().beta.threads.runs, client().beta.threads.create()
        run = runs.create_and_poll(
            thread_id=thread.id,
            assistant_id="asst_tools",
            instructions=tenant.ask("Use tools.", recorded=False),
            tools=[{"type": "function", "function": {"name": "track_parcel", "parameters": {"type": "object"}}}],
            poll_interval_ms=5,
        )
        call = run.required_action.submit_tool_outputs.tool_calls[0]
        output: Any = {"tool_call_id": call.id, "output": tenant.ask("shipped", recorded=False)}
        runs.submit_tool_outputs(run_id=run.id, thread_id=thread.id, tool_outputs=[output])


@GROUP.probe("a batch: its file and its creation")
def batch(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        body = {"model": MODEL, "messages": message(tenant.ask("Row one.", recorded=False))}
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
        file = client().files.create(file=("nightly.jsonl", json.dumps(line).encode()), purpose="batch")
        client().batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"job": tenant.ask("nightly", recorded=False)},
        )


@GROUP.probe("two retries after 429")
def retries(lab: Lab) -> None:
    tenant, patient = lab.tenant(), client().with_options(max_retries=3)
    with attributed(**tenant.fields):
        prompt = tenant.ask(f"[[loopback status=429;count=2;id={tenant.workflow_id}]] Hello.", requests=3)
        patient.chat.completions.create(model=MODEL, messages=message(prompt))


@GROUP.probe("with_options and copy")
def with_options(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        for made in (client().with_options(max_retries=5), client().copy(timeout=10)):
            made.chat.completions.create(model=MODEL, messages=message(tenant.ask()))


@GROUP.probe("a client made before instrument(), its own headers kept")
def older_client(lab: Lab) -> None:
    for tenant in lab.tenants(2):
        with attributed(**tenant.fields):
            _older.chat.completions.create(
                model=MODEL,
                messages=message(tenant.ask(keep=("billing", "cron-7"))),
                extra_headers={"x-source": "cron-7"},
            )


@GROUP.probe("no scope open: no tenant is made up")
def nobody(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        answer(tenant.ask())
    answer(lab.nobody().ask())
