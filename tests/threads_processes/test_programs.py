"""Child programs: which are told, by what, and what they make of it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from threads_processes.owners import TENANTS, asked, owned, scope

import attribkit
from attribkit import wire
from attribkit.instrumentation.hops.programs import AUDIENCE, VARIABLE

KEY = "a secret of 32 characters or more"
SHOW = f"import os; print(os.environ.get({VARIABLE!r}, 'nothing'))"


def said(command: Any, **options: Any) -> str:
    """Run a command that prints the variable, and return what it was told, in short."""
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options).stdout.strip()
    found = wire.extract({"baggage": out})
    return found.tenant_id or out


@pytest.fixture
def script(tmp_path: Path) -> Any:
    def write(first_line: str, body: str = SHOW) -> str:
        path = tmp_path / "job"
        path.write_text(f"{first_line}\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_python_programs_are_told(observe: Any, script: Any, tmp_path: Path) -> None:
    observe()
    job = tmp_path / "job.py"
    job.write_text(SHOW)
    quoted = f"{shlex.quote(sys.executable)} -c {shlex.quote(SHOW)}"
    with scope("acme"):
        assert said([sys.executable, "-c", SHOW]) == "acme"
        assert said([Path(sys.executable), str(job)]) == "acme"
        assert said([os.fsencode(sys.executable), b"-c", SHOW.encode()]) == "acme"
        assert said(["python", "-c", SHOW], executable=sys.executable) == "acme"
        assert said([sys.executable, "-m", "job"], cwd=tmp_path) == "acme"
        assert said(quoted, shell=True) == "acme"
        assert said(f"cd {tmp_path} && X=1 {quoted} 2>/dev/null; echo", shell=True) == "acme"
        assert said(["sh", "-c", quoted]) == "acme"
        assert said(["env", "X=1", "nice", "-n", "1", sys.executable, "-c", SHOW]) == "acme"
        assert said([script(f"#!{sys.executable}")]) == "acme"
        assert said(["./job"], cwd=tmp_path) == "acme"
        assert said(["job"], env={"PATH": str(tmp_path)}) == "acme"
        assert said([script("#!/usr/bin/env python3")], env={"PATH": os.environ["PATH"]}) == "acme"
        popen = subprocess.Popen([sys.executable, "-c", SHOW], stdout=subprocess.PIPE, text=True)
        assert "acme" in popen.communicate()[0]
        positional = (-1, None, None, subprocess.PIPE, None, None, True, False, None, {})
        with subprocess.Popen([sys.executable, "-c", SHOW], *positional) as popen:
            assert b"acme" in popen.communicate()[0]
    assert said([sys.executable, "-c", SHOW]) == "nothing"


def test_other_programs_are_not(observe: Any, script: Any, tmp_path: Path) -> None:
    observe()
    quoted = f"{shlex.quote(sys.executable)} -c {shlex.quote(SHOW)}"
    with scope("acme"):
        assert VARIABLE not in said(["env"])
        assert VARIABLE not in said("env", shell=True)
        assert VARIABLE not in said(["sh", "-c", "env"])
        assert said(f"{quoted} | cat", shell=True) == "nothing"
        assert said(f"{quoted}; : $(env)", shell=True) == "nothing"
        assert VARIABLE not in said([script("#!/bin/sh", "env  # python")])
        with pytest.raises(FileNotFoundError):
            subprocess.run(["no-such-program"])
        for wrong in (None, [], [None], 3):
            with pytest.raises((TypeError, IndexError, ValueError)):
                subprocess.run(wrong)


def test_the_environment_that_is_given_stays_as_it_is(observe: Any) -> None:
    observe()
    given = {"X": "1"}
    with scope("acme"):
        assert said([sys.executable, "-c", SHOW], env=given) == "acme"
        assert said([sys.executable, "-c", SHOW], env={}) == "acme"
        assert said([sys.executable, "-c", SHOW], env={VARIABLE: "mine"}) == "mine"
    assert given == {"X": "1"}
    assert VARIABLE not in os.environ


def test_asyncio_starts_them_too(observe: Any) -> None:
    observe()

    async def told(tenant: str, shell: bool) -> str:
        with scope(tenant):
            if shell:
                line = f"{shlex.quote(sys.executable)} -c {shlex.quote(SHOW)}"
                child = await asyncio.create_subprocess_shell(line, stdout=subprocess.PIPE)
            else:
                child = await asyncio.create_subprocess_exec(sys.executable, "-c", SHOW, stdout=subprocess.PIPE)
        return (await child.communicate())[0].decode()

    async def main() -> list[str]:
        return await asyncio.gather(*(told(tenant, shell) for tenant in TENANTS for shell in (False, True)))

    found = [wire.extract({"baggage": text.strip()}).tenant_id for text in asyncio.run(main())]
    assert found == ["acme", "acme", "globex", "globex"]


LEAVE = f"import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ.get({VARIABLE!r}, 'nothing'))"
"""Leaves behind what it was told."""


@pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="this system has none of these")
def test_os_starts_them_too(observe: Any, tmp_path: Path) -> None:
    observe()
    out = tmp_path / "told"
    words = [sys.executable, "-c", LEAVE, str(out)]
    shell = " ".join(map(shlex.quote, words))
    bare = {"PATH": os.environ["PATH"]}
    starts = {
        "spawnv": lambda: os.spawnv(os.P_WAIT, sys.executable, words),
        "spawnve": lambda: os.spawnve(os.P_WAIT, sys.executable, words, bare),
        "spawnl": lambda: os.spawnl(os.P_WAIT, sys.executable, *words),
        "spawnlpe": lambda: os.spawnlpe(os.P_WAIT, "sh", "sh", "-c", f"exec {shell}", bare),
        "posix_spawn": lambda: os.waitpid(os.posix_spawn(sys.executable, words, os.environ), 0)[1],
        "posix_spawnp": lambda: os.waitpid(os.posix_spawnp("sh", ["sh", "-c", shell], bare), 0)[1],
        "popen": lambda: os.popen(shell).close() or 0,
    }
    found = {}
    for name, start in starts.items():
        with scope("acme"):
            assert start() == 0, name
        found[name] = wire.extract({"baggage": out.read_text()}).tenant_id
        start()
        assert out.read_text() == "nothing", name
    assert found == dict.fromkeys(starts, "acme")
    with scope("acme"):
        line = ["sh", "-c", f"env > {out}"]
        assert os.spawnv(os.P_WAIT, "/bin/sh", line) == 0
        assert VARIABLE not in out.read_text()
        with pytest.raises((TypeError, ValueError)):
            os.spawnv(os.P_WAIT)
    assert VARIABLE not in os.environ and VARIABLE not in bare


CHILD = """
import json, os, subprocess, sys, threading
import attribkit
settings = json.loads(sys.argv[1])
attribkit.instrument(ledger=None, **settings)
from attribkit import context
from threads_processes.owners import post, scope
assert "ATTRIBKIT_CARRIER" not in os.environ
url = next(iter(settings["gateways"])) + "/v1"
tenant = attribkit.current().tenant_id or "nobody"
if tenant != "nobody":
    assert context.scope().hop == "extracted"
