from __future__ import annotations

from collections.abc import Iterator

import pytest

from attribkit.testing import Gateway


@pytest.fixture(scope="session")
def gateway_process() -> Iterator[Gateway]:
    with Gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(gateway_process: Gateway) -> Gateway:
    gateway_process.reset()
    return gateway_process
