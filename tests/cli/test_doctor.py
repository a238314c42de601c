"""`attribkit doctor` in this environment, on real files: what it says, what it leaves alone, how it exits."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ledger.made import record

from attribkit.cli import diagnosis
from attribkit.cli.main import app
from attribkit.ledger.base import Loss
from attribkit.ledger.lines import line_of, loss_line
from attribkit.ledger.sqlite import SqliteLedger
from attribkit.ledger.writer import LedgerSink


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def facts(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*args: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            app(["doctor", *args])
        out, err = capsys.readouterr()
        return Ran(left.value.code, out, err)  # type: ignore[arg-type]

    return run


def test_all_is_well_and_nothing_is_left_behind(doctor: Any, tmp_path: Path) -> None:
    import openai._base_client

    before = vars(openai._base_client.SyncAPIClient)["request"]
    ran = doctor("--json")
    assert ran.code == 0, ran.out + ran.err
    facts = ran.facts
    assert facts["ok"] and facts["problems"] == []
    assert {row["status"] for row in facts["patches"] if row["group"] == "openai"} <= {"applied", "unsupported"}
    assert any(row["target"] == "openai._base_client:SyncAPIClient.request" for row in facts["patches"])
    assert facts["versions"]["libraries"]["openai"] == openai.__version__
    assert facts["ledger"]["rows"] is None
    assert vars(openai._base_client.SyncAPIClient)["request"] is before
    assert list(tmp_path.iterdir()) == []


def test_plain_text_has_every_section(doctor: Any) -> None:
    ran = doctor()
    heads = [line.removesuffix(":") for line in ran.out.splitlines() if re.fullmatch(r"[a-z ]+:", line)]
    assert tuple(heads) == diagnosis.SECTIONS
    assert ran.out.rstrip().splitlines()[-1].startswith("all is well")
    assert "\x1b" not in ran.out


def test_a_table_on_a_terminal() -> None:
    parent, child = pty.openpty()
    code = "from attribkit.cli.main import app; app(['doctor'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=child, stderr=child, env={**os.environ, "TERM": "xterm-256color"}
    )
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
    assert b"\x1b[" in shown and b"SyncAPIClient" in shown and b"all is well" in shown


# -- patches ----------------------------------------------------------------------------------------------------------


def test_a_missing_patch(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import openai._base_client

    monkeypatch.delattr(openai._base_client.BaseClient, "_build_request")
    ran = doctor("--json")
    assert ran.code == 1
    assert any("BaseClient._build_request" in text for text in ran.facts["problems"])


def test_a_group_that_is_off(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBKIT_HOPS", '{"langchain": false}')
    ran = doctor()
    assert ran.code == 0
    assert re.search(r"langchain: langchain_core.*turned off by the settings", ran.out)


def test_a_library_that_cannot_be_imported(doctor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "httpx2"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "httpx2").mkdir()
    (tmp_path / "httpx2" / "__init__.py").write_text("raise RuntimeError('half an installation')")
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = doctor("--json")
    assert ran.code == 1
    assert any("half an installation" in text for text in ran.facts["problems"])


# -- gateways ---------------------------------------------------------------------------------------------------------


def test_its_advice_for_an_unknown_gateway_can_be_pasted(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@llm.internal:4000/v1")
    ran = doctor()
    assert ran.code == 0 and "secret" not in ran.out
    advice = re.search(r"ATTRIBKIT_GATEWAYS='(.*?)'", ran.out)
    assert advice is not None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm.internal:4000/v1")
    monkeypatch.setenv("ATTRIBKIT_GATEWAYS", advice[1].replace("DIALECT", "litellm"))
    (endpoint,) = doctor("--json").facts["gateways"]["endpoints"]
    assert (endpoint["dialect"], endpoint["prefix"]) == ("litellm", "http://llm.internal:4000")


@pytest.mark.parametrize(
    ("url", "dialect", "provider"),
    [
        ("https://api.openai.com/v1", None, "openai"),
        ("https://openrouter.ai/api/v1", "openrouter", "openrouter"),
        ("https://me.openai.azure.com/openai", None, "azure"),
    ],
)
def test_known_hosts(doctor: Any, monkeypatch: pytest.MonkeyPatch, url: str, dialect: str, provider: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    facts = doctor("--json").facts
    (endpoint,) = facts["gateways"]["endpoints"]
    assert (endpoint["dialect"], endpoint["provider"]) == (dialect, provider)
    assert not any(text.startswith("gateways") for text in facts["warnings"])


# -- other instrumentors ----------------------------------------------------------------------------------------------


def test_other_instrumentors(doctor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {
        "opentelemetry_instrumentation_openai_v2": "2.3b0",
        "opentelemetry_instrumentation_genai_openai": "1.0b0",
        "openinference_instrumentation_langchain": "0.1.80",
        "langfuse": "4.0.0",
        "attribkit_is_not_one": "1",
    }
    for name, version in installed.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    facts = doctor("--json").facts
    found = {one["package"]: one["version"] for one in facts["instrumentors"]}
    assert found.items() >= {
        ("opentelemetry-instrumentation-openai-v2", "2.3b0"),
        ("opentelemetry-instrumentation-genai-openai", "1.0b0"),
        ("openinference-instrumentation-langchain", "0.1.80"),
        ("langfuse", "4.0.0"),
    }
    assert "attribkit-is-not-one" not in found
    assert any("counts it twice" in text for text in facts["warnings"])


# -- prices -----------------------------------------------------------------------------------------------------------


def test_an_old_price_table(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = doctor("--json").facts
    assert facts["prices"]["age_days"] >= 0
    monkeypatch.setattr(diagnosis, "_OLD_PRICES", -1)
    ran = doctor("--json")
    assert ran.code == 0
    assert any(text.startswith("prices: catalog") and "upgrade attribkit" in text for text in ran.facts["warnings"])


# -- the ledger -------------------------------------------------------------------------------------------------------


def test_rows_that_wait_are_counted_and_not_moved(doctor: Any, tmp_path: Path) -> None:
    url = "sqlite:///costs.db"
    spool = tmp_path / "costs.db.spool"
    spool.mkdir()
    (spool / "1.jsonl").write_bytes(line_of(record()) + line_of(record()) + b"garbage\n" + line_of(record())[:-20])
    ran = doctor("--json", "--ledger", url)
    ledger = ran.facts["ledger"]
    assert (ran.code, ledger["rows"], ledger["waiting"]) == (0, None, 2)
    assert any("lines that are no records: 1" in text for text in ran.facts["warnings"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1.jsonl", "costs.db.spool"]


def test_rows_that_were_moved_do_not_wait(doctor: Any) -> None:
    url = "sqlite:///costs.db"
    sink = LedgerSink(url)
    try:
        for _ in range(3):
            sink.finished(record())
        assert sink.flush()
        ledger = doctor("--json", "--ledger", url).facts["ledger"]
        assert (ledger["rows"], ledger["waiting"]) == (3, 0)
        sink.finished(record())
        ledger = doctor("--json", "--ledger", url).facts["ledger"]
        assert ledger["rows"] + ledger["waiting"] == 4
    finally:
        sink.close()


def test_lost_calls(doctor: Any, tmp_path: Path) -> None:
    store = SqliteLedger(str(tmp_path / "costs.db"))
    now = time.time_ns()
    store.write_losses([Loss("a", now, now, 7, "host:1")])
    store.close()
    (tmp_path / "costs.db.spool").mkdir()
    (tmp_path / "costs.db.spool" / "1.jsonl").write_bytes(
        loss_line(Loss("a", now, now, 7, "host:1")) + loss_line(Loss("b", now, now, 2, "host:2"))
    )
    ran = doctor("--json", "--ledger", "sqlite:///costs.db")
    assert (ran.code, ran.facts["ledger"]["lost_calls"]) == (1, 9)


def test_a_file_that_is_no_ledger(doctor: Any, tmp_path: Path) -> None:
    (tmp_path / "costs.db").write_text("not a database, " * 100)
    ran = doctor("--json", "--ledger", "sqlite:///costs.db")
    assert ran.code == 1
    assert any("costs.db" in text for text in ran.facts["problems"])


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_have_their_sources_and_keep_their_secrets(
    doctor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    custom = {"dialect": "custom", "headers": {"x-key": "sesame", "x-who": "{tenant_id}"}}
    monkeypatch.setenv("ATTRIBKIT_GATEWAYS", json.dumps({"http://a": custom}))
    monkeypatch.setenv("ATTRIBKIT_CARRIER_KEY", "open-sesame-open-sesame")
    (tmp_path / "attribkit.toml").write_text(
        'require = ["tenant_id"]\n[gateways]\n"http://b" = "litellm"\n[pseudonym_keys]\nk1 = "sesame-sesame-sesame"\n'
    )
    (tmp_path / "pyproject.toml").write_text("[tool.attribkit]\nspans = false\n")
    for args in ((), ("--json",)):
        ran = doctor(*args)
        assert ran.code == 0, ran.out + ran.err
        assert "sesame" not in ran.out
    shown = {one["name"]: (one["value"], one["source"]) for one in ran.facts["settings"]}
    assert shown["require"] == (["tenant_id"], "attribkit.toml")
    assert shown["spans"] == (False, "pyproject.toml")
    assert shown["metrics"] == (True, "default")
    assert shown["carrier_key"] == ("***", "ATTRIBKIT_CARRIER_KEY")
    assert shown["pseudonym_keys"] == ({"k1": "***"}, "attribkit.toml")
    value, source = shown["gateways"]
    assert source == "ATTRIBKIT_GATEWAYS + attribkit.toml" and value.keys() == {"http://a", "http://b"}
    assert value["http://a"]["headers"] == {"x-key": "***", "x-who": "{tenant_id}"}


def test_a_mistyped_variable(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBKIT_LEGDER", "none")
    monkeypatch.setenv("ATTRIBKIT_QQQQQQ", "1")
    facts = doctor("--json").facts
    assert {"name": "ATTRIBKIT_LEGDER", "did_you_mean": "ATTRIBKIT_LEDGER"} in facts["unknown_variables"]
    assert {"name": "ATTRIBKIT_QQQQQQ", "did_you_mean": None} in facts["unknown_variables"]


@pytest.mark.parametrize("args", [("--ledger", "costs.db"), ("--nonsense",), ("--ledger", "postgresql://me:pw@db/x")])
def test_errors_are_one_line(doctor: Any, args: tuple[str, ...]) -> None:
    ran = doctor(*args)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "pw@" not in ran.err


def test_a_setting_that_cannot_be(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBKIT_ON_MISSING", "explode")
    ran = doctor()
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "on_missing" in ran.err and "reject" in ran.err