post(url, tenant + ": q")
thread = threading.Thread(target=post, args=(url, tenant + ": thread"))
thread.start()
thread.join()
with scope("umbrella"):
    post(url, "umbrella: q in " + tenant)
if len(sys.argv) > 2:
    subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], check=True)
attribkit.uninstrument()
attribkit.instrument(ledger=None, **settings)
print(attribkit.current().tenant_id)
"""


def test_a_child_takes_it_in_force_and_hands_it_on(observe: Any, gateway: Any) -> None:
    seen = observe(carrier_key=KEY)
    settings = json.dumps({"gateways": {gateway.url: "portkey"}, "carrier_key": KEY})
    grandchild = CHILD.replace("q in ", "r in ").replace(': q"', ': r"').replace(": thread", ": inner")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for tenant, more in zip(TENANTS, ([], [grandchild]), strict=True):
        with scope(tenant):
            subprocess.run([sys.executable, "-c", CHILD, settings, *more], env=environ, check=True)
    expected = owned("acme: q", "acme: thread", "umbrella: q in acme", "globex: q", "globex: thread")
    expected |= owned("umbrella: q in globex", "globex: r", "globex: inner", "umbrella: r in globex")
    assert asked(seen.requests()) == expected


@pytest.mark.parametrize("problem", ["another key", "no signature", "another audience"])
def test_a_child_with_a_key_believes_nobody_else(problem: str, observe: Any, gateway: Any) -> None:
    seen = observe()
    carrier: dict[str, str] = {}
    key = {"another key": b"x" * 32, "no signature": None}.get(problem, KEY.encode())
    forged = attribkit.Attribution.of({"tenant_id": "acme"})
    wire.inject(carrier, forged, key=key, audience="" if problem == "another audience" else AUDIENCE)
    settings = json.dumps({"gateways": {gateway.url: "portkey"}, "carrier_key": KEY})
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), VARIABLE: carrier["baggage"]}
    subprocess.run([sys.executable, "-c", CHILD, settings], env=environ, check=True, capture_output=True)
    assert asked(seen.requests()) == owned("nobody: q", "nobody: thread") | {
        "umbrella: q in nobody": ("umbrella", "run-of-umbrella")
    }


def test_turned_off(observe: Any) -> None:
    observe(hops={"processes": False})
    with scope("acme"):
        assert said([sys.executable, "-c", SHOW]) == "nothing"


def test_workers_for_everybody_are_not_told(observe: Any) -> None:
    to_process = pytest.importorskip("anyio.to_process")
    observe()

    async def main() -> None:
        for tenant in (*TENANTS, None):
            with scope(tenant):
                assert await to_process.run_sync(_told) == (tenant, None)

    asyncio.run(main())


def _told() -> tuple[str | None, str | None]:
    return attribkit.current().tenant_id, os.environ.get(VARIABLE)
