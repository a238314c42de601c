"""Bedrock through boto3: Converse and InvokeModel, whole and streamed; one row and one span for each request."""

from __future__ import annotations

import gc
import json
import threading
from typing import Any

import pytest

import attribkit

boto3 = pytest.importorskip("boto3")

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-lite-v1:0"
pytestmark = [pytest.mark.filterwarnings("ignore:Boto3 will no longer support"), pytest.mark.usefixtures("settled")]


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


def made(seen: Any, **more: Any) -> Any:
    from botocore.config import Config

    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=seen.gateway.url,
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        config=Config(retries={"max_attempts": 3, "mode": "standard"}),
        **more,
    )
    seen.opened.append(client)
    return client


def turns(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": text}]}]


def messages(text: str) -> str:
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": text}],
    }
    return json.dumps(body)


def converse(client: Any, text: str) -> None:
    assert client.converse(modelId=CLAUDE, messages=turns(text))["output"]["message"]["content"][0]["text"]


def converse_stream(client: Any, text: str) -> None:
    events = list(client.converse_stream(modelId=CLAUDE, messages=turns(text))["stream"])
    assert "metadata" in events[-1]


def invoke(client: Any, text: str) -> None:
    body = client.invoke_model(modelId=CLAUDE, body=messages(text))["body"]
    assert json.loads(body.read())["content"]


def invoke_stream(client: Any, text: str) -> None:
    events = list(client.invoke_model_with_response_stream(modelId=CLAUDE, body=messages(text))["body"])
    assert json.loads(events[0]["chunk"]["bytes"])["type"] == "message_start"


SHAPES = [converse, converse_stream, invoke, invoke_stream]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_shape_is_one_row_with_usage_and_cost(seen: Any, shape: Any) -> None:
    client = made(seen)
    with attribkit.attributed(tenant_id="acme"):
        shape(client, "Where is my order?")
    (record,), (request,), (span,) = seen.records, seen.requests(), seen.call_spans()
    assert request.attribution["tenant_id"] == record.attribution.tenant_id == span.attributes["attribkit.tenant_id"]
    assert (record.client, record.provider, record.region) == ("boto3", "bedrock", "us-east-1")
    assert (record.status, record.cost.status, record.requested_model) == ("ok", "priced", CLAUDE)
    stated = request.usage
    assert record.usage.output_tokens == stated.get("outputTokens", stated.get("output_tokens"))
    assert record.cost.usd > 0


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_dialect_of_bedrock_is_told_in_its_own_way(observe: Any, gateway: Any, shape: Any) -> None:
    seen = observe(gateways={gateway.url: "bedrock"})
    with attribkit.attributed(tenant_id="acme", team="r+d & co"):
        shape(made(seen), "Where is my order?")
    (request,) = seen.requests()
    said = json.loads(request.header("x-amzn-bedrock-request-metadata"))
    assert said["tenant_id"] == "acme"
    signed = request.header("authorization").split("SignedHeaders=")[1].split(",")[0]
    assert "x-amzn-bedrock-request-metadata" in signed
    if shape in (converse, converse_stream):
        assert request.json["requestMetadata"] == said


def test_the_users_own_metadata_and_arguments_stay(observe: Any, gateway: Any) -> None:
    seen = observe(gateways={gateway.url: "bedrock"})
    arguments: dict[str, Any] = {"modelId": NOVA, "messages": turns("Hi"), "requestMetadata": {"tenant_id": "mine"}}
    with attribkit.attributed(tenant_id="acme", feature="chat"):
        made(seen).converse(**arguments)
    assert arguments["requestMetadata"] == {"tenant_id": "mine"}
    assert seen.requests()[0].json["requestMetadata"] == {"tenant_id": "mine", "feature": "chat"}


def test_retries_are_attempts_of_one_operation(seen: Any) -> None:
    seen.gateway.behave(contains="once more", status=503, count=1)
    with attribkit.attributed(tenant_id="acme"):
        converse(made(seen), "once more")
    first, second = seen.records
    assert first.operation_id == second.operation_id and first.call_id != second.call_id
    assert (first.status, first.http_status, first.cost.status) == ("error", 503, "free")
    assert (second.status, second.attempt, second.cost.status) == ("ok", 1, "priced")
    assert [request.attribution["tenant_id"] for request in seen.requests()] == ["acme", "acme"]
    assert len(seen.call_spans()) == 1


def test_an_error_is_the_sdks_own_and_recorded(seen: Any) -> None:
    from botocore.exceptions import ClientError

    seen.gateway.behave(contains="not today", status=403)
    with pytest.raises(ClientError):
        converse(made(seen), "not today")
    (record,) = seen.records
    assert (record.status, record.http_status, record.cost.status) == ("error", 403, "free")


@pytest.mark.parametrize("how", ["close", "break", "unread"])
@pytest.mark.parametrize("api", ["converse", "invoke"])
def test_a_stream_that_is_left_is_abandoned_and_estimated(seen: Any, api: str, how: str) -> None:
    client = made(seen)
    if api == "converse":
        stream = client.converse_stream(modelId=CLAUDE, messages=turns("a long story about a late parcel"))["stream"]
    else:
        stream = client.invoke_model_with_response_stream(modelId=CLAUDE, body=messages("a long story"))["body"]
    if how != "unread":
        for number, _ in enumerate(stream):
            if number == 3:
                break
    connection = stream._raw_stream
    if how != "break":
        stream.close()
    del stream
    gc.collect()
    connection.close()
    (record,) = seen.records
    assert record.status == "abandoned"
    if how != "unread":
        assert record.cost.status == "estimated" and record.usage.output_tokens >= 1


def test_streams_of_two_tenants_read_in_turn_by_threads(seen: Any) -> None:
    client = made(seen)
    streams = []
    for tenant in ("acme", "globex"):
        with attribkit.attributed(tenant_id=tenant):
            streams.append(client.converse_stream(modelId=NOVA, messages=turns(f"for {tenant}"))["stream"])
    threads = [threading.Thread(target=list, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.attribution.tenant_id for record in seen.records) == ["acme", "globex"]
    assert {request.attribution["tenant_id"].encode() in request.body for request in seen.requests()} == {True}


def test_tools(seen: Any) -> None:
    client = made(seen)
    tool = {"name": "status", "inputSchema": {"json": {"type": "object", "properties": {"order": {"type": "string"}}}}}
    with attribkit.attributed(tenant_id="acme"):
        reply = client.converse(modelId=CLAUDE, messages=turns("Hi"), toolConfig={"tools": [{"toolSpec": tool}]})
    assert reply["stopReason"] == "tool_use"
    assert seen.records[0].cost.status == "priced"


def test_other_services_are_left_alone(seen: Any) -> None:

    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    seen.gateway.behave(contains="GetCallerIdentity", status=403, body="html")
    client = boto3.client("sts", endpoint_url=seen.gateway.url, **keys)
    with attribkit.attributed(tenant_id="acme"), pytest.raises(Exception):  # noqa: B017, PT011
        client.get_caller_identity()
    assert seen.records == [] and "acme" not in str(seen.requests()[0].headers)
