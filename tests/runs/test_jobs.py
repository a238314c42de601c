"""Runs, background responses and batches: attributed where they are created, charged once to their creator."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from runs.jobs import MODEL, TOOL, assistant, batch, finished

import attribkit
from attribkit import runtime
from attribkit.attribution import Attribution
from attribkit.calls import LLMCall
from attribkit.gateways.jobs import Creator
from attribkit.instrumentation.clients.openai_runs import Jobs

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API:DeprecationWarning")


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


@pytest.fixture
def client(seen: Any) -> Any:
    return seen.client(max_retries=0)


needs_responses = pytest.mark.skipif(
    not hasattr(openai.OpenAI, "responses"), reason="this version has no Responses API"
)


def charges(seen: Any) -> list[Any]:
    """Return the rows that cost something, or say why nothing is known of what they cost."""
    return [record for record in seen.records if record.cost.status != "free"]


def the_charge(seen: Any, tenant: str = "acme") -> Any:
    (record,) = charges(seen)
    assert (record.attribution.tenant_id, record.hop) == (tenant, "restored")
    return record


def test_create_and_poll_is_one_charge_for_the_creator(seen: Any, client: Any) -> None:
    assistant_id, thread_id = assistant(client)
    with attribkit.attributed(tenant_id="acme", plan="gold"):
        run = client.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id)
    charge = the_charge(seen)
    assert (charge.api, charge.status, charge.cost.status, charge.response_id) == ("runs", "ok", "priced", run.id)
    assert charge.usage.input_tokens == run.usage.prompt_tokens
    assert charge.attribution.get("plan") == "gold"
    (created,) = [record for record in seen.records if record is not charge]
    assert created.operation_id == charge.operation_id and created.cost.reason
    assert len(seen.call_spans()) == 1


def test_the_jobs_metadata_says_who_it_is_for_beside_the_users_own(seen: Any, client: Any) -> None:
    assistant_id, thread_id = assistant(client)
    mine = {"order": "o-1"}
    with attribkit.attributed(tenant_id="acme", plan="gold"):
        run = client.beta.threads.runs.create(thread_id=thread_id, assistant_id=assistant_id, metadata=mine)
    assert mine == {"order": "o-1"}
    assert run.metadata["order"] == "o-1" and run.metadata["tenant_id"] == "acme" and run.metadata["plan"] == "gold"
    assert run.metadata["attribkit"].startswith("v1 ")


def test_polled_in_another_scope_by_a_process_that_never_saw_it(seen: Any, client: Any, observe: Any) -> None:
    assistant_id, thread_id = assistant(client)
    with attribkit.attributed(tenant_id="acme", plan="gold"):
        run = client.beta.threads.runs.create(thread_id=thread_id, assistant_id=assistant_id)
    operation = seen.records[-1].operation_id
    attribkit.uninstrument()
    later = observe()  # as in another process: nothing is known but what the job says
    with attribkit.attributed(tenant_id="somebody-else"):
        while client.beta.threads.runs.retrieve(run.id, thread_id=thread_id).status != "completed":
            pass
    charge = the_charge(later)
    assert charge.operation_id == operation and charge.attribution.get("plan") == "gold"
    client.beta.threads.runs.retrieve(run.id, thread_id=thread_id)
    assert len(later.records) == 1


def test_a_streamed_run(seen: Any, client: Any) -> None:
    assistant_id, thread_id = assistant(client)
    with attribkit.attributed(tenant_id="acme"):
        with client.beta.threads.runs.stream(thread_id=thread_id, assistant_id=assistant_id) as stream:
            stream.until_done()
    assert the_charge(seen).cost.status == "priced"
    assert len(seen.call_spans()) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_outputs_are_a_part_of_the_run_and_carry_its_creator(seen: Any, client: Any, streamed: bool) -> None:
    assistant_id, thread_id = assistant(client, tools=[TOOL])
    runs = client.beta.threads.runs
    with attribkit.attributed(tenant_id="acme"):
        run = runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id)
    assert run.status == "requires_action"
    calls = run.required_action.submit_tool_outputs.tool_calls
    outputs = [{"tool_call_id": call.id, "output": "shipped"} for call in calls]
    if streamed:
        with runs.submit_tool_outputs_stream(run_id=run.id, thread_id=thread_id, tool_outputs=outputs) as stream:
            stream.until_done()
    else:
        runs.submit_tool_outputs_and_poll(run_id=run.id, thread_id=thread_id, tool_outputs=outputs)
    assert the_charge(seen).cost.status == "priced"
    (submitted,) = [one for one in seen.requests() if one.path.endswith("/submit_tool_outputs")]
    assert submitted.attribution["tenant_id"] == "acme"


def test_create_and_run(seen: Any, client: Any) -> None:
    assistant_id, _ = assistant(client)
    thread = {"messages": [{"role": "user", "content": "Hi"}]}
    with attribkit.attributed(tenant_id="acme"):
        client.beta.threads.create_and_run_poll(assistant_id=assistant_id, thread=thread)
    assert the_charge(seen).cost.status == "priced"


def test_async_polls(seen: Any, client: Any) -> None:
    assistant_id, thread_id = assistant(client)

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=seen.base_url) as other:
            with attribkit.attributed(tenant_id="acme"):
                await other.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id)

    asyncio.run(main())
    assert the_charge(seen).cost.status == "priced"


def test_a_cancelled_run_says_so(seen: Any, client: Any) -> None:
    assistant_id, thread_id = assistant(client)
    with attribkit.attributed(tenant_id="acme"):
        run = client.beta.threads.runs.create(thread_id=thread_id, assistant_id=assistant_id)
    client.beta.threads.runs.cancel(run.id, thread_id=thread_id)
    charge = the_charge(seen)
    assert (charge.status, charge.error, charge.cost.status) == ("cancelled", "cancelled", "unpriced")
    assert "was cancelled" in charge.cost.reason


@needs_responses
def test_a_background_response_polled_by_whoever(seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        made = client.responses.create(model=MODEL, input="Hi", background=True)
    while (found := client.responses.retrieve(made.id)).status != "completed":
        pass
    client.responses.retrieve(made.id)
    charge = the_charge(seen)
    assert (charge.api, charge.response_id, charge.served_tier) == ("responses", made.id, "default")
    assert charge.usage.output_tokens == found.usage.output_tokens
    assert found.metadata["tenant_id"] == "acme"


@needs_responses
def test_a_background_stream_is_charged_once_by_whoever_sees_its_end(seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        events = list(client.responses.create(model=MODEL, input="Hi", background=True, stream=True))
    client.responses.retrieve(events[-1].response.id)
    assert the_charge(seen).cost.status == "priced"


@needs_responses
def test_a_response_in_the_foreground_is_not_charged_again_when_it_is_retrieved(seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        made = client.responses.create(model=MODEL, input="Hi")
    client.responses.retrieve(made.id)
    (record,) = seen.records
    assert record.cost.status == "priced" and "attribkit" not in (made.metadata or {})


@needs_responses
def test_a_cancelled_background_response(seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        made = client.responses.create(model=MODEL, input="Hi", background=True)
    client.responses.cancel(made.id)
    assert (the_charge(seen).status, the_charge(seen).cost.status) == ("cancelled", "unpriced")


@needs_responses
def test_a_conversation_is_no_model_call_and_its_responses_are(seen: Any, client: Any) -> None:
    if not hasattr(client, "conversations"):
        pytest.skip("this version has no conversations")
    with attribkit.attributed(tenant_id="acme"):
        conversation = client.conversations.create(metadata={"topic": "orders"})
        client.responses.create(model=MODEL, input="Hi", conversation=conversation.id)
    assert len(seen.records) == 1 and {one.attribution["tenant_id"] for one in seen.requests()} == {"acme"}


def test_each_line_of_a_batch_is_a_row_at_the_batch_price(seen: Any, client: Any) -> None:
    with attribkit.attributed(tenant_id="acme", feature="digest"):
        made = batch(client, metadata={"mine": "kept"})
    assert made.metadata["mine"] == "kept" and made.metadata["tenant_id"] == "acme"
    done = finished(client, made.id)
    assert charges(seen) == []
    content = client.files.content(done.output_file_id)
    client.files.content(done.output_file_id)
    rows = charges(seen)
    lines = [json.loads(line) for line in content.text.splitlines()]
    assert len(rows) == len(lines) == 3
    for row, line in zip(rows, lines, strict=True):
        body = line["response"]["body"]
        assert (row.batch, row.api, row.attribution.tenant_id, row.hop) == (True, "chat", "acme", "restored")
        assert row.response_id == body["id"] and row.usage.output_tokens == body["usage"]["completion_tokens"]
        whole = attribkit.price(body["usage"], model=body["model"], provider="openai", api="chat")
        assert row.cost.usd == whole.usd / 2


def test_a_failed_line_says_so(seen: Any, client: Any) -> None:
    line = {"id": "b1", "custom_id": "q", "response": None, "error": {"code": "batch_expired", "message": "x"}}
    jobs = Jobs(runtime.active().pipeline)
    call = LLMCall("openai", "openai", "batches", seen.base_url, None)
    creator = Creator(Attribution.of({"tenant_id": "acme"}), None)
    jobs._outputs.keep("file-1", (call, creator, "batch_1", 1_700_000_000, "/v1/chat/completions"))
    jobs._read_output("file-1", json.dumps(line).encode())
    (record,) = seen.records
    assert (record.status, record.error, record.cost.status) == ("error", "batch_expired", "free")


@needs_responses
def test_where_no_gateway_is_the_target_is_told_nothing_and_this_process_remembers(observe: Any) -> None:
    seen = observe(gateways={})
    client = seen.client()
    with attribkit.attributed(tenant_id="acme"):
        made = client.responses.create(model=MODEL, input="Hi", background=True)
    while client.responses.retrieve(made.id).status != "completed":
        pass
    assert the_charge(seen).cost.status == "priced"
    assert all(b"acme" not in one.body for one in seen.requests())


@needs_responses
def test_sixteen_pairs_of_the_users_own_stay_and_nothing_is_added(seen: Any, client: Any) -> None:
    mine = {f"k{number}": "v" for number in range(16)}
    with attribkit.attributed(tenant_id="acme"):
        made = client.responses.create(model=MODEL, input="Hi", background=True, metadata=mine)
    assert made.metadata == mine
