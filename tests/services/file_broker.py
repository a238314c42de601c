"""A Celery app on the filesystem broker: its messages are files, so that producer and workers are real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import Celery


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
