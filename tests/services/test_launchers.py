"""Programs that know nothing of attribkit: started by `attribkit run` and by `opentelemetry-instrument`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CLI = (sys.executable, "-c", "from attribkit.cli.main import app; app()")
PROGRAM = """
import sys
import openai
from langchain_core.runnables import RunnableLambda

assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
if __name__ == "__main__":
    client = openai.OpenAI()

    def ask(text):
        message = {"role": "user", "content": text}
        return client.chat.completions.create(model="gpt-5-mini", messages=[message]).usage.total_tokens

    print(sys.argv[1:], RunnableLambda(ask).invoke("Hi", {"metadata": {"tenant_id": "acme"}}))
    sys.exit(3)
"""


@pytest.fixture
def environ(gateway: Any, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return {
        **os.environ,
        "OPENAI_BASE_URL": gateway.base_url,
        "OPENAI_API_KEY": "k",
        "ATTRIBKIT_GATEWAYS": f'{{"{gateway.url}": "portkey"}}',
        "ATTRIBKIT_LEDGER": f"sqlite:///{tmp_path}/ledger.db",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def ran(command: tuple[str, ...], directory: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=120, check=False)


def tenants(directory: Path) -> dict[str | None, int]:
    from attribkit.ledger import Question, open_ledger

    ledger = open_ledger(f"sqlite:///{directory}/ledger.db")
    try:
        return {group.key[0]: group.calls for group in ledger.query(Question(by=("tenant_id",)))}
    finally:
        ledger.close()


@pytest.mark.parametrize("how", [("program.py",), ("-m", "program")])
def test_run(how: tuple[str, ...], environ: dict[str, str], tmp_path: Path, gateway: Any) -> None:
    seen = gateway.requests()
    done = ran((*CLI, "run", *how, "--port", "1", "-m", "x"), tmp_path, environ)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("['--port', '1', '-m', 'x'] ")
    (request,) = gateway.requests(since=seen[-1].seq if seen else 0)
    assert request.attribution["tenant_id"] == "acme"
    assert tenants(tmp_path) == {"acme": 1}


def test_run_ends_as_the_program_does(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("import sys\n\ndef inner():\n    raise KeyError('x')\n\ninner()\n")
    done = ran((*CLI, "run", "raises.py"), tmp_path, environ)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == "KeyError: 'x'"
    assert 'File "raises.py", line 6, in <module>' in lines[1] and "attribkit" not in done.stderr
    (tmp_path / "plain.py").write_text("print('done')")
    assert ran((*CLI, "run", "plain.py"), tmp_path, environ).stdout == "done\n"


def test_run_says_what_it_cannot_run(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    for arguments in (("nowhere.py",), ("-m", "nowhere.at.all"), ("binary",), ()):
        done = ran((*CLI, "run", *arguments), tmp_path, environ)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    environ["ATTRIBKIT_ON_MISSING"] = "explode"
    done = ran((*CLI, "run", "program.py"), tmp_path, environ)
    assert done.returncode == 2 and "on_missing" in done.stderr


def test_run_a_python_command(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import attribkit.runtime\nprint(attribkit.runtime.active() is not None)\n")
    command = tmp_path / "bin" / "command"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nimport attribkit.runtime\nprint(attribkit.runtime.active() is not None)\n")
    command.chmod(0o755)
    environ["PATH"] = f"{command.parent}{os.pathsep}{environ['PATH']}"
    assert ran((*CLI, "run", "command"), tmp_path, environ).stdout == "True\n"


def test_opentelemetry_instrument(environ: dict[str, str], tmp_path: Path, gateway: Any) -> None:
    pytest.importorskip("opentelemetry.distro")
    launcher = Path(sys.executable).with_name("opentelemetry-instrument")
    seen = gateway.requests()
    environ.update(OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none")
    done = ran((str(launcher), sys.executable, "program.py"), tmp_path, environ)
    assert done.returncode == 3, done.stderr
    (request,) = gateway.requests(since=seen[-1].seq if seen else 0)
    assert request.attribution["tenant_id"] == "acme"
    assert '"attribkit.tenant_id": "acme"' in done.stdout
    assert tenants(tmp_path) == {"acme": 1}
    environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "attribkit"
    done = ran((str(launcher), sys.executable, "program.py"), tmp_path, environ)
    assert done.returncode == 3 and "attribkit" not in done.stdout
    assert tenants(tmp_path) == {"acme": 1}


def test_the_instrumentor_in_code() -> None:
    pytest.importorskip("opentelemetry.instrumentation")
    from attribkit import otel, runtime

    instrumentor = otel.AttribkitInstrumentor()
    instrumentor.instrument(skip_dep_check=True, ledger=None, excluded_urls="theirs")
    assert runtime.active() is not None
    instrumentor.uninstrument()
    assert runtime.active() is None
    with pytest.raises(AttributeError):
        _ = otel.nothing
