"""Runs the agent twice through one gateway, and compares who its spend belongs to."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import attribkit
from attribkit.errors import AttribkitError
from attribkit.gateways.route import Gateways
from attribkit.ledger import LedgerRow, Question, open_ledger
from attribkit.reports.queries import spend
from attribkit.settings import load
from attribkit.testing import CapturedRequest, Gateway

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["DemoError", "Half", "Outcome", "Spend", "run"]

LEDGER = "attribkit-demo.db"
_EPOCH = datetime.fromtimestamp(0, UTC)
TENANTS = {"ACM": "acme", "GLX": "globex", "INI": "initech"}
_CASE = re.compile(rb"\b(ACM|GLX|INI)-\d{4}\b")
_QUESTIONS = (
    ("support", "ACM-1041", "the parcel is two days late, where is it?"),
    ("support", "GLX-2207", "how do we add a second administrator?"),
    ("refund", "INI-3310", "the invoice of October was charged twice."),
    ("refund", "ACM-1042", "the headset arrived with a broken cable."),
    ("support", "INI-3311", "the export stops at 10,000 rows."),
    ("support", "GLX-2208", "the scanner shows a red light after the update."),
    ("support", "ACM-1043", "may we change the billing address in the middle of a month?"),
    ("refund", "GLX-2209", "we cancelled before the renewal and were charged."),
    ("support", "ACM-1044", "single sign-on fails for new users."),
    ("refund", "ACM-1045", "the trial was billed."),
    ("support", "INI-3312", "which regions keep the data in Europe?"),
    ("support", "GLX-2210", "the webhook sends every event twice."),
)
"""Workflow, case and question. The case's letters say whose it is, so every request shows whom it should be for."""


class DemoError(AttribkitError):
    """The demo cannot run here; the message says what to do."""


class Spend(NamedTuple):
    """One line of a spend table. `tenant` None: nobody owns it."""

    tenant: str | None
    workflow: str | None
    calls: int
    usd: Decimal
    unpriced: int = 0


class Half(NamedTuple):
    """One of the two runs."""

    rows: tuple[Spend, ...]
    requests: tuple[CapturedRequest, ...]
    seconds: float

    @property
    def usd(self) -> Decimal:
        """All spend."""
        return sum((row.usd for row in self.rows), Decimal(0))

    @property
    def unowned(self) -> Decimal:
        """The share of the spend that names no tenant, 0 to 1; of the calls, where nothing has a price."""
        nobody = [row for row in self.rows if row.tenant is None]
        if self.usd:
            return sum((row.usd for row in nobody), Decimal(0)) / self.usd
        calls = sum(row.calls for row in self.rows)
        return Decimal(sum(row.calls for row in nobody)) / calls if calls else Decimal(0)


class Outcome(NamedTuple):
    """What the demo found."""

    before: Half
    after: Half
    ledger_url: str
    ledger_path: Path
    gateway: str
    """Where the calls went: "loopback", or the gateway's URL."""
    dialect: str
    attempts: int
    """Rows that the second run added to the ledger."""
    unattributed: int
    wrong: int
    agrees: bool | None
    """The gateway's own log and the ledger have the same sum for each tenant and workflow; None: there is no log."""
    example: tuple[str, tuple[tuple[str, str], ...]] | None
    """What one call was, and the headers that it had in the second run and not in the first."""
    spans_to: str | None
    problems: tuple[str, ...]
    """What is not as it has to be; () when the demo shows what it promises."""


