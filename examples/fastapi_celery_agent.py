"""A FastAPI service that answers at once and has a Celery worker, another process, do the agent's work.

The service knows the tenant; the worker and its agent are told nothing, and each of its calls is charged to the tenant
whose request it serves. `python fastapi_celery_agent.py` runs the service, a worker and two tenants' requests; it takes
OPENAI_BASE_URL and OPENAI_API_KEY from the environment.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import openai
import uvicorn
from celery import Celery
from fastapi import FastAPI, Header

import attribkit
from attribkit.asgi import AttributionMiddleware
from attribkit.ledger import Question, open_ledger
from attribkit.money import from_pico

LEDGER = "sqlite:///fastapi-celery-agent.db"
TENANTS = {"token-a": "acme", "token-g": "globex"}

attribkit.instrument(
    gateways={os.environ["OPENAI_BASE_URL"]: "portkey"},
    ledger=LEDGER,
    carrier_key="a secret of 32 characters or more",
)

# A broker of files, so that nothing has to be installed: yours is Redis or RabbitMQ.
BROKER = Path("broker").absolute()
for part in ("queue", "control"):
    (BROKER / part).mkdir(parents=True, exist_ok=True)
jobs = Celery("fastapi_celery_agent", broker="filesystem://")
jobs.conf.broker_transport_options = {
    "data_folder_in": str(BROKER / "queue"),
    "data_folder_out": str(BROKER / "queue"),
    "control_folder": str(BROKER / "control"),
    "polling_interval": 0.05,
}
jobs.conf.worker_enable_remote_control = False
jobs.conf.broker_connection_retry_on_startup = True


def ask(model: str, text: str) -> str:
    reply = openai.OpenAI().chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    return reply.choices[0].message.content or ""


@jobs.task(name="agent")
def agent(question: str) -> None:
    """Plan, then answer. It knows no tenant."""
    plan = ask("gpt-5-mini", f"Plan the answer to: {question}")
    ask("gpt-4.1", f"Answer: {question}. The plan: {plan}")


service = FastAPI()
service.add_middleware(AttributionMiddleware)  # for callers that are services of one's own


@service.post("/tickets", status_code=202)
async def ticket(body: dict[str, str], token: str = Header()) -> None:
    with attribkit.attributed(tenant_id=TENANTS[token], workflow="ticket"):
        agent.delay(body["question"])


def spent() -> list[tuple[tuple[str | None, ...], int, str]]:
    ledger = open_ledger(LEDGER)
    try:
        groups = ledger.query(Question(by=("tenant_id", "workflow", "model")))
        return [(group.key, group.calls, f"{from_pico(group.cost_pico):.6f} USD") for group in groups]
    finally:
        ledger.close()


def main() -> None:
    folder = str(Path(__file__).resolve().parent)
    command = [sys.executable, "-m", "celery", "-A", "fastapi_celery_agent", "worker", "-P", "threads", "-l", "error"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *filter(None, sys.path)])}
    worker = subprocess.Popen([*command, "-c", "2"], env=environ, stdout=subprocess.DEVNULL)
    server = uvicorn.Server(uvicorn.Config(service, port=0, log_level="error", ws="none"))
    threading.Thread(target=server.run, daemon=True).start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        for token in TENANTS:
            url = f"http://127.0.0.1:{port}/tickets"
            httpx.post(url, json={"question": "Where is my parcel?"}, headers={"token": token}).raise_for_status()
        while sum(calls for _, calls, _ in spent()) < 4:
            time.sleep(0.2)
    finally:
        worker.terminate()
        worker.wait()
        server.should_exit = True
    for key, calls, cost in spent():
        print(*key, f"{calls} calls", cost)


if __name__ == "__main__":
    main()
