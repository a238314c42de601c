"""instrument(); uninstrument() leaves every class as it was, with strangers above and below, in any order."""

from __future__ import annotations

import functools
import importlib
import itertools
import subprocess
import sys
import types
from typing import Any

import openai
import pytest
import wrapt

import attribkit
from attribkit import runtime
from attribkit.instrumentation.patching import Patch, Patches

TARGETS = (
    ("openai._base_client", "SyncAPIClient"),
    ("openai._base_client", "AsyncAPIClient"),
    ("openai._base_client", "BaseClient"),
    ("openai._streaming", "Stream"),
    ("openai._streaming", "AsyncStream"),
    ("openai._response", "APIResponse"),
    ("openai._response", "AsyncAPIResponse"),
    ("openai", "OpenAI"),
    ("openai", "AzureOpenAI"),
)


def class_dicts() -> dict[str, dict[str, Any]]:
    return {f"{module}.{name}": dict(vars(getattr(importlib.import_module(module), name))) for module, name in TARGETS}


def instrument() -> Any:
    return attribkit.instrument(ledger=None, spans=False, metrics=False)


class Wrapt:
    """A stranger that wraps with wrapt and restores by handle."""

    def on(self) -> None:
        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            return wrapped(*args, **kwargs)

        self.handle = wrapt.wrap_function_wrapper("openai._base_client", "SyncAPIClient.request", wrapper)

    def off(self) -> None:
        owner = openai._base_client.SyncAPIClient
        there = vars(owner)["request"]
        if there is self.handle:
            owner.request = self.handle.__wrapped__
            return
        while there.__wrapped__ is not self.handle:
            there = there.__wrapped__
        there.__wrapped__ = self.handle.__wrapped__


class Closure:
    """A stranger that replaces the method by a function of its own, and puts back what it found."""

    wraps = True

    def on(self) -> None:
        owner = openai._base_client.SyncAPIClient
        found = vars(owner)["request"]

        def request(self_: Any, *args: Any, **kwargs: Any) -> Any:
            return found(self_, *args, **kwargs)

        owner.request = functools.wraps(found)(request) if self.wraps else request

        def off() -> None:
            owner.request = found

        self.off = off


class Bare(Closure):
    wraps = False


class Saved(Closure):
    """Keeps what it found in an attribute of its own."""

    def on(self) -> None:
        owner = openai._base_client.SyncAPIClient
        self.found = vars(owner)["request"]

        @functools.wraps(self.found)
        def request(self_: Any, *args: Any, **kwargs: Any) -> Any:
            return self.found(self_, *args, **kwargs)

        owner.request = request

    def off(self) -> None:
        openai._base_client.SyncAPIClient.request = self.found


@pytest.mark.parametrize("stranger", [Wrapt, Closure, Bare, Saved])
@pytest.mark.parametrize("order", sorted(set(itertools.permutations(["us on", "us off", "it on", "it off"]))))
def test_any_order(stranger: Any, order: tuple[str, ...]) -> None:
    if order.index("us on") > order.index("us off") or order.index("it on") > order.index("it off"):
        return
    it, before = stranger(), class_dicts()
    steps = {"us on": instrument, "us off": attribkit.uninstrument, "it on": it.on, "it off": lambda: it.off()}
    for step in order:
        steps[step]()
    assert class_dicts() == before


def test_a_stranger_on_the_subclass_does_not_hide_the_calls(observe: Any) -> None:
    """OpenInference wraps the inherited method on `OpenAI` itself, and so keeps the base class's original."""

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    before = class_dicts()
    handle = wrapt.wrap_function_wrapper("openai", "OpenAI.request", wrapper)
    seen = observe()
    with attribkit.attributed(tenant_id="acme"):
        seen.client().embeddings.create(model="text-embedding-3-small", input="x")
    assert [request.attribution.get("tenant_id") for request in seen.requests()] == ["acme"]
    assert len(seen.records) == 1
    attribkit.uninstrument()
    assert vars(openai.OpenAI)["request"] is handle
    del openai.OpenAI.request
    assert class_dicts() == before


def test_twice_instrumented_is_once_counted(observe: Any) -> None:
    seen = observe()
    assert instrument().patches
    seen.client().embeddings.create(model="text-embedding-3-small", input="x")
    assert len(seen.records) == len(seen.requests()) == 1


def test_every_target_is_there_in_this_version() -> None:
    report = instrument()
    assert [patch for patch in report.patches if patch.status == "missing"] == []
    assert {patch.target for patch in report.of("applied")} >= {
        "openai._base_client:SyncAPIClient.request",
        "openai._base_client:AsyncAPIClient.request",
        "openai._base_client:BaseClient._build_request",
        "openai._streaming:Stream.__stream__",
        "openai._streaming:AsyncStream.__stream__",
    }
    assert all(patch.version for patch in report.of("applied"))


def test_a_group_can_be_turned_off() -> None:
    report = attribkit.instrument(ledger=None, hops={"openai": False})
    assert {patch.status for patch in report.patches if patch.group == "openai"} == {"off"}
    attribkit.uninstrument()
    with pytest.raises(ValueError, match=r"opneai.*openai"):
        attribkit.instrument(ledger=None, hops={"opneai": False})
    assert runtime.active() is None


def made_module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    return module


def test_a_target_that_is_not_there_is_reported() -> None:
    made_module("attribkit_test_lib", present=lambda: 1)
    patches = Patches()
    rows = [
        Patch("attribkit_test_lib", "present", lambda w, i, a, k: w(*a, **k) + 1, "g", "attribkit"),
        Patch("attribkit_test_lib", "absent", lambda w, i, a, k: w(*a, **k), "g", "attribkit"),
        Patch("attribkit_test_lib", "Gone.method", lambda w, i, a, k: w(*a, **k), "g", "attribkit", False),
        Patch("attribkit_test_never", "x", lambda w, i, a, k: w(*a, **k), "g", "attribkit"),
    ]
    patches.apply(rows)
    assert [state.status for state in patches.report()()] == ["applied", "missing", "unsupported", "waiting"]
    assert sys.modules["attribkit_test_lib"].present() == 2
    patches.undo()
    assert sys.modules["attribkit_test_lib"].present() == 1
    del sys.modules["attribkit_test_lib"]


LATE = """
import sys
import attribkit
report = attribkit.instrument(ledger=None)
assert "openai" not in sys.modules, "nothing is imported on the app's behalf"
assert {p.status for p in report.patches if p.group == "openai"} == {"waiting"}
import openai
patched = attribkit.instrument().patches
assert {p.status for p in patched if p.target == "openai._base_client:SyncAPIClient.request"} == {"applied"}
print("ok")
"""


def test_a_library_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "ok", done.stderr


BROKEN = """
import sys
from attribkit.instrumentation.patching import Patch, Patches
def wrapper(w, i, a, k): return w(*a, **k)
patches = Patches()
patches.apply([Patch("colorsys", "ONE_THIRD.real", wrapper, "g", "attribkit")])
import colorsys
print(colorsys.rgb_to_hsv(0, 0, 0), patches.report()()[0].status)
"""


def test_a_patch_that_cannot_be_applied_leaves_the_import_alone() -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, timeout=60)
    assert "(0.0, 0.0, 0" in done.stdout and "unsupported" in done.stdout, done.stderr
