"""A program that calls a model until it is killed: `python killed.py BASE_URL LEDGER N`.

It imports everything once, then forks one process after the other; each instruments itself, calls from two threads and
says each response id once the call has returned. The parent kills it at a random moment: one in five anywhere, the
others after its first call.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

import openai

import attribkit


def calls(base_url: str, tenant: str, out: int, ready: int) -> None:
    client = openai.OpenAI(api_key="k", base_url=base_url, max_retries=0)
    with attribkit.attributed(tenant_id=tenant, workflow="killed"):
        while True:
            reply = client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": tenant}])
            os.write(out, f"{reply.id} {tenant}\n".encode())
            os.write(ready, b".")


def main(base_url: str, ledger: str, times: int) -> None:
    rng = random.Random(7)
    for number in range(times):
        begun, ready = os.pipe()
        child = os.fork()
        if not child:
            attribkit.instrument(ledger=ledger, gateways={base_url: "portkey"}, spans=False)
            threading.Thread(target=calls, args=(base_url, "acme", 1, ready), daemon=True).start()
            calls(base_url, "globex", 1, ready)
        os.close(ready)
        if number % 5:
            os.read(begun, 1)
        time.sleep(rng.random() * 0.4)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(begun)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
