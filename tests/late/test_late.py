"""Rooms that are loaded with their first use: once, whoever asks, and never half in a forked child."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from attribkit.late import Late


def room(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> Late:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return Late(name)


def test_it_is_loaded_when_something_of_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = room(tmp_path, monkeypatch, "late_room", "def answer(): return 42")
    assert "late_room" not in sys.modules
    assert late.answer() == 42
    assert late.answer is sys.modules["late_room"].answer


def test_what_it_has_not_is_an_attribute_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = room(tmp_path, monkeypatch, "late_empty", "")
    with pytest.raises(AttributeError):
        _ = late.answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_has_it_whole_though_another_thread_was_loading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import threading\nbegun.set()\nthreading.Event().wait(0.3)\ndef answer(): return 42"
    begun = threading.Event()
    late = room(tmp_path, monkeypatch, "late_slow", "from builtins import begun\n" + text)
    monkeypatch.setattr("builtins.begun", begun, raising=False)
    loading = threading.Thread(target=lambda: late.answer)
    loading.start()
    begun.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(late.answer())
    loading.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_one_that_cannot_be_loaded_stops_no_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = room(tmp_path, monkeypatch, "late_broken", "raise RuntimeError('broken')")
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(RuntimeError):
        _ = late.answer
