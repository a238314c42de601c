"""What the programs here share: two tenants, whose requests are told apart by their prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

import attribkit

MODEL = "gpt-5-mini"
TENANTS = "acme", "globex"


def ask(base_url: str, prompt: str) -> str:
    """Make one model call, as the work of a program does."""
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


def asked(requests: Any) -> dict[str, tuple[str | None, str | None]]:
    """Return who the wire says each prompt is from."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for request in requests:
        prompt = json.loads(request.body)["messages"][-1]["content"]
        assert prompt not in found, f"{prompt} was sent twice"
        fields = request.attribution
        found[prompt] = fields.get("tenant_id"), fields.get("workflow_id")
    return found


def owned(*prompts: str) -> dict[str, tuple[str | None, str | None]]:
    """Return what `asked` has to return: a prompt is `tenant: anything`, or `nobody: anything`."""
    owners = [prompt.partition(":")[0] for prompt in prompts]
    return {
        prompt: (None, None) if owner == "nobody" else (owner, f"run-of-{owner}")
        for prompt, owner in zip(prompts, owners, strict=True)
    }
