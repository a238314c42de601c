"""The gateway as a process: load, its own spend log, start and end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal

import openai
import pytest

from attribkit.testing import Gateway, SpendRow

ASK = [{"role": "user", "content": "Hello"}]


def test_a_thousand_requests_at_once(gateway: Gateway) -> None:
    async def ask() -> None:
        limits = openai.DefaultAsyncHttpxClient(timeout=120)
        async with openai.AsyncOpenAI(
            base_url=gateway.base_url, api_key="none", http_client=limits, max_retries=0
        ) as c:

            async def one(number: int) -> None:
                tenant = f"t{number % 20}"
                reply = await c.chat.completions.create(
                    model="gpt-5-mini",
                    messages=[{"role": "user", "content": f"Question {number}"}],
                    extra_headers={"x-portkey-metadata": json.dumps({"tenant_id": tenant, "n": str(number)})},
                )
                assert reply.usage

            await asyncio.gather(*map(one, range(1000)))

    asyncio.run(ask())
    requests = gateway.requests()
    assert {request.attribution["n"] for request in requests} == {str(number) for number in range(1000)}
    assert len(requests) == 1000 and all(request.status == 200 for request in requests)
    rows = gateway.spend(["tenant_id"])
    assert len(rows) == 20 and all(row.calls == 50 for row in rows)
    assert sum(row.cost_usd for row in rows) == sum(request.cost_usd or 0 for request in requests)


def test_a_thousand_connections_at_once(gateway: Gateway) -> None:
    async def hold() -> None:
        head = b"GET /v1/models/m HTTP/1.1\r\nhost: x\r\n\r\n"
        pairs = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(1000)))
        for _, writer in pairs:
            writer.write(head)
        for reader, _ in pairs:
            assert (await reader.readline()).split()[1] == b"200"
        for _, writer in pairs:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in pairs), return_exceptions=True)

    asyncio.run(hold())
    requests = gateway.requests()
    assert len(requests) == 1000 == len({request.connection for request in requests})


def test_the_spend_log_knows_what_the_headers_say(gateway: Gateway) -> None:
    named = (
        {"x-portkey-metadata": '{"tenant_id":"acme","workflow":"triage"}'},
        {"x-litellm-tags": "tenant_id:globex, workflow:triage,plain"},
        {"x-portkey-metadata": "not json"},
        {},
    )
    with openai.OpenAI(base_url=gateway.base_url, api_key="none") as client:
        for headers in named:
            client.chat.completions.create(model="gpt-4.1-mini", messages=ASK, extra_headers=headers)
        client.chat.completions.create(model="someone-elses", messages=ASK)
    rows = {row.names: row for row in gateway.spend()}
    assert set(rows) == {("acme", "triage"), ("globex", "triage"), (None, None)}
    assert rows["acme", "triage"].cost_usd == rows["globex", "triage"].cost_usd > 0
    nobody = rows[None, None]
    assert nobody.calls == 3 and nobody.unpriced_calls == 1
    assert nobody.cost_usd == 2 * rows["acme", "triage"].cost_usd
    assert isinstance(nobody, SpendRow) and isinstance(nobody.cost_usd, Decimal)


def test_since_and_reset(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=gateway.base_url, api_key="none") as client:
        client.chat.completions.create(model="gpt-4.1-mini", messages=ASK)
        seen = gateway.requests()[-1].seq
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert [request.path for request in gateway.requests(since=seen)] == ["/v1/embeddings"]
    gateway.reset()
    assert gateway.requests() == [] and gateway.spend() == []


def test_it_stops_and_says_so() -> None:
    gateway = Gateway()
    assert gateway.running
    gateway.close()
    gateway.close()
    assert not gateway.running


def test_it_ends_with_its_parent_even_when_a_forked_child_lives_on() -> None:
    program = (
        "import os, time\n"
        "from attribkit.testing import Gateway\n"
        "gateway = Gateway()\n"
        "if os.fork() == 0:\n"
        "    time.sleep(30)\n"
        "    os._exit(0)\n"
        "print(gateway._process.pid, flush=True)\n"
        "time.sleep(30)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    number = int(parent.stdout.readline())
    os.kill(number, 0)
    parent.kill()
    parent.wait()
    try:
        for _ in range(400):
            with open(f"/proc/{number}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    break
            asyncio.run(asyncio.sleep(0.02))
        else:
            raise AssertionError("the gateway outlived its parent")
    except FileNotFoundError:
        pass
    finally:
        parent.stdout.close()
        os.killpg(parent.pid, signal.SIGKILL)


def test_it_runs_by_hand() -> None:
    command = [sys.executable, "-m", "attribkit.testing.gateway", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with openai.OpenAI(base_url=ready["url"] + "/v1", api_key="none") as client:
            assert client.chat.completions.create(model="gpt-4.1-mini", messages=ASK).usage
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_relay_sends_on_and_writes_both_sides_down(gateway: Gateway) -> None:
    headers = {"x-portkey-metadata": '{"tenant_id":"acme"}'}
    with (
        Gateway(relay_to=gateway.base_url) as relay,
        openai.OpenAI(base_url=relay.base_url, api_key="secret") as client,
    ):
        whole = client.chat.completions.create(model="gpt-4.1-mini", messages=ASK, extra_headers=headers)
        stream = client.chat.completions.create(
            model="gpt-4.1-mini", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        streamed = list(stream)
        silent = list(client.chat.completions.create(model="gpt-4.1-mini", messages=ASK, stream=True))
        with client.responses.stream(model="gpt-4.1-mini", input="Hello") as events:
            events.until_done()
        seen = relay.requests()
    assert whole.usage and streamed[-1].usage == whole.usage and silent
    arrived = gateway.requests()
    assert [request.header("authorization") for request in arrived] == ["Bearer secret"] * 4
    assert [request.body for request in seen] == [request.body for request in arrived]
    assert [request.response_id for request in seen] == [request.response_id for request in arrived]
    assert [request.usage for request in seen[:2]] == [request.usage for request in arrived[:2]]
    assert seen[2].usage is None and seen[3].usage == arrived[3].usage
    assert seen[0].attribution == arrived[0].attribution == {"tenant_id": "acme"}
    assert seen[1].outcome == "answered" and seen[1].model == "gpt-4.1-mini-2025-04-14"


def test_a_relay_to_nowhere_says_so() -> None:
    with Gateway(relay_to="http://127.0.0.1:9/v1") as relay:
        with openai.OpenAI(base_url=relay.base_url, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError, match="cannot be reached"):
                client.models.list()
    with pytest.raises(RuntimeError, match="no http or https URL"):
        Gateway(relay_to="ftp://somewhere")
