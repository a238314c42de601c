"""Models whose SDK no patch sees are metered from what LangChain restates, once; caches cost nothing and say so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import attribkit
from attribkit.errors import AttributionRequired, BudgetExceeded

pytest.importorskip("langchain_openai")

from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel, FakeListChatModel, FakeListLLM
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

_timeouts = itertools.count(4060)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

USAGE = {
    "input_tokens": 1000,
    "output_tokens": 200,
    "total_tokens": 1200,
    "input_token_details": {"cache_read": 400},
    "output_token_details": {"reasoning": 50},
}


class House(BaseChatModel):
    """A user's own model: over a protocol that nobody patches."""

    model: str = "claude-sonnet-4-5"
    fails: bool = False

    @property
    def _llm_type(self) -> str:
        return "house"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "anthropic", "ls_model_name": self.model, "ls_model_type": "chat", "ls_max_tokens": 200}

    def _message(self, kind: type[AIMessage], **more: Any) -> AIMessage:
        if self.fails:
            raise ConnectionResetError("gone")
        return kind(content="five", id="msg_1", response_metadata={"model_name": "claude-sonnet-4-5-20250929"}, **more)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message(AIMessage, usage_metadata=USAGE))])


class Streaming(House):
    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        yield ChatGenerationChunk(message=self._message(AIMessageChunk))
        for part in ({**USAGE, "output_tokens": 0}, {"input_tokens": 0, "output_tokens": 200, "total_tokens": 200}):
            yield ChatGenerationChunk(message=AIMessageChunk(content="and a few more words", usage_metadata=part))


@pytest.fixture
def seen(observe: Any) -> Any:
    return observe()


@pytest.fixture(autouse=True)
def _no_cache() -> Iterator[None]:
    yield
    set_llm_cache(None)


def gpt(seen: Any, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-5-mini", api_key="k", base_url=seen.base_url, timeout=next(_timeouts), max_retries=0, **more
    )


def only(seen: Any) -> Any:
    """Return the one row; its span says the same, and nothing else is there."""
    (record,) = seen.records
    (span,) = seen.call_spans()
    assert span.attributes.get("attribkit.tenant_id") == record.attribution.tenant_id
    assert record.span_id == f"{span.context.span_id:016x}"
    return record


def check(record: Any) -> None:
    assert record.client == "langchain" and record.provider == "anthropic" and record.status == "ok"
    assert record.requested_model == "claude-sonnet-4-5"
    assert record.served_model == "claude-sonnet-4-5-20250929"
    assert record.usage.meters == (("input", 600), ("cache_read", 400), ("output", 200))
    facts = {"model": "claude-sonnet-4-5", "provider": "anthropic"}
    payload = {"input_tokens": 600, "cache_read_input_tokens": 400, "output_tokens": 200}
    assert record.cost.usd == attribkit.price(payload, **facts).usd
    assert record.response_id == "msg_1"
    assert record.attribution.tenant_id == "acme"


