"""What the service tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services.serving import Listener


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.close()
