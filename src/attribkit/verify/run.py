"""Runs probes in processes of their own against the loopback gateway, and says what came of each."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from attribkit.errors import ConfigurationError
from attribkit.instrumentation import catalog
from attribkit.instrumentation.patching import PatchState
from attribkit.settings import load
from attribkit.testing import CapturedRequest, Gateway
from attribkit.verify import probes
from attribkit.verify.judge import Verdict, by_marker, judge
from attribkit.verify.lab import Expectation
from attribkit.verify.notes import read
from attribkit.verify.probe import Probe, installed, lacking
from attribkit.verify.start import environment

__all__ = ["Outcome", "Result", "Status", "chosen", "verify"]

Status = Literal["survives", "leaks", "wrong", "failed", "not run"]
ONE_PROBE = 15.0
"""Seconds that one probe may take."""
WORKER = "attribkit.verify.worker"
_SOURCE = Path(__file__).resolve().parents[2]


class Result(NamedTuple):
    """What came of one probe."""

    probe: Probe
    status: Status
    verdict: Verdict | None
    """None where it did not run to its end."""
    said: str | None
    """Why it did not run, failed, or what else is not as it should be."""
    seconds: float


class Outcome(NamedTuple):
    """What came of all of them."""

    results: tuple[Result, ...]
    """In the order of the table."""
    patches: tuple[PatchState, ...]
    hops: Mapping[str, bool]
    """The setting: patch groups that are turned off (or on) by name."""
    spans: str | None
    """Why spans were not looked at; None when they were."""
    seconds: float

    def of(self, *statuses: Status) -> list[Result]:
        """Return the results with one of these statuses."""
        return [result for result in self.results if result.status in statuses]

    @property
    def good(self) -> bool:
        """True when every hop that could run survives."""
        return not self.of("leaks", "wrong", "failed")


class _Job(NamedTuple):
    """Groups that need the same libraries: one worker imports them once."""

    groups: tuple[str, ...]
    probes: tuple[Probe, ...]


def chosen(names: Iterable[str]) -> list[Probe]:
    """Return the probes that `names` mean: groups ("asyncio") and single ones ("asyncio/gather"); all without names.

    Raises ConfigurationError for a name that means none.
    """
    every = [probe for name in probes.GROUPS for probe in probes.load(name).probes]
    wanted = [name.strip() for name in names if name.strip()]
    for name in wanted:
        if name not in probes.GROUPS and not any(probe.id == name for probe in every):
            raise ConfigurationError(
                f"--hops {name!r}: there is no such hop; the groups are {', '.join(probes.GROUPS)}, and "
                "`attribkit verify --list` shows every hop",
                name="--hops",
                value=name,
                allowed=tuple(probes.GROUPS),
            )
    return [probe for probe in every if not wanted or probe.group in wanted or probe.id in wanted]


def verify(
    wanted: Sequence[Probe],
    *,
    off: Iterable[str] = (),
    timeout: float = 55.0,
    jobs: int = 2,
    told: Callable[[str, Result | None], object] = lambda hop, result: None,
) -> Outcome:
    """Run the probes; `jobs` at once, and for `timeout` seconds at most.

    The setting `hops` is the user's own (environment, attribkit.toml, pyproject.toml), with the groups in `off` turned
    off as well. `told(hop, None)` is called as a probe starts and `told(hop, result)` when it has ended. Raises
    ConfigurationError for settings that cannot be used.
    """
    begun = time.monotonic()
    settings = load({"hops": dict.fromkeys(off, False)})
    unknown = set(settings.hops) - set(catalog.GROUPS)
    if unknown:
        raise ConfigurationError(
            f"hops={sorted(unknown)!r}: there is no such patch group; the groups are {', '.join(catalog.GROUPS)}",
            name="hops",
            value=sorted(unknown),
            allowed=catalog.GROUPS,
        )
    spans = None
    if installed("opentelemetry-sdk") is None:
        spans = "the OpenTelemetry SDK is not installed: pip install 'attribkit[otel]'"
    elif not settings.spans or settings.hops.get("telemetry") is False:
        spans = "spans are turned off by the settings"
    results: dict[str, Result] = {}

    def take(probe: Probe, result: Result) -> None:
        results[probe.id] = result
        told(probe.id, result)

    here: list[Probe] = []
    for probe in wanted:
        why = lacking(probe.needs, probes.load(probe.group).extra)
        if why is None:
            here.append(probe)
        else:
            take(probe, Result(probe, "not run", None, why, 0.0))
    patches: dict[str, PatchState] = {}
    if here:
        with Gateway() as gateway, tempfile.TemporaryDirectory(prefix="attribkit-verify-") as directory:
            bench = _Bench(gateway, Path(directory), settings.hops, spans is None, take, told)
            bench.run(_jobs(here), jobs=jobs, until=begun + timeout, timeout=timeout)
            patches = bench.patches
    order = [results[probe.id] for probe in wanted]
    return Outcome(tuple(order), tuple(patches.values()), settings.hops, spans, time.monotonic() - begun)


def _jobs(wanted: Iterable[Probe]) -> list[_Job]:
    by_needs: dict[tuple[str, ...], list[Probe]] = {}
    for probe in wanted:
        by_needs.setdefault(probes.load(probe.group).needs, []).append(probe)
    return [_Job(tuple(dict.fromkeys(one.group for one in ones)), tuple(ones)) for ones in by_needs.values()]


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    job: _Job
    directory: Path
    left: dict[str, Probe]
    """What has not ended yet."""


class _Bench:
    """The gateway and the workers around it."""

    def __init__(
        self,
        gateway: Gateway,
        directory: Path,
        hops: Mapping[str, bool],
        spans: bool,
        take: Callable[[Probe, Result], None],
        told: Callable[[str, Result | None], object],
    ) -> None:
        self.gateway, self.directory, self.hops, self.spans = gateway, directory, hops, spans
        self.take, self.told = take, told
        self.patches: dict[str, PatchState] = {}
        self._seen = 0
        self._requests: dict[str, list[CapturedRequest]] = {}

    def run(self, waiting: list[_Job], *, jobs: int, until: float, timeout: float) -> None:
        at_once = min(jobs, len(waiting))
        share = max(1, round(jobs / at_once))
        number = 0
        workers: list[_Worker] = []
        try:
            with selectors.DefaultSelector() as selector:
                while waiting or workers:
                    while waiting and len(workers) < at_once:
                        number += 1
                        worker = self._start(waiting.pop(0), self.directory / str(number), share)
                        workers.append(worker)
                        assert worker.process.stdout is not None
                        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                    for key, _ in selector.select(max(0.0, until - time.monotonic())):
                        worker = key.data
                        line = key.fileobj.readline()  # type: ignore[union-attr]
                        if line:
                            self._hear(worker, json.loads(line))
                        else:
                            selector.unregister(key.fileobj)
                            workers.remove(worker)
                            self._gone(worker)
                    if time.monotonic() >= until:
                        late = f"not finished when the {timeout:g} seconds of --timeout were over"
                        for worker in workers:
                            for probe in worker.left.values():
                                self.take(probe, Result(probe, "failed", None, late, 0.0))
                        for job in waiting:
                            for probe in job.probes:
                                self.take(probe, Result(probe, "failed", None, late, 0.0))
                        return
        finally:
            for worker in workers:
                _stop(worker.process)

    def _start(self, job: _Job, directory: Path, share: int) -> _Worker:
        directory.mkdir()
        environ = environment(self.gateway.url, self.hops)
        environ["PYTHONPATH"] = ":".join((str(_SOURCE), *filter(None, [environ.get("PYTHONPATH")])))
        with (directory / "stderr").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environ,
                bufsize=0,
            )
        order = {
            "groups": job.groups,
            "probes": [probe.id for probe in job.probes],
            "directory": str(directory),
            "url": self.gateway.url,
            "at_once": share,
            "seconds": ONE_PROBE,
        }
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode())
            process.stdin.close()
        return _Worker(process, job, directory, {probe.id: probe for probe in job.probes})

    def _hear(self, worker: _Worker, news: dict[str, Any]) -> None:
        if "patches" in news:
            for row in news["patches"]:
                state = PatchState(**row)
                known = self.patches.get(state.target)
                if known is None or known.status == "waiting":
                    self.patches[state.target] = state
        elif "broken" in news:
            for probe in [one for one in worker.left.values() if one.group == news["group"]]:
                del worker.left[probe.id]
                self.take(probe, Result(probe, "failed", None, f"cannot be imported here: {news['broken']}", 0.0))
        elif "started" in news:
            self.told(news["started"], None)
        elif "ended" in news:
            probe = worker.left.pop(news["ended"])
            self.take(probe, self._result(probe, worker.directory / probe.id.replace("/", "."), news))

    def _gone(self, worker: _Worker) -> None:
        """Say of what a worker has not come to why: it died."""
        _stop(worker.process)
        lines = (worker.directory / "stderr").read_text(errors="replace").strip().splitlines()
        why = f"its process ended with {worker.process.returncode}: {lines[-1] if lines else 'it said nothing'}"
        for probe in worker.left.values():
            self.take(probe, Result(probe, "failed", None, why, 0.0))

    def _result(self, probe: Probe, directory: Path, news: dict[str, Any]) -> Result:
        seconds = news["seconds"]
        if news.get("missing"):
            return Result(probe, "not run", None, news["missing"], seconds)
        self._collect()
        expected = [Expectation(*one) for one in news["expected"]]
        verdict = judge(expected, self._requests, read(directory), spans=self.spans)
        columns = [column for column in (verdict.wire, verdict.span, verdict.row) if column is not None]
        status: Status = "survives"
        said = news["error"]
        if any(column.wrong for column in columns):
            status = "wrong"
        elif any(column.leaked for column in columns):
            status = "leaks"
        elif said is not None:
            status = "failed"
        elif news["faults"]:
            status, said = "failed", f"attribkit's own fault: {', '.join(news['faults'])}; please report it"
        elif verdict.lost:
            status, said = "failed", f"headers of the app did not arrive: {', '.join(verdict.lost)}"
        elif not all(column.good for column in columns):
            status, said = "failed", _counts_of(verdict)
        return Result(probe, status, verdict, said, seconds)

    def _collect(self) -> None:
        new = self.gateway.requests(since=self._seen)
        if new:
            self._seen = new[-1].seq
            for marker, requests in by_marker(new).items():
                self._requests.setdefault(marker, []).extend(requests)


def _counts_of(verdict: Verdict) -> str:
    """Say what is missing, or there too often."""
    parts = []
    for name, column in (("requests", verdict.wire), ("spans", verdict.span), ("rows", verdict.row)):
        if column is not None and column.missing:
            parts.append(f"{column.missing} of {column.expected} {name} are missing")
        if column is not None and column.extra:
            parts.append(f"{column.extra} more {name} than expected")
    return ", ".join(parts)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
