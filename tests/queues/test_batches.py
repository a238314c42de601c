"""Workers that gather items of several tenants before they work on them: each call is for its own item's tenant, a
call for several for nobody, and none for another's."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

import attribkit
from attribkit import attributed

OWNERS = ("acme", "globex", "none", "acme", "initech")
Asked = list[tuple[str, str | None]]


class Job(NamedTuple):
    prompt: str
    reply: list[str]


class Ticket:
    def __init__(self, prompt: str) -> None:
        self.prompt = prompt


MAKERS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "text": (lambda prompt: prompt, lambda item: item),
    "tuple": (lambda prompt: Job(prompt, []), lambda item: item.prompt),
    "dict": (lambda prompt: {"prompt": prompt, "tone": "friendly"}, lambda item: item["prompt"]),
    "object": (Ticket, lambda item: item.prompt),
}


class Model:
    """Stands where a model is called: notes for whom, from a library's depth."""

    def __init__(self) -> None:
        self.asked: Asked = []

    def ask(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        return self._send({"model": "m", "messages": messages})

    def _send(self, body: dict[str, Any]) -> str:
        self.asked.append((body["messages"][-1]["content"], attribkit.current().tenant_id))
        return "an answer"

    async def ask_later(self, prompt: str) -> str:
        await asyncio.sleep(0)
        return self.ask(prompt)


def put_all(items: Any, make: Callable[[str], Any], owners: tuple[str, ...] = OWNERS) -> list[str]:
    prompts = []
    for n, owner in enumerate(owners):
        prompts.append(f"{owner} asks {n}")
        with attributed(tenant_id=None if owner == "none" else owner):
            items.put_nowait(make(prompts[-1]))
    return prompts


def right(prompts: list[str]) -> Asked:
    return sorted((prompt, None if prompt.startswith("none") else prompt.split()[0]) for prompt in prompts)


def one_by_one(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    for item in batch:
        model.ask(text(item))


def in_a_function(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    def handle(item: Any) -> None:
        model.ask(f"{text(item)}")

    for item in batch:
        handle(item)


def popped(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    while batch:
        model.ask(text(batch.pop()))


def listed(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    [model.ask(text(item)) for item in batch]


def submitted(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(model.ask, text(item)) for item in batch]:
            future.result()


def mapped(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda item: model.ask(text(item)), batch))


def threads(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    started = [threading.Thread(target=functools.partial(model.ask, text(item))) for item in batch]
    for each in started:
        each.start()
        each.join()


def work(items: Any, batch_done: Callable[[list[Any]], None], size: int) -> None:
    """The usual loop: one blocking get, then what else is there."""
    done = False
    while not done:
        batch = [items.get()]
        while len(batch) < size:
            try:
                batch.append(items.get_nowait())
            except queue.Empty:
                break
        if None in batch:
            batch.remove(None)
            done = True
        batch_done(batch)


def in_worker(do: Callable[..., None], kind: Any, made: str, size: int = 5) -> tuple[Asked, list[str]]:
    make, text = MAKERS[made]
    model, items = Model(), kind()
    prompts = put_all(items, make)
    thread = threading.Thread(target=work, args=(items, lambda batch: do(batch, text, model), size))
    thread.start()
    items.put(None)
    thread.join()
    return sorted(model.asked, key=str), prompts


EACH = [one_by_one, in_a_function, popped, listed, submitted, mapped]


@pytest.mark.parametrize("made", MAKERS)
@pytest.mark.parametrize("do", EACH, ids=lambda each: each.__name__)
def test_each_item_by_itself(observe: Any, do: Callable[..., None], made: str) -> None:
    observe()
    for kind in (queue.Queue, queue.SimpleQueue):
        asked, prompts = in_worker(do, kind, made, 4)
        assert asked == right(prompts)


def test_threads_that_are_made_for_each_are_never_anothers(observe: Any) -> None:
    observe()
    asked, prompts = in_worker(threads, queue.Queue, "text")
    wrong = [pair for pair in asked if pair[1] is not None and pair not in right(prompts)]
    assert not wrong


def joined(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    if batch:
        model.ask(" + ".join(text(item) for item in batch))


def first_of_all(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    for item in batch:
        latest = f"{text(item)}!"
    if len(batch) > 1:
        model.ask(f"{latest} and {len(batch) - 1} more")


def as_pairs(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    def compare(one: Any, other: Any) -> None:
        model.ask(f"{text(one)} or {text(other)}")

    for one, other in zip(batch[:-1:2], batch[1::2], strict=False):
        compare(one, other)


def popped_and_told(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    while batch:
        item = batch.pop()
        prompt = f"{text(item)}?"
        model.ask(prompt)


def in_other_words(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    for item in batch:
        prompt = f"{text(item)}?"
        model.ask(prompt)


def in_a_text(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    for item in batch:
        model.ask(f"{text(item)}!")


def numbered(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    tone = "kindly"
    for number, item in enumerate(batch, 1):
        prompt = f"{text(item)} {tone} {number}"
        if number:
            model.ask(f"{text(item)} {number}")
        else:
            model.ask(prompt)


def of_the_last_round(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    prompt = ""
    for item in batch:
        model.ask(prompt or text(item))
        prompt = f"{text(item)}!"


def of_some_round(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    prompt = ""
    for number, item in enumerate(batch):
        if number % 2 == 0:
            prompt = f"{text(item)}!"
        model.ask(prompt)


def rolling(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    so_far = text(batch[0]) if batch else ""
    for item in batch:
        so_far = f"{so_far} + {text(item)}"
        model.ask(so_far)


def in_an_attribute(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    notes = Ticket("")
    for item in batch:
        model.ask(f"{text(item)} {notes.prompt}")
        notes.prompt += f" + {text(item)}"


def among_all(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    for item in batch:
        model.ask(f"{text(item)} + {' + '.join(text(each) for each in batch)}")


def piling_up(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    said: list[str] = []
    for item in batch:
        said.append(f"{text(item)}?")
        model.ask(" + ".join(said))


TEXTS = [in_other_words, in_a_text, numbered]
NOBODYS = [joined, first_of_all, as_pairs, popped_and_told, piling_up, of_the_last_round, of_some_round, rolling]
NOBODYS += [in_an_attribute, among_all, *TEXTS]


@pytest.mark.parametrize("made", MAKERS)
@pytest.mark.parametrize("do", TEXTS, ids=lambda each: each.__name__)
def test_a_text_that_is_made_in_the_loop(observe: Any, do: Callable[..., None], made: str) -> None:
    observe()
    asked, prompts = in_worker(do, queue.Queue, made, 4)
    assert [tenant for _, tenant in asked] == [tenant for _, tenant in right(prompts)]


@pytest.mark.parametrize("made", MAKERS)
@pytest.mark.parametrize("do", NOBODYS, ids=lambda each: each.__name__)
def test_what_cannot_be_told_is_never_anothers(observe: Any, do: Callable[..., None], made: str) -> None:
    observe()
    for size in (2, 3, 5):
        asked, _ = in_worker(do, queue.Queue, made, size)
        assert asked
        for prompt, tenant in asked:
            owners = {part.split()[0] for part in prompt.replace(" or ", " + ").split(" + ") if part.strip()}
            certain = "more" not in prompt and owners == {tenant}
            assert tenant is None or certain, (prompt, tenant)


def test_equal_prompts_tell_nothing(observe: Any) -> None:
    """Two tenants ask the same, by one object: which of them it is for is open."""
    observe()
    model, items = Model(), queue.Queue[Any]()
    same = "How much is left?"
    for owner in ("acme", "globex", "initech"):
        with attributed(tenant_id=owner):
            items.put(same if owner != "initech" else "What is " + str(len(owner)))

    def do(batch: list[Any]) -> None:
        for item in batch:
            model.ask(item)

    thread = threading.Thread(target=work, args=(items, do, 3))
    thread.start()
    items.put(None)
    thread.join()
    assert model.asked == [(same, None), (same, None), ("What is 7", "initech")]


async def gathered(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    await asyncio.gather(*[model.ask_later(text(item)) for item in batch])


async def tasks(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    async def handle(item: Any) -> None:
        await asyncio.sleep(0)
        await model.ask_later(f"{text(item)}")

    async with asyncio.TaskGroup() as group:
        for item in batch:
            group.create_task(handle(item))


async def awaited(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    for item in batch:
        await model.ask_later(text(item))


async def in_threads(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    await asyncio.gather(*[asyncio.to_thread(model.ask, text(item)) for item in batch])


async def limited(batch: list[Any], text: Callable[[Any], str], model: Model) -> None:
    turns = asyncio.Semaphore(1)

    async def one(item: Any) -> None:
        async with turns:
            await model.ask_later(text(item))

    for done in asyncio.as_completed([one(item) for item in batch]):
        await done


async def work_later(items: Any, do: Callable[..., Any], size: int) -> None:
    while True:
        batch = [await items.get()]
        try:
            while len(batch) < size:
                batch.append(await asyncio.wait_for(items.get(), 0.02))
        except TimeoutError:
            pass
        if batch[-1] is None:
            batch.pop()
            return await do(batch)
        await do(batch)


@pytest.mark.parametrize("made", MAKERS)
@pytest.mark.parametrize("do", [gathered, tasks, awaited, in_threads, limited], ids=lambda each: each.__name__)
def test_each_item_of_an_asyncio_queue(observe: Any, do: Callable[..., Any], made: str) -> None:
    observe()
    make, text = MAKERS[made]
    model = Model()

    async def main() -> list[str]:
        items: asyncio.Queue[Any] = asyncio.Queue()
        worker = asyncio.create_task(work_later(items, lambda batch: do(batch, text, model), 4))
        await asyncio.sleep(0)
        prompts = put_all(items, make)
        await asyncio.sleep(0)
        items.put_nowait(None)
        await worker
        return prompts

    prompts = asyncio.run(main())
    assert sorted(model.asked, key=str) == right(prompts)


def test_a_batch_of_one_tenant_is_its_own(observe: Any) -> None:
    observe()
    model, items = Model(), queue.Queue[Any]()
    put_all(items, MAKERS["text"][0], ("acme", "acme", "acme"))
    thread = threading.Thread(target=work, args=(items, lambda batch: joined(batch, str, model), 3))
    thread.start()
    items.put(None)
    thread.join()
    assert [tenant for _, tenant in model.asked] == ["acme"]


def test_a_long_run_keeps_no_items(observe: Any) -> None:
    """Whole batches of one tenant, over and over: what was worked on is let go."""
    observe()
    items: queue.Queue[Any] = queue.Queue()
    kept: list[int] = []

    def do(batch: list[Any]) -> None:
        kept.append(len(getattr(attribkit.context.scope(), "members", ())))

    thread = threading.Thread(target=work, args=(items, do, 4))
    thread.start()
    with attributed(tenant_id="acme"):
        for _ in range(1000):
            items.put(Ticket("x"))
    items.put(None)
    thread.join()
    assert max(kept) < 200


async def tenant() -> str | None:
    await asyncio.sleep(0)
    return attribkit.current().tenant_id


def test_what_begins_after_the_last_item_is_not_its_tenants(observe: Any) -> None:
    """A loop that ends when the queue is empty asks for no further item."""
    observe()

    async def drain(items: asyncio.Queue[str]) -> str | None:
        inside = None
        while not items.empty():
            await items.get()
            inside = await asyncio.create_task(tenant())
        return inside

    async def main() -> list[Any]:
        items: asyncio.Queue[str] = asyncio.Queue()
        put_all(items, str, ("acme",))
        found = [await drain(items), await asyncio.create_task(tenant())]
        put_all(items, str, ("acme",))
        await drain(items)
        found += await asyncio.gather(tenant(), asyncio.to_thread(lambda: attribkit.current().tenant_id))
        return [*found, await tenant()]

    assert asyncio.run(main()) == ["acme", None, None, None, None]


def test_a_loop_that_is_run_after_the_last_item_is_nobodys(observe: Any) -> None:
    observe()
    items: queue.Queue[str] = queue.Queue()
    found = []

    def drain() -> None:
        while not items.empty():
            items.get()
            found.append(asyncio.run(tenant()))

    put_all(items, str, ("acme", "globex"))
    drain()
    found.append(asyncio.run(tenant()))
    assert found == ["acme", "globex", None]
