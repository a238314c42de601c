"""For `opentelemetry-instrument`: attribkit as one of the instrumentors that it finds and turns on."""

from __future__ import annotations

from typing import Any

__all__ = ["AttribkitInstrumentor"]

AttribkitInstrumentor: Any
"""An OpenTelemetry instrumentor. `instrument(**settings)` takes the settings of `attribkit.instrument()`; those that it
does not know, as other instrumentors have them, are left out. `uninstrument()` takes everything off."""


def __getattr__(name: str) -> Any:
    """Make the class when it is asked for: its base class is in a package that attribkit does not need otherwise."""
    if name != "AttribkitInstrumentor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined, unused-ignore]

    class AttribkitInstrumentor(BaseInstrumentor):  # type: ignore[misc, unused-ignore]
        """attribkit, turned on and off as OpenTelemetry's instrumentors are."""

        def instrumentation_dependencies(self) -> tuple[str, ...]:
            return ()

        def _instrument(self, **given: Any) -> None:
            from attribkit import runtime
            from attribkit.settings import Settings

            runtime.instrument({name: value for name, value in given.items() if name in Settings.model_fields})

        def _uninstrument(self, **given: Any) -> None:
            from attribkit import runtime

            runtime.uninstrument()

    globals()[name] = AttribkitInstrumentor
    return AttribkitInstrumentor
