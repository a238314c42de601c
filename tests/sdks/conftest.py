"""What the tests of SDKs share."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def settled() -> Iterator[None]:
    """Let go of what an SDK leaves open with the test that opened it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
