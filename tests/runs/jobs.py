"""Jobs as users write them: an assistant's runs, background responses, batches."""

from __future__ import annotations

import json
import warnings
from typing import Any

MODEL = "gpt-5-mini"
TOOL = {"type": "function", "function": {"name": "status", "parameters": {"type": "object", "properties": {}}}}


def assistant(client: Any, **more: Any) -> tuple[str, str]:
    """Return the ids of a new assistant and of a thread with one question."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made = client.beta.assistants.create(model=MODEL, **more)
        thread = client.beta.threads.create(messages=[{"role": "user", "content": "Where is my order?"}])
    return made.id, thread.id


def batch(client: Any, questions: int = 3, **more: Any) -> Any:
    """Upload lines and return the batch that was made of them."""
    lines = []
    for number in range(questions):
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"Question {number}"}]}
        line = {"custom_id": f"q{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line))
    file = client.files.create(file=("lines.jsonl", "\n".join(lines).encode()), purpose="batch")
    endpoint = "/v1/chat/completions"
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def finished(client: Any, batch_id: str) -> Any:
    """Poll a batch until it has ended."""
    while True:
        found = client.batches.retrieve(batch_id)
        if found.status not in ("validating", "in_progress", "finalizing"):
            return found