@contextmanager
def _environment(**changes: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _tracer_provider() -> TracerProvider | None:
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise DemoError(f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error}: pip install 'attribkit[otel]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "attribkit-demo"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _agent() -> Any:
    try:
        from attribkit.demo import agent
    except ImportError as error:
        raise DemoError(
            f"the agent needs LangGraph and langchain-openai ({error}): pip install 'attribkit[demo]'"
        ) from error
    return agent


def _dialect_of(url: str) -> str:
    """Return the dialect that the settings (ATTRIBKIT_GATEWAYS) name for `url` or its host shows; else Portkey's."""
    settings = load({"ledger": None})
    keys = {name: secret.get_secret_value() for name, secret in settings.pseudonym_keys.items()}
    route = Gateways(settings.gateways, hosted=settings.hosted_gateways, pseudonyms=keys).match(url)
    return "portkey" if route is None else route.dialect


async def _work(agent: Any, questions: Sequence[tuple[str, str, str]]) -> None:
    """Serve all questions at once, as a server would."""

    async def serve(workflow: str, case: str, question: str) -> None:
        customer = agent.Customer(TENANTS[case[:3]], case)
        await getattr(agent, workflow)(customer, f"Case {case}: {question}")

    await asyncio.gather(*(serve(*question) for question in questions))


def _prepare(gateway: Gateway, loopback: bool) -> None:
    """Begin a half: forget the last one, and have two answers refused with a 429 first."""
    gateway.reset()
    if loopback:
        gateway.behave(status=429, contains="Write the reply", count=2, retry_after_ms=40)


def _of_gateway_log(gateway: Gateway) -> tuple[Spend, ...]:
    rows = gateway.spend(("tenant_id", "workflow"))
    return tuple(Spend(r.names[0], r.names[1], r.calls, r.cost_usd, r.unpriced_calls) for r in rows)


def _of_wire(requests: Sequence[CapturedRequest]) -> tuple[Spend, ...]:
    """Add up what the relay saw: owned by whom the headers name, priced from the usage that came back."""
    rows: dict[tuple[str | None, str | None], Spend] = {}
    for request in requests:
        if request.status != 200:
            continue
        told = request.attribution
        key = told.get("tenant_id"), told.get("workflow")
        usd = None
        if isinstance(request.usage, dict) and request.model:
            usd = attribkit.price(request.usage, model=request.model, service_tier=request.tier).usd
        row = rows.get(key, Spend(*key, 0, Decimal(0)))
        rows[key] = row._replace(calls=row.calls + 1, usd=row.usd + (usd or 0), unpriced=row.unpriced + (usd is None))
    return tuple(rows.values())


def _expected(request: CapturedRequest) -> str | None:
    """Return the tenant whose case a request is about, None when it names none."""
    found = _CASE.search(request.body)
    return TENANTS[found.group(1).decode()] if found else None


def _wrong(requests: Sequence[CapturedRequest], rows: Sequence[LedgerRow]) -> int:
    """Count requests and rows that name another tenant than the one whose case they are about."""
    expected = {request.response_id: _expected(request) for request in requests if request.response_id}
    wrong = 0
    for request in requests:
        told, right = request.attribution.get("tenant_id"), _expected(request)
        wrong += told is not None and right is not None and told != right
    for row in rows:
        right = expected.get(row.response_id or "")
        wrong += row.tenant_id is not None and right is not None and row.tenant_id != right
    return wrong


def _example(before: Half, after: Half, second_model: str) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    """Return the call of the tool's second model, and what it carried in the second run alone."""
    by_body = {request.body: request for request in before.requests}
    for request in after.requests:
        twin = by_body.get(request.body)
        if twin is None or second_model.encode() not in request.body:
            continue
        had = {name.lower() for name, _ in twin.headers}
        added = tuple((name, value) for name, value in request.headers if name.lower() not in had)
        if added and not twin.attribution:
            return f"{request.method} {request.path} ({second_model}, asked by a tool in a subgraph)", added
    return None


def _nobody_listens(text: str) -> None:
    pass


def run(directory: Path, *, model: str | None = None, told: Callable[[str], object] | None = None) -> Outcome:
    """Run both halves and return what was found. `told(text)` is called as each begins.

    With OPENAI_BASE_URL and OPENAI_API_KEY set, the calls go to that gateway, through a local relay that writes down
    what leaves; else to the loopback gateway. Raises DemoError when something is missing here.
    """
    told = told or _nobody_listens
    upstream = os.environ.get("OPENAI_BASE_URL") if os.environ.get("OPENAI_API_KEY") else None
    dialect = _dialect_of(upstream) if upstream else "portkey"
    provider = _tracer_provider()
    told("loading LangGraph and the OpenAI client")
    agent = _agent()
    if model:
        agent.models.main = agent.models.second = model
    questions = _QUESTIONS[:6] if upstream else _QUESTIONS
    path = directory.resolve() / LEDGER
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    ledger_url = f"sqlite:///{shown}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"{directory} cannot be made: {error.strerror}; name another with --dir") from error
    with Gateway(relay_to=upstream) as gateway:
        base_url = gateway.url + ("/" + upstream.split("/", 3)[3] if upstream and upstream.count("/") > 2 else "/v1")
        no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1")))
        settings: dict[str, Any] = {"gateways": {gateway.url: dialect}, "ledger": ledger_url}
        if provider is not None:
            settings["tracer_provider"] = provider
        started = 0

        async def halves() -> tuple[Half, Half]:
            nonlocal started
            told("running the agent, attribkit off")
            before = await half()
            started = time.time_ns()
            attribkit.instrument(**settings)
            told("running the same agent, attribkit on")
            return before, await half()

        async def half() -> Half:
            _prepare(gateway, upstream is None)
            begun = time.perf_counter()
            await _work(agent, questions)
            seconds = time.perf_counter() - begun
            requests = tuple(gateway.requests())
            rows = _of_gateway_log(gateway) if upstream is None else _of_wire(requests)
            return Half(rows, requests, seconds)

        with _environment(
            OPENAI_BASE_URL=base_url,
            OPENAI_API_KEY=os.environ.get("OPENAI_API_KEY") or "no-key-needed",
            NO_PROXY=no_proxy,
            LANGSMITH_TRACING="false",
            LANGCHAIN_TRACING_V2="false",
        ):
            try:
                before, on_the_wire = asyncio.run(halves())
            except Exception as error:
                if upstream is None:
                    raise
                said = " ".join(str(error).split())[:300]
                raise DemoError(
                    f"{upstream} did not answer the agent: {said}; unset OPENAI_BASE_URL to use the loopback gateway, "
                    "or name a model that it has with --model"
                ) from error
            finally:
                attribkit.uninstrument()
                if provider is not None:
                    provider.shutdown()
    return _compare(before, on_the_wire, agent, ledger_url, path, started, upstream, dialect)


def _compare(
    before: Half,
    wire: Half,
    agent: Any,
    ledger_url: str,
    path: Path,
    started: int,
    upstream: str | None,
    dialect: str,
) -> Outcome:
    store = open_ledger(ledger_url)
    try:
        rows = list(store.records(Question(since_ns=started)))
        report = spend(store, by=("tenant_id", "workflow"), since=_EPOCH + timedelta(microseconds=started // 1000))
    finally:
        store.close()
    after = wire._replace(
        rows=tuple(
            Spend(row.key[0], row.key[1], row.spend.calls, row.spend.cost, row.spend.unpriced_calls)
            for row in report.rows
        )
    )
    unattributed = sum(row.tenant_id is None or row.workflow is None for row in rows)
    wrong = _wrong(wire.requests, rows)
    agrees = None
    problems = []
    if upstream is None:
        agrees = {row[:2]: row.usd for row in wire.rows} == {row[:2]: row.usd for row in after.rows}
        if not agrees:
            problems.append("the ledger and the gateway's own log differ")
        if before.usd != after.usd:
            problems.append("the two runs did not cost the same")
        if any(row.unpriced for row in after.rows):
            problems.append("calls without a price")
    if len(rows) != len(wire.requests):
        problems.append(f"{len(wire.requests)} requests left, but the ledger has {len(rows)} rows of them")
    if unattributed:
        problems.append(f"{unattributed} rows name no tenant or workflow")
    if wrong:
        problems.append(f"{wrong} requests or rows name the wrong tenant")
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return Outcome(
        before,
        after,
        ledger_url,
        path,
        upstream or "loopback",
        dialect,
        len(rows),
        unattributed,
        wrong,
        agrees,
        _example(before, wire, agent.models.second),
        endpoint or None,
        tuple(problems),
    )
