"""Instruments every process that `tests/stdlib/run.py` starts, and every Python that its tests start."""

import os

_mode = os.environ.get("ATTRIBKIT_STDLIB_MODE")
if _mode:
    import attribkit
    from attribkit import faults

    faults.strict(True)  # a fault of ours fails a test
    attribkit.instrument(ledger=None)
    if _mode == "in a scope":
        attribkit.attributed(tenant_id="acme", workflow_id="run-1").__enter__()
