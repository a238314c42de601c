"""What the programs here share: two tenants, whose requests are told apart by their prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attribkit

MODEL = "gpt-5-mini"
TENANTS = "acme", "globex"


def ask(base_url: str, prompt: str) -> str:
    """Make one model call, as the work of a program does."""
    import openai

    with openai.OpenAI(api_key="k", base_url=base_url, max_retries=0) as client:
        reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
    return str(reply.choices[0].message.content)


def fail(base_url: str, prompt: str) -> None:
    ask(base_url, prompt)
    raise LookupError(prompt)


@contextmanager
def scope(tenant: str | None) -> Iterator[None]:
    """Open a scope whose workflow run is that of the tenant; none for None."""
    if tenant is None:
        yield
        return
    with attribkit.attributed(tenant_id=tenant, workflow_id=f"run-of-{tenant}"):
        yield


Owner = tuple[str | None, str | None]


def sent(requests: Any) -> list[tuple[str, Owner]]:
    """Return each prompt with who the wire says that it is from, in the order of the prompts."""
    found = []
    for request in requests:
        fields = request.attribution
        prompt = json.loads(request.body)["messages"][-1]["content"]
        found.append((prompt, (fields.get("tenant_id"), fields.get("workflow_id"))))
    return sorted(found)


def asked(requests: Any) -> dict[str, Owner]:
    """Return the same for prompts that were sent once each."""
    prompts = sent(requests)
    found = dict(prompts)
    assert len(found) == len(prompts), f"sent twice: {prompts}"
    return found


def owner(prompt: str) -> Owner:
    """Return whose a prompt is: `tenant: anything`, or `nobody: anything`."""
    name = prompt.partition(":")[0]
    return (None, None) if name == "nobody" else (name, f"run-of-{name}")


def owned(*prompts: str) -> dict[str, Owner]:
    """Return what `asked` has to return."""
    return {prompt: owner(prompt) for prompt in prompts}


def post(base_url: str, prompt: str) -> str:
    """Make one model call without a client library, which a process that starts from scratch would import for long."""
    import httpx

    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
    reply = httpx.post(f"{base_url}/chat/completions", json=body, headers={"authorization": "Bearer k"})
    return str(reply.json()["choices"][0]["message"]["content"])
