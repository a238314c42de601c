"""For the tests of those who use attribkit: a loopback gateway that shows what left the process, and `capture()`."""

from __future__ import annotations

from attribkit.testing.captured import Capture, capture
from attribkit.testing.process import CapturedRequest, Gateway, SpendRow

__all__ = ["Capture", "CapturedRequest", "Gateway", "SpendRow", "capture"]
