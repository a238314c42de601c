"""A run created by one process and polled by three others at once is charged once, to its creator."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from attribkit.ledger.base import Question
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