def test_a_model_of_ones_own(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        House().invoke("hi")
    check(only(seen))


def test_async_batches_and_chains(seen: Any) -> None:
    chain = RunnableLambda(lambda text: text) | House()

    async def one(tenant: str) -> None:
        with attribkit.attributed(tenant_id=tenant):
            await chain.ainvoke("hi")
            await chain.abatch(["a", "b"])

    async def main() -> None:
        await asyncio.gather(one("acme"), one("globex"))

    asyncio.run(main())
    assert sorted(record.attribution.tenant_id for record in seen.records) == ["acme"] * 3 + ["globex"] * 3
    assert len(seen.call_spans()) == 6


def test_metadata_of_the_config_is_adopted(seen: Any) -> None:
    House().invoke("hi", config={"metadata": {"tenant_id": "acme"}})
    list(Streaming().stream("hi", config={"metadata": {"tenant_id": "acme"}}))
    assert [(each.attribution.tenant_id, each.hop) for each in seen.records] == [("acme", "adopted")] * 2


def test_a_stream(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        items = Streaming().stream("hi")
    assert "".join(str(item.content) for item in items).startswith("five")
    record = only(seen)
    check(record)
    assert record.stream and record.first_chunk_ns


def test_an_async_stream_and_events(seen: Any) -> None:
    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            items = Streaming().astream("hi")
            events = (RunnableLambda(lambda text: text) | Streaming()).astream_events("hi", version="v2")
        async for _ in items:
            assert not attribkit.current()
        async for _ in events:
            pass

    asyncio.run(main())
    assert len(seen.records) == 2 == len(seen.call_spans())
    for record in seen.records:
        check(record)


def test_a_stream_that_is_left(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        items = Streaming().stream("hello there, this is a question of some length")
        next(items)
        items.close()
    record = only(seen)
    assert record.status == "abandoned"
    assert record.usage.estimated and dict(record.usage.meters)["input"] > 5

    async def main() -> None:
        with attribkit.attributed(tenant_id="acme"):
            items = Streaming().astream("hi")
            await anext(items)
            await items.aclose()

    asyncio.run(main())
    assert [each.status for each in seen.records] == ["abandoned"] * 2


def test_a_model_that_does_not_stream_is_counted_once_by_stream(seen: Any) -> None:
    for _ in range(3):
        with attribkit.attributed(tenant_id="acme"):
            list(House().stream("hi"))
    assert len(seen.records) == 3 == len(seen.call_spans())
    for record in seen.records:
        check(record)


def test_a_failure_is_a_row(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"), pytest.raises(ConnectionResetError):
        House(fails=True).invoke("hi")
    with attribkit.attributed(tenant_id="acme"), pytest.raises(ConnectionResetError):
        list(Streaming(fails=True).stream("hi"))
    assert [(each.status, each.error) for each in seen.records] == [("error", "ConnectionResetError")] * 2
    assert all(each.cost.status == "unpriced" for each in seen.records)


def test_a_model_without_usage_is_unpriced_and_says_why(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        FakeListChatModel(responses=["a"]).invoke("hi")
    record = only(seen)
    assert record.cost.status == "unpriced" and record.cost.reason


def test_a_patched_client_below_is_counted_once(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        for _ in range(3):
            gpt(seen).invoke("hi")
            list(gpt(seen).stream("hi"))
        asyncio.run(gpt(seen).ainvoke("hi"))
    assert len(seen.records) == len(seen.requests()) == 7 == len(seen.call_spans())
    assert {record.client for record in seen.records} == {"openai"}


class Router(BaseChatModel):
    """A model that asks others."""

    models: list[Any]

    @property
    def _llm_type(self) -> str:
        return "router"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        for model in self.models:
            answer = model.invoke(messages)
        return ChatResult(generations=[ChatGeneration(message=answer)])


class Threaded(Router):
    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        from langchain_core.runnables import RunnableParallel

        answers = RunnableParallel({str(n): model for n, model in enumerate(self.models)}).invoke(messages)
        return ChatResult(generations=[ChatGeneration(message=answers["0"])])


@pytest.mark.parametrize("kind", [Router, Threaded])
def test_a_model_that_asks_models_is_not_a_call_of_its_own(seen: Any, kind: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        for _ in range(2):
            kind(models=[gpt(seen), House()]).invoke("hi")
    assert sorted(record.client for record in seen.records) == ["langchain"] * 2 + ["openai"] * 2
    assert len(seen.call_spans()) == 4
    assert {record.attribution.tenant_id for record in seen.records} == {"acme"}


def test_retries_and_fallbacks_count_each_attempt_once(seen: Any) -> None:
    chain = House(fails=True).with_retry(
        retry_if_exception_type=(ConnectionResetError,), stop_after_attempt=2, wait_exponential_jitter=False
    )
    with attribkit.attributed(tenant_id="acme"):
        chain.with_fallbacks([gpt(seen)]).invoke("hi")
    assert [(each.client, each.status) for each in seen.records] == [("langchain", "error")] * 2 + [("openai", "ok")]


def test_with_the_clients_patch_off_the_framework_tells(observe: Any) -> None:
    seen = observe(hops={"openai": False})
    with attribkit.attributed(tenant_id="acme"):
        gpt(seen).invoke("hi")
        list(gpt(seen, stream_usage=True).stream("hi"))
    assert [record.client for record in seen.records] == ["langchain", "langchain"]
    assert [record.cost.status for record in seen.records] == ["priced", "priced"]
    assert len(seen.requests()) == 2


# -- caches -----------------------------------------------------------------------------------------------------------


def free(record: Any) -> bool:
    return record.cost.status == "free" and record.cost.usd == 0 and "cache" in record.cost.reason


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_cache_hit_costs_nothing_and_says_so(seen: Any, everywhere: bool) -> None:
    cache = InMemoryCache()
    if everywhere:
        set_llm_cache(cache)
    model = gpt(seen) if everywhere else gpt(seen, cache=cache)
    with attribkit.attributed(tenant_id="acme"):
        model.invoke("hi")
    with attribkit.attributed(tenant_id="globex"):
        model.invoke("hi")
        asyncio.run(model.ainvoke("hi"))
        model.invoke("something else")
    assert len(seen.requests()) == 2 == len(seen.call_spans())
    assert [free(record) for record in seen.records] == [False, True, True, False]
    assert [record.attribution.tenant_id for record in seen.records] == ["acme", "globex", "globex", "globex"]
    assert seen.records[1].requested_model == "gpt-5-mini"
    assert not seen.records[1].usage.meters


def test_cache_hits_of_a_model_of_ones_own(seen: Any) -> None:
    model = House(cache=InMemoryCache())
    with attribkit.attributed(tenant_id="acme"):
        model.invoke("hi")
        model.invoke("hi")
        list(model.stream("hi"))
    assert [free(record) for record in seen.records] == [False, True, True]
    check(seen.records[0])


def test_a_cache_that_is_turned_off_for_a_model(seen: Any) -> None:
    set_llm_cache(InMemoryCache())
    with attribkit.attributed(tenant_id="acme"):
        House(cache=False).invoke("hi")
        House(cache=False).invoke("hi")
    assert [free(record) for record in seen.records] == [False, False]


# -- text models ------------------------------------------------------------------------------------------------------


def test_a_text_model(seen: Any) -> None:
    with attribkit.attributed(tenant_id="acme"):
        FakeListLLM(responses=["a", "b"]).invoke("hi")
        asyncio.run(FakeListLLM(responses=["a", "b"]).ainvoke("hi"))
        list(FakeListLLM(responses=["a"]).stream("hi"))
    assert [record.api for record in seen.records] == ["completions"] * 3
    assert len(seen.call_spans()) == 3
    assert {record.attribution.tenant_id for record in seen.records} == {"acme"}


class Wordy(LLM):
    """A text model that asks a patched client."""

    client: Any

    @property
    def _llm_type(self) -> str:
        return "wordy"

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        made = self.client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": prompt}])
        return str(made.choices[0].message.content)


def test_a_text_model_over_a_patched_client(seen: Any) -> None:
    set_llm_cache(InMemoryCache())
    model = Wordy(client=seen.client())
    with attribkit.attributed(tenant_id="acme"):
        model.invoke("hi")
        model.invoke("hi")
        model.invoke("you", config={"metadata": {"workflow": "w"}})
    assert [record.client for record in seen.records] == ["openai", "langchain", "openai"]
    assert [free(record) for record in seen.records] == [False, True, False]
    assert seen.records[2].attribution.workflow == "w"


# -- what refuses a call ----------------------------------------------------------------------------------------------


def test_required_fields_are_required_of_every_model(observe: Any) -> None:
    seen = observe(require=("tenant_id",), on_missing="reject")
    with pytest.raises(AttributionRequired):
        House().invoke("hi")
    with pytest.raises(AttributionRequired):
        list(Streaming().stream("hi"))
    assert [record.status for record in seen.records] == ["rejected"] * 2


def test_budgets_hold_every_model(observe: Any) -> None:
    budget = attribkit.Budget("small", limit="0.004", window="day", match={"tenant_id": "acme"})
    seen = observe(budgets=[budget], budget_store=None)
    with attribkit.attributed(tenant_id="acme"):
        House().invoke("hi")
        with pytest.raises(BudgetExceeded):
            House().invoke("hi")
    with attribkit.attributed(tenant_id="globex"):
        House().invoke("hi")
    assert [record.status for record in seen.records] == ["ok", "rejected", "ok"]


# -- the app comes first ----------------------------------------------------------------------------------------------


def test_callbacks_and_results_stay_as_they_are(seen: Any) -> None:
    told: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            told.append("start")

        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            told.append("end")
            raise RuntimeError("broken")

    answer = House().invoke("hi", config={"callbacks": [Handler()]})
    assert told == ["start", "end"]
    assert answer.usage_metadata == USAGE
    assert len(seen.records) == 1


def test_odd_messages_are_no_fault(seen: Any) -> None:
    class Odd(House):
        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            raise RuntimeError("no")

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            message = AIMessage(content=[{"type": "text", "text": "a"}], response_metadata={"model_name": 7})
            return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"token_usage": {"a": "b"}})

    with pytest.raises(RuntimeError):  # LangChain asks for them itself
        Odd().invoke("hi")


async def _drain(items: AsyncIterator[Any]) -> int:
    return len([item async for item in items])


def test_turned_off(observe: Any) -> None:
    seen = observe(hops={"langchain": False})
    with attribkit.attributed(tenant_id="acme"):
        House().invoke("hi")
        assert asyncio.run(_drain(Streaming().astream("hi"))) >= 3
        gpt(seen).invoke("hi")
    assert [record.client for record in seen.records] == ["openai"]
