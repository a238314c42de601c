"""One process that imports what some probes need, puts attribkit on, and runs each probe in a fork of its own."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import inspect
import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import attribkit
from attribkit import faults
from attribkit.verify import probes
from attribkit.verify.asking import MODEL
from attribkit.verify.lab import Lab, NotHere
from attribkit.verify.notes import Notebook
from attribkit.verify.probe import Probe
from attribkit.verify.start import note_in, start

__all__ = ["main"]

_RESULT = "result.json"
_GRACE = 1.0


class _Running(NamedTuple):
    probe: Probe
    directory: Path
    started: float


def main() -> None:
    """Read a job from standard input; print one JSON line for everything that happens."""
    job = json.load(sys.stdin)
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.set_inheritable(said.fileno(), False)
    os.dup2(2, 1)  # what a library prints is no news of ours

    def tell(**news: Any) -> None:
        said.write(json.dumps(news) + "\n")

    home = Path(job["directory"])
    begun = time.monotonic()
    todo: list[Probe] = []
    for name in job["groups"]:
        group = probes.load(name)
        try:
            group.prepare()
        except Exception as error:
            tell(group=name, broken=f"{type(error).__name__}: {error}".splitlines()[0])
            continue
        todo += [probe for probe in group.probes if probe.id in job["probes"]]
    notebook = Notebook(str(home))
    report = start(notebook)
    tell(ready=round(time.monotonic() - begun, 3), patches=[patch._asdict() for patch in report.patches])
    attribkit.price({"prompt_tokens": 1}, model=MODEL)  # loads the price list once for all forks
    gc.collect()
    gc.freeze()
    _run_all(todo, job, home, notebook, tell)


def _run_all(todo: list[Probe], job: dict[str, Any], home: Path, notebook: Notebook, tell: Any) -> None:
    running: dict[int, _Running] = {}
    waiting = list(reversed(todo))
    try:
        while waiting or running:
            while waiting and len(running) < job["at_once"]:
                probe = waiting.pop()
                directory = home / probe.id.replace("/", ".")
                directory.mkdir()
                sys.stdout.flush()
                sys.stderr.flush()
                child = os.fork()
                if child == 0:
                    _run_one(probe, directory, notebook, job["url"], job["seconds"])
                running[child] = _Running(probe, directory, time.monotonic())
                tell(started=probe.id)
            ended = 0
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(-1, os.WNOHANG)
            if ended in running:
                tell(ended=running[ended].probe.id, **_outcome(running.pop(ended), status, job["seconds"]))
                _end(ended)  # what it has left behind
            elif not ended:
                for child, one in running.items():
                    if time.monotonic() - one.started > job["seconds"] + _GRACE:
                        _end(child)
                time.sleep(0.004)
    finally:
        for child in running:
            _end(child)


def _end(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _outcome(one: _Running, status: int, limit: float) -> dict[str, Any]:
    seconds = round(time.monotonic() - one.started, 3)
    try:
        return {**json.loads((one.directory / _RESULT).read_text()), "seconds": seconds}
    except (OSError, ValueError):
        pass
    said = (one.directory / "stderr").read_text(errors="replace") if (one.directory / "stderr").exists() else ""
    if "Timeout (" in said or seconds > limit:
        where = next((line.strip() for line in said.splitlines() if line.startswith("  File ")), "")
        error = f"it hung for {limit:g} seconds" + (f" in {where.removeprefix('File ')}" if where else "")
    else:
        code = os.waitstatus_to_exitcode(status)
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        error = f"its process died: {why}"
    return {"error": error, "expected": [], "faults": {}, "seconds": seconds}


def _run_one(probe: Probe, directory: Path, notebook: Notebook, url: str, seconds: float) -> None:
    """Run one probe in this process, which was forked for it, and end."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        said = os.open(directory / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 2)
        os.dup2(said, 1)
        faulthandler.dump_traceback_later(seconds, exit=True, file=said)
        logging.basicConfig(stream=sys.stderr)
        note_in(notebook, str(directory))
        lab = Lab(url)
        error = run(probe, lab)
        attribkit.uninstrument()
        result = {"error": error[0], "missing": error[1], "expected": lab.expected, "faults": faults.counts()}
        whole = directory / f"{_RESULT}.part"
        whole.write_text(json.dumps(result))
        whole.rename(directory / _RESULT)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)  # a probe may leave daemon threads and pools behind; they are not what is looked at


def run(probe: Probe, lab: Lab) -> tuple[str | None, str | None]:
    """Run a probe here. Return the error it ended with, and why it could not run at all; None for neither."""
    try:
        if inspect.iscoroutinefunction(probe.run):
            asyncio.run(probe.run(lab))
        else:
            probe.run(lab)
    except NotHere as why:
        return None, str(why)
    except BaseException as error:
        traceback.print_exc()
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}verify{os.sep}" in f.filename]
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        text = " ".join(str(error).split())[:200]
        return f"{type(error).__name__}: {text}{where}", None
    return None, None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
