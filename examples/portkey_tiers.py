"""Routing by the tenant's tier at a Portkey gateway: the tier rides in the metadata that its conditional routing reads.

`CONFIG` is what you give the gateway (as `x-portkey-config` or stored there); `tiers` is who gets which tier. Takes
OPENAI_BASE_URL (the gateway) and OPENAI_API_KEY from the environment.
"""

import json
import os

import openai

import attribkit

CONFIG = {
    "strategy": {
        "mode": "conditional",
        "conditions": [{"query": {"metadata.tier": {"$eq": "gold"}}, "then": "fast"}],
        "default": "cheap",
    },
    "targets": [
        {"name": "fast", "provider": "openai", "override_params": {"service_tier": "priority"}},
        {"name": "cheap", "provider": "openai", "override_params": {"service_tier": "flex"}},
    ],
}

attribkit.instrument(
    gateways={os.environ["OPENAI_BASE_URL"]: "portkey"},
    ledger="sqlite:///tiers.db",
    tiers=[{"tier": "gold", "when": {"tenant_id": "acme"}}, {"tier": "standard"}],
)
client = openai.OpenAI(default_headers={"x-portkey-config": json.dumps(CONFIG)})

for tenant in ("acme", "globex"):
    with attribkit.attributed(tenant_id=tenant):
        ask = [{"role": "user", "content": "Where is my order?"}]
        reply = client.chat.completions.create(model="gpt-5-mini", messages=ask)
        print(tenant, reply.service_tier)
