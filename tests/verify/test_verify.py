"""`attribkit verify` in this environment: all its programs, a hop that is off, programs that go wrong, the command."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from verify.unfinished import UNFINISHED

from attribkit.errors import ConfigurationError
from attribkit.instrumentation.catalog import GROUPS
from attribkit.verify import probes, run
from attribkit.verify.run import Outcome, chosen, verify
from attribkit.verify.show import as_dict, lines
from attribkit.verify.start import environment

PROGRAM = "from attribkit.cli.main import app; app()"
EVERY = chosen([])


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, "verify", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def names(outcome: Outcome, *statuses: Any) -> set[str]:
    return {result.probe.id for result in outcome.of(*statuses)}


# -- the programs -----------------------------------------------------------------------------------------------------


def test_every_hop_survives_here() -> None:
    outcome = verify(EVERY, jobs=2, timeout=300)
    assert {result.probe.id: result.said for result in outcome.of("failed")} == {}
    for result in outcome.results:
        if result.verdict is not None:
            columns = filter(None, [result.verdict.wire, result.verdict.span, result.verdict.row])
            assert all(column.missing == column.extra == 0 for column in columns), result
    assert {one.probe.id for one in outcome.of("leaks", "wrong") if set(one.probe.relies) <= {*GROUPS}} <= UNFINISHED


def test_programs_are_known_by_unlike_names_and_rely_on_what_there_is() -> None:
    ids = [probe.id for probe in EVERY]
    assert len(ids) == len(set(ids)) >= 77
    assert {probe.group for probe in EVERY} == set(probes.GROUPS)
    known = {"openai", "asyncio", "queues", "threads", "processes", "langchain", "langgraph"}
    assert {patch for probe in EVERY for patch in probe.relies} <= known


# -- a hop that is off ------------------------------------------------------------------------------------------------


OWN = [group for group in GROUPS if group != "openai" and any(group in probe.relies for probe in EVERY)]


@pytest.mark.parametrize("group", OWN)
def test_a_hop_that_is_off_is_exactly_what_leaks(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBKIT_HOPS", json.dumps({group: False}))
    there = [probe for probe in EVERY if set(probe.relies) <= {*GROUPS} and probe.id not in UNFINISHED]
    relying = [probe for probe in there if group in probe.relies]
    needs = {need for probe in relying for need in probe.needs}
    beside = [probe for probe in there if probe not in relying and set(probe.needs) <= needs and probe.group != group]
    outcome = verify([*relying, *beside[::4]], jobs=2, timeout=300)
    assert names(outcome, "leaks", "wrong") == {probe.id for probe in relying}
    assert outcome.of("failed") == []
    assert {state.status for state in outcome.patches if state.group == group} == {"off"}
    assert {one["why"] for one in as_dict(outcome)["advice"]} == {
        f"the patch group {group} is turned off by ATTRIBKIT_HOPS"
    }


def test_off_in_attribkit_toml(tmp_path: Path) -> None:
    (tmp_path / "attribkit.toml").write_text("[hops]\nopenai = false\n")
    ended = command("--hops", "openai/sync,openai/nobody", "--json")
    assert ended.returncode == 1, ended.stderr
    facts = json.loads(ended.stdout)
    assert [hop["status"] for hop in facts["hops"]] == ["leaks", "leaks"]
    assert "turned off" in facts["advice"][0]["why"] and "attribkit.toml" in facts["advice"][0]["why"]


# -- programs that go wrong -------------------------------------------------------------------------------------------


def test_a_program_that_fails_does_not_take_the_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join((str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    )
    monkeypatch.setattr(run, "WORKER", "verify.odd_worker")
    monkeypatch.setattr(run, "ONE_PROBE", 4.0)
    monkeypatch.setitem(probes.GROUPS, "odd", "verify.odd_worker")
    outcome = verify(chosen(["odd"]), jobs=2)
    said = {result.probe.id.removeprefix("odd/"): (result.status, result.said) for result in outcome.results}
    assert said["right"] == ("survives", None)
    assert said["leaks"] == ("leaks", None)
    assert said["wrong"] == ("wrong", None)
    missing = ", ".join(f"1 of 1 {what} are missing" for what in ("requests", "spans", "rows"))
    assert said["silent"] == ("failed", missing)
    assert said["raises"][0] == "failed" and "KeyError" in str(said["raises"][1])
    assert said["hangs"][0] == "failed" and "it hung for 4 seconds in" in str(said["hangs"][1])
    assert said["dies"] == ("failed", "its process died: signal SIGKILL")
    assert said["exits"][0] == "failed" and "SystemExit" in str(said["exits"][1])
    assert said["elsewhere"] == ("not run", "this system has no such thing")
    assert said["lacks"] == ("not run", "no-such-library is not installed: pip install 'no-such-library'")
    assert said["old"][0] == "not run" and "it needs openai 999.0 or later" in str(said["old"][1])
    text = "\n".join(lines(outcome))
    assert "1 for the wrong tenant" in text and "1 without tenant" in text and text.splitlines()[-1].startswith("To do")


def test_what_is_not_done_in_time_has_failed() -> None:
    outcome = verify(chosen(["openai/sync", "langchain/invoke"]), timeout=0.01)
    assert {result.status for result in outcome.results} == {"failed"}
    assert all("--timeout" in str(result.said) for result in outcome.results)


def test_no_key_and_no_address_of_the_user_reaches_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "AZURE_OPENAI_ENDPOINT", "https_proxy", "LANGSMITH_API_KEY"):
        monkeypatch.setenv(name, "http://elsewhere.example")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere.example")
    environ = environment("http://127.0.0.1:9", {"queues": False})
    assert not [name for name, value in environ.items() if "elsewhere.example" in value]
    assert environ["OPENAI_BASE_URL"] == "http://127.0.0.1:9/v1"
    assert json.loads(environ["ATTRIBKIT_HOPS"]) == {"queues": False}


# -- the command ------------------------------------------------------------------------------------------------------


def test_json_and_exit_code_when_all_is_well() -> None:
    ended = command("--hops", "openai/sync,openai/retries", "--json")
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["ok"] and facts["spans"] and facts["advice"] == []
    assert facts["summary"] == {"survives": 2, "leaks": 0, "wrong": 0, "failed": 0, "not_run": 0}
    assert {"attribkit", "python", "openai", "opentelemetry-sdk"} <= facts["versions"].keys()
    hop = facts["hops"][1]
    assert (hop["id"], hop["group"], hop["status"], hop["why"]) == ("openai/retries", "openai", "survives", None)
    assert hop["wire"] == {"expected": 3, "right": 3, "leaked": 0, "wrong": 0, "missing": 0, "extra": 0}
    assert hop["row"]["right"] == 3 and hop["span"]["right"] == 1 and hop["relies_on"] == ["openai"]
    assert any(row["target"] == "openai._base_client:SyncAPIClient.request" for row in facts["patches"])
    assert ended.stderr == "openai: 2 of 2 survive\n"


def test_plain_text_and_exit_code_of_a_hop_that_is_off() -> None:
    ended = command("--hops", "openai/sync", "--off", "openai", ATTRIBKIT_SPANS="false")
    assert ended.returncode == 1
    assert re.search(r"LEAKS +chat\.completions\.create, sync +0/2   -", ended.stdout)
    assert "spans were not looked at: spans are turned off by the settings" in ended.stdout
    assert "why: the patch group openai is turned off" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("To do first: the patch group openai is turned off")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--hops", "telepathy"), "there is no such hop; the groups are openai, asyncio"),
        (("--off", "telepathy"), "there is no such patch group"),
        (("--jobs", "0"), "--jobs"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: tuple[str, ...], told: str) -> None:
    ended = command(*arguments)
    assert ended.returncode == 2 and ended.stdout == ""
    assert told in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_list() -> None:
    ended = command("--list", "--hops", "queues,openai/sync")
    assert ended.returncode == 0
    listed = [line.split()[0] for line in ended.stdout.splitlines()]
    assert listed == ["openai/sync", *(probe.id for probe in EVERY if probe.group == "queues")]


def test_a_table_on_a_terminal() -> None:
    parent, child = pty.openpty()
    arguments = [sys.executable, "-c", PROGRAM, "verify", "--hops", "openai/sync,openai/stream"]
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110"}
    process = subprocess.Popen(arguments, stdout=child, stderr=child, env=environ)
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # Linux says EIO at the end
            break
        if not piece:
            break
        shown += piece
    os.close(parent)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "\x1b[" in shown.decode() and "✓  stream, read in the scope" in text and "all 2 hops survive" in text


def test_an_unknown_hop_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        chosen(["asyncio", "asyncio/nowhere"])
    assert caught.value.value == "asyncio/nowhere" and "asyncio" in caught.value.allowed
