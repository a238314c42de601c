"""A process that takes calls: python worker.py URL DEED [NUMBER]. It prints a call's id once that is taken."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

from ledger.made import record

from attribkit.ledger import writer
from attribkit.ledger.writer import LedgerSink


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def take(sink: LedgerSink, **changes: object) -> None:
    call = record(**changes)
    sink.finished(call)
    say(call.call_id)


def main() -> None:
    url, deed = sys.argv[1:3]
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    sink = LedgerSink(url)
    if deed == "take":  # a number of calls, and a regular end
        for _ in range(number):
            take(sink)
    elif deed == "take-and-vanish":  # the same, without any clearing up
        for _ in range(number):
            take(sink)
        os._exit(0)
    elif deed == "until-killed":  # with the thread at work all the time, and calls of every length
        writer.PERIOD, writer.ROWS, writer._ROTATE_AT = 0.01, 20, 20_000
        rng = random.Random(number)
        while True:
            take(sink, response_id="x" * rng.choice((3, 30, 300, 9000)))
    elif deed == "threads":
        threads = [threading.Thread(target=lambda: [take(sink) for _ in range(number)]) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    elif deed == "linger":  # keeps its spool file and does not move it
        writer.PERIOD = 3600
        for _ in range(number):
            take(sink)
        say("ready")
        time.sleep(3600)
    elif deed == "end-late":  # calls that end when the interpreter goes down, after everything that runs at exit

        class Late:
            def __init__(self, take: object) -> None:
                self.itself, self.take = self, take

            def __del__(self) -> None:
                self.take()  # type: ignore[operator]

        import builtins

        builtins.late = [Late(lambda: take(sink)) for _ in range(number)]  # type: ignore[attr-defined]
        take(sink)
    elif deed == "fork-and-die":  # a child that outlives its parent
        writer.PERIOD = 3600
        for _ in range(number):
            take(sink)
        if os.fork() == 0:
            say(f"child {os.getpid()}")
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        raise SystemExit(f"no such deed: {deed}")


if __name__ == "__main__":
    main()
