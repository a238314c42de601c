"""Reader of Azure's own retail meters, as the azure-genai-prices package snapshots them from prices.azure.com.

A meter name says model, direction, deployment type and tier in abbreviations that changed with every generation. Each
word is looked up; what is left over is the model. A meter that cannot be understood is dropped and reported.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from attribkit.pricing.lists import Offer, Row, text

PRODUCTS = {
    "Azure OpenAI": "", "Azure OpenAI GPT5": "", "Azure OpenAI Embedding": "", "Azure OpenAI Reasoning": "",
    "Azure OpenAI OSS Models": "gpt-", "Azure Deepseek Models": "deepseek-", "Azure Grok Models": "grok-",
    "Azure Mistral Models": "", "Azure Kimi": "kimi-", "Azure Llama Models": "",
}  # fmt: skip
ZONE = {
    "us": "eastus eastus2 westus westus2 westus3 centralus northcentralus southcentralus westcentralus",
    "eu": "francecentral germanywestcentral italynorth polandcentral spaincentral swedencentral westeurope northeurope",
    "apac": "japaneast japanwest koreacentral australiaeast southeastasia eastasia southindia centralindia",
}
ZONES = {region: f"datazone-{zone}" for zone, regions in ZONE.items() for region in regions.split()}
WORDS = {
    "deployment": {
        **dict.fromkeys(("dzone", "datazone", "dz", "dzn"), "zone"),
        **dict.fromkeys(("glbl", "global", "gl", "glb"), "global"),
        **dict.fromkeys(("regnl", "rgnl", "regional", "rg", "regn"), "regional"),
    },
    "tier": {"batch": "batch", "pp": "priority", "priority": "priority", "flex": "flex", "std": "standard"},
    "context": {"longco": True, "shortco": False},
    "direction": {
        **dict.fromkeys(("inp", "inpt", "input", "in"), "input"),
        **dict.fromkeys(("opt", "outp", "outpt", "out", "output"), "output"),
    },
    "cached": dict.fromkeys(("cchd", "cd", "cached", "cach", "cache", "ccchd", "ch"), True),
    "written": dict.fromkeys(("wr", "write"), True),
    "noise": dict.fromkeys(("tokens", "token", "1m", "1k", "tkn", "txt", "text"), True),
}
SKIPPED = (
    "ft", "rft", "grdr", "grader", "hosting", "hstng", "trng", "training", "ptu", "provisioned", "aud", "audio",
    "image", "img", "realtime", "rt", "rtime", "realtimeprvw", "tts", "trscb", "transcribe", "whisper", "sora",
    "assistants", "video", "session", "unit", "search", "speech", "dev",
)  # fmt: skip
MODELS = {
    "4o 0806": ("gpt-4o-2024-08-06", "gpt-4o"), "4o 1120": ("gpt-4o-2024-11-20",), "4o 0513": ("gpt-4o-2024-05-13",),
    "4o mini 0718": ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"), "o1 1217": ("o1", "o1-2024-12-17"),
    "o1 mini": ("o1-mini", "o1-mini-2024-09-12"), "o1 preview": ("o1-preview", "o1-preview-2024-09-12"),
    "o1 pro": ("o1-pro", "o1-pro-2025-03-19"), "o3 0416": ("o3", "o3-2025-04-16"),
    "o3 mini 0131": ("o3-mini", "o3-mini-2025-01-31"), "o3 pro": ("o3-pro", "o3-pro-2025-06-10"),
    "o4 mini 0416": ("o4-mini", "o4-mini-2025-04-16"), "o3 deep research 0626": ("o3-deep-research",),
    "4.1": ("gpt-4.1", "gpt-4.1-2025-04-14"), "4.1 mini": ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
    "4.1 nano": ("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14"),
    "5": ("gpt-5", "gpt-5-2025-08-07"), "5 mini": ("gpt-5-mini", "gpt-5-mini-2025-08-07"),
    "5 nano": ("gpt-5-nano", "gpt-5-nano-2025-08-07"), "5 codex": ("gpt-5-codex",), "5 pro": ("gpt-5-pro",),
    "5.1": ("gpt-5.1", "gpt-5.1-2025-11-13"), "5.2": ("gpt-5.2", "gpt-5.2-2025-12-11"),
    "5.4": ("gpt-5.4", "gpt-5.4-2026-03-05"), "5.4 mini": ("gpt-5.4-mini", "gpt-5.4-mini-2026-03-17"),
    "5.4 nano": ("gpt-5.4-nano", "gpt-5.4-nano-2026-03-17"), "5.4 pro": ("gpt-5.4-pro", "gpt-5.4-pro-2026-03-05"),
    "5.5": ("gpt-5.5", "gpt-5.5-2026-04-23", "gpt-5.5-2026-04-24"),
    "codex mini": ("codex-mini",), "grok-grok-3": ("grok-3",), "grok-grok-3-mini": ("grok-3-mini",),
    "grok-grok-4": ("grok-4",), "grok-grok4-fast": ("grok-4-fast-reasoning", "grok-4-fast-non-reasoning"),
    **dict.fromkeys(("35 turbo 16k 0125", "35 turbo16k 0125"), ("gpt-35-turbo-0125", "gpt-3.5-turbo-0125")),
    **dict.fromkeys(("35 turbo 16k 1106", "35 turbo16k 1106"), ("gpt-35-turbo-1106", "gpt-3.5-turbo-1106")),
    "35 turbo instruct": ("gpt-35-turbo-instruct", "gpt-35-turbo-instruct-0914"),
    "embedding 3 large": ("text-embedding-3-large",), "embedding 3 small": ("text-embedding-3-small",),
    "embedding ada": ("text-embedding-ada-002",), "ada": ("text-embedding-ada-002",),
}  # fmt: skip
"""What is left of a meter name, to the models it bills. The first name is the key."""
STEP = 272_000
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def azure_offers(path: Path, dropped: list[str]) -> Iterator[Offer]:
    """Yield one offer per model of the snapshot; names of meters that were not understood go to `dropped`."""
    found: dict[str, dict[tuple[str, bool, str, str], tuple[str, str]]] = defaultdict(dict)
    today = "2026-12-31"
    snapshot = json.loads(path.read_text())
    for item in snapshot["items"]:
        prefix = PRODUCTS.get(item["productName"])
        if prefix is None:
            continue
        meter = parsed(item["meterName"])
        if meter is None:
            dropped.append(item["meterName"])
            continue
        left, deployment, tier, long, kind = meter
        name = f"{prefix}{left.replace(' ', '-')}" if prefix else left
        per = {"1M": 1, "1K": 1000}.get(item["unitOfMeasure"].strip().upper())
        if per is None or item["effectiveStartDate"] > today:
            continue
        price = text(Decimal(repr(item["retailPrice"])) * per)
        places = {"global"} if deployment == "global" else set(item["regions"])
        if deployment == "zone":
            places = {ZONES[region] for region in item["regions"] if region in ZONES}
        for place in places:
            key = (place, long, tier, kind)
            old = found[name].get(key)
            if old is None or item["effectiveStartDate"] > old[0]:
                found[name][key] = (item["effectiveStartDate"], price)
    for left, prices in found.items():
        models = MODELS.get(left)
        if models is None and re.match(r"^[56](\.\d)? ?[a-z ]*$", left):
            models = (f"gpt-{left.replace(' ', '-')}",)
        if models is None and not left.startswith(("deepseek-", "grok-", "kimi-", "gpt-")):
            dropped.append(f"(model) {left}")
            continue
        row = _row(prices)
        if row is not None:
            for model in models or (left,):
                page, day = "https://prices.azure.com/api/retail/prices", snapshot["fetched_at"][:10]
                yield Offer("azure", model, [json.loads(json.dumps(row))], page, checked=day)


def parsed(meter: str) -> tuple[str, str, str, bool, str] | None:
    """Return (model words, deployment, tier, long context, kind of token) of a meter name."""
    name = _CAMEL.sub(" ", meter).lower().replace("data zone", "datazone").replace("short co", "shortco")
    name = name.replace("long co", "longco").replace("data zone", "datazone")
    words = [word for word in re.split(r"[\s\-_/]+", name) if word]
    if any(word in SKIPPED for word in words):
        return None
    said: dict[str, Any] = {}
    left = []
    for word in words:
        for about, meanings in WORDS.items():
            if word in meanings:
                said[about] = meanings[word]
                break
        else:
            if word != "gpt":
                left.append(word)
    model = " ".join(left)
    if "embedding" in model or model == "ada":
        said.setdefault("direction", "input")
    kind = said.get("direction")
    if said.get("written"):
        kind = "cache_write_5m"
    elif said.get("cached"):
        kind = "cache_read"
    if kind is None or "deployment" not in said:
        return None
    return model, said["deployment"], said.get("tier", "standard"), said.get("context", False), kind


def _row(prices: dict[tuple[str, bool, str, str], tuple[str, str]]) -> Row | None:
    places: dict[str, Row] = {}
    for (place, long, tier, kind), (_, price) in sorted(prices.items()):
        scope = places.setdefault(place, {})
        if long:
            steps = scope.setdefault("steps", [{"over": STEP}])
            steps[0].setdefault(tier, {})[kind] = price
        else:
            scope.setdefault(tier, {})[kind] = price
    base = places.pop("global", None)
    regions = {place: cards for place, cards in places.items() if "input" in cards.get("standard", {})}
    for place, cards in places.items():
        if place not in regions and any(t in cards for t in ("batch", "priority")):
            regions[place] = cards
    if base is None or "input" not in base.get("standard", {}):
        return None if not regions else {"regions": regions}
    return {**base, "regions": regions} if regions else base


if __name__ == "__main__":
    import sys

    lost: list[str] = []
    for offer in azure_offers(Path(sys.argv[1]), lost):
        row = offer.rows[0]
        print(offer.model, row.get("standard"), [k for k in row if k != "regions"], sorted(row.get("regions", {})))
    print(*sorted({name for name in lost if name.startswith("(model)")}), sep="\n")
