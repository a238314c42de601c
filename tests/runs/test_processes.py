"""A run created by one process and polled by three others at once is charged once, to its creator."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from attribkit.cli.main import app
from attribkit.ledger.base import Question
from attribkit.ledger.open import open_ledger
from attribkit.ledger.sqlite import SqliteLedger

CHILD = """
import sys, warnings
warnings.simplefilter("ignore")
import openai
import attribkit

url, ledger, what, thread_id, run_id = sys.argv[1:]
attribkit.instrument(gateways={url: "portkey"}, ledger=ledger)
client = openai.OpenAI(base_url=url + "/v1", api_key="k")
runs = client.beta.threads.runs
if what == "create":
    assistant = client.beta.assistants.create(model="gpt-5-mini")
    thread = client.beta.threads.create(messages=[{"role": "user", "content": "Hi"}])
    with attribkit.attributed(tenant_id="acme", plan="gold"):
        print(thread.id, runs.create(thread_id=thread.id, assistant_id=assistant.id).id)
else:
    print("ready", flush=True)
    sys.stdin.readline()
    with attribkit.attributed(tenant_id=what):
        while runs.retrieve(run_id, thread_id=thread_id).status != "completed":
            pass
attribkit.uninstrument()
"""


def test_one_charge_whoever_polls(gateway: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"

    def child(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, gateway.url, url, *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with child("create", "-", "-") as creator:
        thread_id, run_id = creator.communicate(timeout=60)[0].split()
    assert creator.returncode == 0
    pollers = [child(name, thread_id, run_id) for name in ("one", "two", "three")]
    for poller in pollers:
        assert poller.stdout is not None and poller.stdout.readline() == "ready\n"
    for poller in pollers:
        assert poller.stdin is not None
        poller.stdin.write("\n")
        poller.stdin.flush()
    for poller in pollers:
        poller.communicate(timeout=60)
        assert poller.returncode == 0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ledger = SqliteLedger(str(tmp_path / "ledger.db"), create=False)
        rows = list(ledger.records(Question()))
        ledger.close()
    (charge,) = [row for row in rows if row.cost_status != "free"]
    assert (charge.tenant_id, charge.hop, charge.response_id) == ("acme", "restored", run_id)
    assert charge.cost_pico is not None and charge.cost_pico > 0
    (created,) = [row for row in rows if row.cost_status == "free"]
    assert created.operation_id == charge.operation_id and created.tenant_id == "acme"
    assert charge.attribution.get("plan") == "gold"


COUNTING = """
import json, sys, warnings
warnings.simplefilter("ignore")
import openai
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import attribkit

url, ledger, response_id = sys.argv[1:]
reader = InMemoryMetricReader()
budget = attribkit.Budget("acme", limit="100", window="month", match={"tenant_id": "acme"})
attribkit.instrument(ledger=ledger, budgets=[budget], meter_provider=MeterProvider([reader]))
client = openai.OpenAI(base_url=url + "/v1", api_key="k")
if response_id == "-":
    with attribkit.attributed(tenant_id="acme", plan="gold"):
        print(client.responses.create(model="gpt-5-mini", input="Hi", background=True).id)
else:
    print("ready", flush=True)
    sys.stdin.readline()
    with attribkit.attributed(tenant_id="the poller"):
        while client.responses.retrieve(response_id).status != "completed":
            pass
    cost = 0.0
    for resource in reader.get_metrics_data().resource_metrics if reader.get_metrics_data() else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == "attribkit.cost":
                    cost += sum(point.value for point in metric.data.data_points)
    print(json.dumps(cost))
attribkit.uninstrument()
"""


def test_metrics_and_budgets_count_it_in_one_process(gateway: Any, tmp_path: Path) -> None:
    """The URL is no gateway, so the job is told nothing: who created it is known by way of the ledger's folder."""
    if not hasattr(openai.OpenAI, "responses"):
        pytest.skip("this version has no Responses API")
    url = f"sqlite:///{tmp_path}/ledger.db"

    def child(response_id: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COUNTING, gateway.url, url, response_id]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with child("-") as creator:
        response_id = creator.communicate(timeout=60)[0].strip()
    pollers = [child(response_id) for _ in range(3)]
    for poller in pollers:
        assert poller.stdout is not None and poller.stdout.readline() == "ready\n"
    costs = []
    for poller in pollers:
        assert poller.stdin is not None
        poller.stdin.write("\n")
        poller.stdin.flush()
    for poller in pollers:
        costs.append(json.loads(poller.communicate(timeout=60)[0]))
        assert poller.returncode == 0

    ledger = open_ledger(url)
    (charge,) = [row for row in ledger.records(Question()) if row.cost_status != "free"]
    ledger.close()
    assert (charge.tenant_id, charge.attribution.get("plan"), charge.hop) == ("acme", "gold", "restored")
    assert charge.usd is not None and charge.usd > 0
    assert sorted(costs)[:2] == [0, 0] and abs(max(costs) - float(charge.usd)) < 1e-12
    shown = CliRunner().invoke(app, ["budgets", "show", "acme", "--store", url, "--json"])
    assert shown.exit_code == 0, shown.output
    spent = [Decimal(counter["spent"]) for counter in json.loads(shown.output)]
    assert spent == [charge.usd], shown.output


BATCH = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[4])
import openai
from runs.jobs import batch, finished
import attribkit

url, ledger, batch_id = sys.argv[1:4]
attribkit.instrument(gateways={url: "portkey"}, ledger=ledger)
client = openai.OpenAI(base_url=url + "/v1", api_key="k")
if batch_id == "-":
    with attribkit.attributed(tenant_id="acme"):
        print(batch(client, questions=20).id)
else:
    print("ready", flush=True)
    sys.stdin.readline()
    with attribkit.attributed(tenant_id="the poller"):
        print(len(client.files.content(finished(client, batch_id).output_file_id).text.splitlines()))
attribkit.uninstrument()
"""


def test_each_line_of_a_batch_is_charged_once_whoever_reads_it(gateway: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"

    def child(batch_id: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BATCH, gateway.url, url, batch_id, str(Path(__file__).parents[1])]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with child("-") as creator:
        batch_id = creator.communicate(timeout=60)[0].strip()
    pollers = [child(batch_id) for _ in range(4)]
    for poller in pollers:
        assert poller.stdout is not None and poller.stdout.readline() == "ready\n"
    for poller in pollers:
        assert poller.stdin is not None
        poller.stdin.write("\n")
        poller.stdin.flush()
    for poller in pollers:
        assert poller.communicate(timeout=60)[0].strip() == "20"
        assert poller.returncode == 0
    ledger = open_ledger(url)
    rows = list(ledger.records(Question()))
    ledger.close()
    lines = [row for row in rows if row.batch]
    assert len(lines) == len({row.response_id for row in lines}) == 20
    assert {(row.tenant_id, row.cost_status, row.hop) for row in lines} == {("acme", "priced", "restored")}
    assert {(row.tenant_id, row.cost_status, row.api) for row in rows if not row.batch} == {("acme", "free", "batches")}
