"""The loopback gateway's Messages API, as Anthropic's SDK reads it."""

from __future__ import annotations

import pytest

from attribkit.testing import Gateway

anthropic = pytest.importorskip("anthropic")
ASK = [{"role": "user", "content": "Where is my order?"}]
TOOL = {"name": "look_up", "input_schema": {"type": "object", "properties": {"order": {"type": "string"}}}}


def test_messages_whole_streamed_and_with_tools(gateway: Gateway) -> None:
    with anthropic.Anthropic(base_url=gateway.url, api_key="none") as client:
        ask = {"model": "claude-sonnet-5-5", "max_tokens": 500, "messages": ASK}
        whole = client.messages.create(**ask)
        assert whole.content[0].text and whole.usage.input_tokens and whole.usage.service_tier == "standard"
        with client.messages.stream(**ask) as stream:
            final = stream.get_final_message()
        assert final.content[0].text == whole.content[0].text
        assert final.usage.output_tokens == whole.usage.output_tokens
        call = client.messages.create(**ask, tools=[TOOL])
        assert call.stop_reason == "tool_use" and call.content[0].input == {"order": "Where is my order?"}
        result = {"type": "tool_result", "tool_use_id": call.content[0].id, "content": "it left"}
        turns = [*ASK, {"role": "assistant", "content": call.content}, {"role": "user", "content": [result]}]
        assert client.messages.create(**{**ask, "messages": turns}, tools=[TOOL]).stop_reason == "end_turn"
        assert client.messages.count_tokens(model="claude-sonnet-5-5", messages=ASK).input_tokens > 300
    assert {request.path for request in gateway.requests()} == {"/v1/messages", "/v1/messages/count_tokens"}
