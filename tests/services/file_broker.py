"""A Celery app on the filesystem broker: its messages are files, so that producer and workers are real processes."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.transport import filesystem
from kombu.utils.json import dumps


def _put_whole(channel: Any, queue: str, payload: Any, **_: Any) -> None:
    """Put a message where others see it once it is written: kombu's own lets a worker read an empty file."""
    path = Path(channel.data_folder_out, f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg")
    part = path.with_suffix(".part")
    part.write_text(dumps(payload))
    part.rename(path)


filesystem.Channel._put = _put_whole


def configured(name: str, root: str, **more: Any) -> Celery:
    """Return an app whose broker and results live in `root`."""
    for part in ("queue", "control", "results"):
        Path(root, part).mkdir(exist_ok=True)
    app = Celery(name, broker="filesystem://", backend=f"file://{root}/results")
    app.conf.update(
        broker_transport_options={
            "data_folder_in": f"{root}/queue",
            "data_folder_out": f"{root}/queue",
            "control_folder": f"{root}/control",
            "polling_interval": 0.05,
        },
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        result_chord_retry_interval=0.1,
        **more,
    )
    return app
