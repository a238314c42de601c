"""The worker, another process: its task streams a model's answer for whoever the request was that sent it."""

from __future__ import annotations

import os
from typing import Any

import openai
from celery import Celery

app = Celery("jobs", broker=os.environ["BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True


@app.task(name="follow_up")
def follow_up(question: str) -> None:
    messages: Any = [{"role": "user", "content": f"Write a short follow-up to: {question}"}]
    for _ in openai.OpenAI().chat.completions.create(model="gpt-5-mini", messages=messages, stream=True):
        pass
