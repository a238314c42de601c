"""capture(), as the tests of a user's own agent use it."""

from __future__ import annotations

import asyncio

import openai
import pytest

import attribkit
from attribkit import runtime
from attribkit.errors import ConfigurationError
from attribkit.testing import capture
from attribkit.testing.captured import Capture

ASK = [{"role": "user", "content": "Hello"}]


def ask(captured: Capture) -> None:
    with openai.OpenAI(base_url=captured.base_url, api_key="none") as client:
        client.chat.completions.create(model="gpt-5-mini", messages=ASK)


def test_what_an_entrypoint_sends_and_what_is_recorded() -> None:
    with capture() as captured:

        @attribkit.entrypoint("onboarding", tenant_id="tenant")
        async def onboard(tenant: str) -> None:
            async with openai.AsyncOpenAI(base_url=captured.base_url, api_key="none") as client:
                await client.chat.completions.create(model="gpt-5-mini", messages=ASK)

        async def both() -> None:
            await asyncio.gather(onboard("acme"), onboard("globex"))

        asyncio.run(both())
        captured.assert_attributed("tenant_id", "workflow_id", workflow="onboarding")
        assert {record.attribution.tenant_id for record in captured.records} == {"acme", "globex"}
        told = {request.response_id: request.attribution["tenant_id"] for request in captured.requests}
        assert told == {record.response_id: record.attribution.tenant_id for record in captured.records}
        with pytest.raises(AssertionError, match=r"call \d of 2 \(chat gpt-5-mini\): tenant_id='globex', not 'acme'"):
            captured.assert_attributed(tenant_id="acme")
        captured.clear()
        assert captured.records == () and captured.requests == []


def test_a_call_without_a_scope_is_found() -> None:
    with capture() as captured:
        with pytest.raises(AssertionError, match="no model call"):
            captured.assert_attributed(tenant_id="acme")
        ask(captured)
        with pytest.raises(AssertionError, match="on the wire: no tenant_id"):
            captured.assert_attributed("tenant_id")


@pytest.mark.parametrize("dialect", ["portkey", "litellm", "truefoundry", "helicone"])
def test_other_dialects_of_the_gateway(dialect: str) -> None:
    with capture(dialect=dialect) as captured, attribkit.attributed(tenant_id="acme, inc.", feature="x"):
        ask(captured)
        captured.assert_attributed(tenant_id="acme, inc.", feature="x")
        told = captured.requests[0].attribution
        assert (told["tenant_id"], told["feature"]) == ("acme, inc.", "x")


def test_faults_of_the_gateway_are_recorded_as_attempts() -> None:
    with capture() as captured, attribkit.attributed(tenant_id="acme"):
        captured.gateway.behave(status=429, count=1)
        ask(captured)
        assert [record.attempt for record in captured.records] == [0, 1]
        assert len({record.operation_id for record in captured.records}) == 1
        captured.assert_attributed(tenant_id="acme")


def test_it_leaves_everything_as_it_was() -> None:
    before = openai.OpenAI.__dict__, dict(vars(openai.OpenAI))
    with capture():
        assert runtime.active() is not None
    assert runtime.active() is None
    assert dict(vars(openai.OpenAI)) == before[1]


def test_what_ran_before_is_put_back() -> None:
    attribkit.instrument(ledger=None, require=("tenant_id",))
    try:
        with capture() as captured:
            active = runtime.active()
            assert active is not None and active.settings.require == ()
            ask(captured)
            assert len(captured.records) == 1
        active = runtime.active()
        assert active is not None and active.settings.require == ("tenant_id",)
    finally:
        attribkit.uninstrument()


def test_settings_go_to_instrument_but_the_ledger_is_its_own() -> None:
    with capture(require=("tenant_id",), on_missing="reject") as captured:
        with pytest.raises(attribkit.AttributionRequired):
            ask(captured)
        assert captured.requests == []
    with pytest.raises(ConfigurationError, match="leave ledger= out"), capture(ledger=None):
        pass
    assert runtime.active() is None
