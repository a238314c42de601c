"""`attribkit report`, as a process: what it prints, where errors go, what it leaves alone."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from ledger.made import cost, record

from attribkit.cost import Cost
from attribkit.ledger.lines import line_of
from attribkit.ledger.writer import LedgerSink

COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'attribkit'; from attribkit.cli.main import app; app()"]


def attribkit(*args: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, cwd=folder, env={**os.environ, "COLUMNS": "100", **env}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sink = LedgerSink(f"sqlite:///{tmp_path}/attribkit.db")
    sink.finished(record({"tenant_id": "acme", "workflow": "onboarding", "plan": "pro"}, cost=cost("0.0123")))
    sink.finished(record({"tenant_id": "globex", "workflow": "onboarding"}, cost=cost("0.5")))
    sink.finished(record({"workflow": "triage"}, cost=Cost.unknown("no price for x")))
    sink.close()
    return tmp_path


def test_spend_by_tenant_is_the_default(folder: Path) -> None:
    done = attribkit("report", folder=folder)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["globex", "acme", "(none)", "total"]
    assert "unattributed: 0.0% of cost, 33.3% of calls (1 without tenant_id)" in lines
    assert "\x1b" not in done.stdout


def test_json_is_the_contract(folder: Path) -> None:
    done = attribkit("report", "--by", "tenant_id, workflow", "--json", "--top", "2", folder=folder)
    read = json.loads(done.stdout)
    assert read["rows"] == [
        {
            **{"tenant_id": "globex", "workflow": "onboarding", "calls": 1, "attempts": 1, "cost_usd": "0.5"},
            **{"unpriced_calls": 0, "input_tokens": 1500, "output_tokens": 250},
        },
        {
            **{"tenant_id": "acme", "workflow": "onboarding", "calls": 1, "attempts": 1, "cost_usd": "0.0123"},
            **{"unpriced_calls": 0, "input_tokens": 1500, "output_tokens": 250},
        },
    ]
    assert read["total"]["cost_usd"] == "0.5123"
    assert read["total"]["unattributed_share_of_calls"] == 0.333333


def test_csv_conditions_order_and_time(folder: Path) -> None:
    done = attribkit(
        "report", "--csv", "--where", "tenant_id=acme", "--where", "tenant_id=", "--sort", "name", folder=folder
    )
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["tenant_id", "acme", ""]
    assert attribkit("report", "--csv", "--until", "7d", folder=folder).stdout.count("\n") == 1
    assert attribkit("report", "--csv", "--since", "today", "--by", "plan", folder=folder).stdout.count("\n") == 3


def test_the_ledger_is_named_by_option_or_environment(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    url = f"sqlite:///{folder}/attribkit.db"
    assert attribkit("report", "--ledger", url, folder=elsewhere).returncode == 0
    assert attribkit("report", folder=elsewhere, ATTRIBKIT_LEDGER=url).returncode == 0


def test_what_waits_in_the_spool_is_in_the_report(folder: Path) -> None:
    waiting = folder / "attribkit.db.spool" / "00000000.jsonl"
    waiting.write_bytes(line_of(record({"tenant_id": "acme"}, cost=cost("7"))) + b"garbage\n")
    done = attribkit("report", "--json", folder=folder)
    assert json.loads(done.stdout)["rows"][0]["cost_usd"] == "7.0123"
    assert done.stderr == "attribkit: 1 unreadable lines were put aside in the spool\n"
    assert not waiting.exists()


def test_two_reports_at_once(folder: Path) -> None:
    spool = folder / "attribkit.db.spool" / "00000000.jsonl"
    spool.write_bytes(b"".join(line_of(record({"tenant_id": "acme"}, cost=cost("1"))) for _ in range(2000)))
    running = [
        subprocess.Popen([*COMMAND, "report", "--json"], stdout=subprocess.PIPE, text=True, cwd=folder)
        for _ in range(2)
    ]
    out = [json.loads(one.communicate()[0]) for one in running]
    assert [one.returncode for one in running] == [0, 0]
    assert any(answer["total"]["calls"] == 2003 for answer in out)
    assert json.loads(attribkit("report", "--json", folder=folder).stdout)["total"]["cost_usd"] == "2000.5123"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ("--ledger", "sqlite:///nope.db"),
            "there is no ledger; attribkit.instrument(ledger='sqlite:///nope.db') makes it",
        ),
        (("--ledger", "postgresql://u:secret@h/d"), "PostgreSQL is not supported by this version"),
        (("--ledger", "nope.db"), "is no URL; for a file write sqlite:///nope.db"),
        (("--by", "tenantid"), "by 'tenantid': no call in the ledger has it; did you mean tenant_id?"),
        (("--by", "a b"), "'a b' cannot be a field"),
        (("--since", "whenever"), "--since 'whenever' is no time; write an ISO date"),
        (("--until", "2026-02-30"), "--until '2026-02-30' is no time"),
        (("--where", "tenant_id"), "--where 'tenant_id': write FIELD=VALUE"),
        (("--top", "0"), "at least 1"),
        (("--top", "many"), "Invalid value for '--top'"),
        (("--sort", "price"), "sort by one of cost"),
        (("--json", "--csv"), "--json and --csv exclude each other"),
        (("--tenant",), "No such option: --tenant"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(folder: Path, args: tuple[str, ...], told: str) -> None:
    before = sorted(folder.rglob("*"))
    done = attribkit("report", *args, folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("attribkit: ") and told in done.stderr
    assert "secret" not in done.stderr
    assert sorted(folder.rglob("*")) == before, "asking makes nothing"


def test_a_file_that_is_no_ledger_is_told(folder: Path) -> None:
    (folder / "notes.db").write_text("not a database at all, but long enough to be looked at\n" * 30)
    done = attribkit("report", "--ledger", "sqlite:///notes.db", folder=folder)
    assert done.returncode == 2
    assert "notes.db: file is not a database" in done.stderr and done.stderr.count("\n") == 1


def test_a_terminal_gets_bars(folder: Path) -> None:
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*COMMAND, "report"],
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "COLUMNS": "110", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert running.wait() == 0
    text = shown.decode()
    assert "█" in text and "share of cost" in text and "97.6%" in text


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'from attribkit.cli.main import app; app()' report --csv --by tenant_id,model | head -1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.stdout.startswith("tenant_id,model,calls")
    assert done.stderr == ""


def test_help_and_version() -> None:
    here = Path.cwd()
    assert attribkit("--version", folder=here).stdout.strip()
    for args in ((), ("--help",), ("-h",)):
        done = attribkit(*args, folder=here)
        assert done.returncode == 0 and "report" in done.stdout
    assert "--ledger" in attribkit("report", "--help", folder=here).stdout
    wrong = attribkit("repport", folder=here)
    assert wrong.returncode == 2 and "No such command 'repport'" in wrong.stderr


HEAVY = ("openai", "httpx", "opentelemetry", "wrapt", "langchain_core", "rich")


def test_a_report_loads_no_client_and_no_sdk(folder: Path) -> None:
    code = (
        "import sys; sys.argv = ['attribkit', 'report', '--json']\n"
        "from attribkit.cli.main import app\n"
        "try: app()\n"
        f"finally: print([one for one in {HEAVY} if one in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.stderr.strip() == "[]"


def test_every_command_is_listed_with_a_line_and_can_be_imported() -> None:
    import importlib

    from attribkit.cli.main import COMMANDS

    for name, row in COMMANDS.items():
        assert row.line.endswith("."), name
        assert importlib.import_module(row.module).app, name
