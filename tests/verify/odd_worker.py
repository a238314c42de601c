"""A worker whose probes go wrong in every way that a program can."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from attribkit import attributed
from attribkit.verify import probes, worker
from attribkit.verify.asking import answer, warm
from attribkit.verify.lab import Lab, NotHere
from attribkit.verify.probe import Group

probes.GROUPS["odd"] = "verify.odd_worker"
GROUP = Group(
    "odd", "odd programs", needs=("openai>=1.40",), extra="openai", relies=("openai",), remedy="none", prepare=warm
)


@GROUP.probe("right")
def right(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        answer(tenant.ask())


@GROUP.probe("for nobody")
def leaks(lab: Lab) -> None:
    tenant = lab.tenant()
    with attributed(**tenant.fields):
        prompt = tenant.ask()
    answer(prompt)


@GROUP.probe("for the other one")
def wrong(lab: Lab) -> None:
    one, two = lab.tenants(2)
    with attributed(**two.fields):
        answer(one.ask())
        answer(two.ask())


@GROUP.probe("a call that is never made")
def silent(lab: Lab) -> None:
    lab.tenant().ask()


@GROUP.probe("an exception")
def raises(lab: Lab) -> None:
    raise KeyError("the app's own")


@GROUP.probe("for ever")
def hangs(lab: Lab) -> None:
    time.sleep(600)


@GROUP.probe("a crash")
def dies(lab: Lab) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@GROUP.probe("exit")
def exits(lab: Lab) -> None:
    raise SystemExit(3)


@GROUP.probe("not on this system")
def elsewhere(lab: Lab) -> None:
    raise NotHere("this system has no such thing")


@GROUP.probe("a library that is not there", needs=("no-such-library",))
def lacks(lab: Lab) -> None: ...


@GROUP.probe("a library that is too old", needs=("openai>=999.0",))
def old(lab: Lab) -> None: ...


def own(name: str) -> Any:
    return next(probe for probe in GROUP.probes if probe.id == f"odd/{name}")


if __name__ == "__main__":
    worker.main()
