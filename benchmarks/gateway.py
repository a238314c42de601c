"""An in-process transport that answers like a model provider: no socket, so that only CPU work is measured."""

from __future__ import annotations

import importlib
import itertools
import json
from typing import Any

MODEL = "gpt-4o-mini"
BASE_URL = "http://llm.local/v1"
CHUNKS = 100
MESSAGES = [
    {"role": "system", "content": "Answer in one line."},
    {"role": "user", "content": "The customer asks whether the parcel that left Porto on Monday has passed customs."},
]
ANSWER = "It passed customs in Vigo this morning and is on its way."

_USAGE = {
    "prompt_tokens": 1380,
    "completion_tokens": 64,
    "total_tokens": 1444,
    "prompt_tokens_details": {"cached_tokens": 1280, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def _body(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def _chat() -> bytes:
    message = {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []}
    return _body(
        {
            "id": "chatcmpl-@",
            "object": "chat.completion",
            "created": 1767225600,
            "model": f"{MODEL}-2024-07-18",
            "service_tier": "default",
            "system_fingerprint": "fp_0",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": _USAGE,
        }
    )


def _response() -> bytes:
    text = {"type": "output_text", "text": ANSWER, "annotations": [], "logprobs": []}
    return _body(
        {
            "id": "resp_@",
            "object": "response",
            "created_at": 1767225600,
            "status": "completed",
            "model": MODEL,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "service_tier": "default",
            "output": [
                {"type": "message", "id": "msg_0", "status": "completed", "role": "assistant", "content": [text]}
            ],
            "usage": {
                "input_tokens": 1380,
                "input_tokens_details": {"cached_tokens": 1280},
                "output_tokens": 64,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 1444,
            },
        }
    )


def _stream() -> list[bytes]:
    head = {"id": "chatcmpl-@", "object": "chat.completion.chunk", "created": 1767225600, "model": MODEL}
    deltas: list[dict[str, Any]] = [{"content": f" word{number}"} for number in range(CHUNKS - 2)]
    events: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None} for delta in deltas
    ]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
    events.append({**head, "choices": [], "usage": _USAGE})
    return [b"data: " + _body(event) + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


class Provider:
    """Answers chat, streamed chat and Responses requests, each with an id of its own."""

    def __init__(self) -> None:
        import openai

        # openai is built on httpx2 from 3.x on, on httpx before.
        self.http = http = importlib.import_module("httpx2" if int(openai.__version__.split(".")[0]) >= 3 else "httpx")
        self.last_headers: Any = {}
        numbers = itertools.count()
        chat, response, stream = _chat(), _response(), _stream()
        reply_headers = {"content-type": "application/json", "x-request-id": "req_0"}
        stream_headers = {"content-type": "text/event-stream", "x-request-id": "req_0"}

        class Events(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc,name-defined]
            def __iter__(self) -> Any:
                return iter(stream)

            async def __aiter__(self) -> Any:
                for event in stream:
                    yield event

        def answer(request: Any) -> Any:
            self.last_headers = request.headers
            if request.url.path.endswith("/responses"):
                return http.Response(200, headers=reply_headers, content=response.replace(b"@", b"%d" % next(numbers)))
            if b'"stream":true' in request.content:
                return http.Response(200, headers=stream_headers, stream=Events())
            return http.Response(200, headers=reply_headers, content=chat.replace(b"@", b"%d" % next(numbers)))

        self._answer = answer

    def client(self, **changes: Any) -> Any:
        """Return a synchronous HTTP client that ends here."""
        return self.http.Client(transport=self.http.MockTransport(self._answer), **changes)

    def async_client(self, **changes: Any) -> Any:
        """Return an asynchronous HTTP client that ends here."""
        return self.http.AsyncClient(transport=self.http.MockTransport(self._answer), **changes)
