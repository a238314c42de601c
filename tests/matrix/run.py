"""Run the tests of an integration against the oldest version we claim, one between, and the newest.

    python tests/matrix/run.py [ROW ...] [--into DIR] [--list]

Each row of TABLE becomes a virtual environment of its own. What cannot be installed on this Python is listed and counts
as a failure only when the row says that it must.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("pytest>=8.2", "pytest-xdist>=3.6", "pytest-randomly>=3.15", "opentelemetry-sdk>=1.25")


class Row(NamedTuple):
    name: str
    packages: tuple[str, ...]
    tests: tuple[str, ...]
    skips: bool = True
    """Whether its versions may lack what a test asks for. In a row whose libraries no other environment has, a skip is
    a failure."""


OPENAI = ("tests/openai_sdk", "tests/instrumentation", "tests/runs")
CHAINS = ("tests/chains",)
SDKS = "tests/sdks/test_"
ANTHROPIC = (f"{SDKS}anthropic.py", f"{SDKS}made_elsewhere.py")
TABLE = (
    Row("openai-1.40", ("openai==1.40.*", "httpx<0.28"), OPENAI),
    Row("openai-1.109", ("openai==1.109.*",), OPENAI),
    Row("openai-2", ("openai==2.*",), OPENAI),
    Row("openai-3", ("openai==3.*",), OPENAI),
    Row("anthropic-0.40", ("anthropic==0.40.*", "httpx<0.28"), ANTHROPIC),
    Row("anthropic-1", ("anthropic>=0.60,<2",), ANTHROPIC),
    Row("anthropic-2", ("anthropic==2.*",), ANTHROPIC),
    Row("google-genai-1.20", ("google-genai==1.20.*",), (f"{SDKS}google_genai.py",)),
    Row("google-genai-1", ("google-genai==1.*",), (f"{SDKS}google_genai.py",)),
    Row("google-genai-3", ("google-genai==3.*",), (f"{SDKS}google_genai.py",)),
    Row(
        "agent-sdks",
        ("openai-agents>=0.20", "pydantic-ai-slim[openai]>=2"),
        (f"{SDKS}openai_agents.py", f"{SDKS}pydantic_ai.py", "tests/demo/test_examples.py::test_openai_agents_runs"),
        skips=False,
    ),
    Row(
        "litellm-llama-index",  # both stand on OpenAI 2
        ("openai==2.*", "litellm>=1.80", "llama-index-llms-openai>=0.6"),
        (f"{SDKS}litellm.py", f"{SDKS}llama_index.py"),
        skips=False,
    ),
    Row("aiobotocore-2", ("aiobotocore==2.*",), (f"{SDKS}bedrock_async.py",), skips=False),
    Row("aiobotocore-3", ("aiobotocore==3.*",), (f"{SDKS}bedrock_async.py",), skips=False),
    Row(
        "langchain-0.3",
        (
            "langchain-core==0.3.*",
            "langchain-openai==0.3.*",
            "langgraph==0.3.*",
            "langgraph-checkpoint==2.*",
            "langgraph-checkpoint-sqlite==2.*",
            "aiosqlite<0.22",
        ),
        CHAINS,
    ),
    Row(
        "langgraph-0.6",
        (
            "langchain-core==0.3.*",
            "langchain-openai==0.3.*",
            "langgraph==0.6.*",
            "langgraph-checkpoint==2.*",
            "langgraph-checkpoint-sqlite==2.*",
            "aiosqlite<0.22",
        ),
        CHAINS,
    ),
    Row(
        "langchain-1.0",
        (
            "langchain-core==1.0.*",
            "langchain-openai==1.0.*",
            "langchain==1.0.*",
            "langgraph==1.0.*",
            "langgraph-checkpoint==3.*",
            "langgraph-prebuilt<1.0.8",
            "langgraph-checkpoint-sqlite==3.0.*",
        ),
        CHAINS,
    ),
    Row(
        "langchain-1",
        (
            "langchain-core==1.*",
            "langchain-openai==1.*",
            "langgraph==1.*",
            "langchain==1.*",
            "langgraph-checkpoint-sqlite>=3",
            "numpy>=1.26",
        ),
        CHAINS,
    ),
)


def python_of(row: Row, into: Path) -> Path | None:
    """Return the interpreter of the row's environment, made on first use; None when it cannot be installed."""
    folder = into / row.name
    python = folder / "bin" / "python"
    done = folder / ".installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        installed = subprocess.run([*command, *TOOLS, *row.packages, "-e", str(ROOT)], capture_output=True, text=True)
        if installed.returncode:
            print(f"{row.name}: cannot be installed here: {installed.stderr.strip().splitlines()[-1:]}")
            return None
        done.touch()
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows; all when none is given")
    parser.add_argument("--into", type=Path, default=ROOT / ".matrix")
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    known = {row.name: row for row in TABLE}
    if options.list:
        for row in TABLE:
            print(f"{row.name:<19} {' '.join(row.packages)}")
        return 0
    unknown = [name for name in options.rows if name not in known]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; the rows are {', '.join(known)}")
    failed = []
    for row in [known[name] for name in options.rows] or TABLE:
        python = python_of(row, options.into)
        if python is None:
            failed.append(row.name)
            continue
        command = [str(python), "-m", "pytest", "-q", "-n", "2", "-m", "not counterpart", *row.tests]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        last = (ran.stdout.strip().splitlines() or ["no output"])[-1]
        print(f"{row.name:<19} {last}", flush=True)
        if ran.returncode or (" skipped" in last and not row.skips):
            print(ran.stdout[-6000:] + ran.stderr[-2000:], flush=True)
            failed.append(row.name)
    if failed:
        print(f"matrix: not right: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
