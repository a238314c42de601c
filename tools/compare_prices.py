"""Price many generated calls with other people's engines, and explain every difference.

    pip install litellm genai-prices tokencost arize-phoenix mlflow
    python tools/compare_prices.py [--report report.json] [--at 2026-11-15] [--json]

Each model of the big sellers is priced in several shapes (plain, cached, cache writes, long, batch, priority, flex) by
attribkit and by each engine that is installed. Where the amounts differ, the reasons below are tried one after the
other; what none of them explains is printed, and the exit code is 1. `--report` is what build_catalog.py wrote: where
the lists themselves differ, the rank decided, and that is the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from attribkit.cost import Cost
from attribkit.pricing.engine import PriceEngine
from attribkit.usage.model import Usage

SELLERS = (
    *("openai", "anthropic", "gemini", "vertex", "bedrock", "azure", "mistral", "deepseek", "xai", "cohere", "groq"),
    *("perplexity", "moonshot", "zai", "together"),
)
SHAPES: dict[str, dict[str, int]] = {
    "plain": {"input": 1_000, "output": 100},
    "cached": {"input": 600, "cache_read": 400, "output": 100},
    "written": {"input": 600, "cache_write_5m": 400, "output": 100},
    "long": {"input": 300_000, "output": 1_000},
    "batch": {"input": 1_000, "output": 100},
    "priority": {"input": 1_000, "output": 100},
    "flex": {"input": 1_000, "output": 100},
}
REGIONS = {"azure": "global", "vertex": "global", "bedrock": "us-east-1"}


@dataclass
class Case:
    """One generated call, what it costs here, and by what else it could be priced."""

    seller: str
    model: str
    shape: str
    at: datetime
    cost: Cost
    engine: PriceEngine
    matched: str = ""
    """The entry by which Phoenix priced it last: a pattern that was found somewhere in the model's name."""

    def usd(self, shape: str | None = None, *, at: str | None = None, **meters: int) -> Decimal | None:
        """Return the cost of the same call in another shape, at another time or with other meters."""
        shape = shape or self.shape
        usage = Usage(tuple((meter, count) for meter, count in (meters or SHAPES[shape]).items() if count))
        tier = shape if shape in ("priority", "flex") else None
        return self.engine.cost(
            usage, provider=self.seller, model=self.model, service_tier=tier, region=REGIONS.get(self.seller),
            batch=shape == "batch", at=at or self.at,
        ).usd  # fmt: skip


def cases(engine: PriceEngine, at: datetime) -> Iterator[Case]:
    """Yield the generated calls that have a price here."""
    for seller in SELLERS:
        shard = engine.catalog.shard(seller)
        assert shard is not None
        for model in shard.models:
            for shape in SHAPES:
                case = Case(seller, model, shape, at, Cost.unknown(""), engine)
                usage = Usage(tuple(SHAPES[shape].items()))
                tier = shape if shape in ("priority", "flex") else None
                case.cost = engine.cost(
                    usage, provider=seller, model=model, service_tier=tier, region=REGIONS.get(seller),
                    batch=shape == "batch", at=at,
                )  # fmt: skip
                if case.cost.usd:
                    yield case


# the engines ---------------------------------------------------------------------------------------------------------

Engine = Callable[[Case], Decimal | None]


def litellm_engine() -> tuple[str, Engine]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ.setdefault("LITELLM_LOG", "CRITICAL")
    from importlib.metadata import version

    import litellm

    litellm.suppress_debug_info = True
    providers = {"vertex": "vertex_ai", "together": "together_ai", "voyage": "voyage"}

    def price(case: Case) -> Decimal | None:
        meters = SHAPES[case.shape]
        if case.shape == "batch":
            return None  # LiteLLM halves batches in its proxy's own calculator, not here
        read, written = meters.get("cache_read", 0), meters.get("cache_write_5m", 0)
        try:
            asked, made = litellm.cost_per_token(
                model=case.model,
                custom_llm_provider=providers.get(case.seller, case.seller),
                prompt_tokens=meters["input"] + read + written,
                completion_tokens=meters["output"],
                cache_read_input_tokens=read,
                cache_creation_input_tokens=written,
                service_tier=case.shape if case.shape in ("priority", "flex") else None,
            )
        except Exception:
            return None
        return Decimal(repr(asked)) + Decimal(repr(made)) or None

    return f"litellm {version('litellm')}", price


def genai_engine() -> tuple[str, Engine]:
    from importlib.metadata import version

    from genai_prices import Usage as TheirUsage
    from genai_prices import calc_price

    providers = {"gemini": "google", "bedrock": "aws", "xai": "x-ai", "voyage": "voyageai", "moonshot": "moonshotai"}
    variants = {"batch": {"processing": "batch"}, "priority": {"service_tier": "priority"},
                "flex": {"service_tier": "flex"}}  # fmt: skip

    def price(case: Case) -> Decimal | None:
        if case.seller == "vertex":
            return None
        meters = SHAPES[case.shape]
        read, written = meters.get("cache_read", 0), meters.get("cache_write_5m", 0)
        more: dict[str, Any] = {}
        if case.shape in variants:
            more["price_context"] = variants[case.shape]
        try:
            return calc_price(
                TheirUsage(
                    input_tokens=meters["input"] + read + written, output_tokens=meters["output"],
                    cache_read_tokens=read, cache_write_tokens=written,
                ),
                case.model,
                provider_id=providers.get(case.seller, case.seller),
                genai_request_timestamp=case.at,
                **more,
            ).total_price  # fmt: skip
        except Exception:
            return None

    return f"genai-prices {version('genai-prices')}", price


def tokencost_engine() -> tuple[str, Engine]:
    from importlib.metadata import version

    import tokencost

    prefixed = ("gemini", "azure", "mistral", "deepseek", "xai", "groq", "perplexity", "voyage")
    prefixes = {**{seller: f"{seller}/" for seller in prefixed}, "together": "together_ai/"}

    def price(case: Case) -> Decimal | None:
        meters = SHAPES[case.shape]
        name = prefixes.get(case.seller, "") + case.model
        if case.shape in ("batch", "priority", "flex", "written") or name not in tokencost.TOKEN_COSTS:
            return None
        try:
            total: Decimal = tokencost.calculate_cost_by_tokens(meters["input"], name, "input")
            total += tokencost.calculate_cost_by_tokens(meters["output"], name, "output")
            if read := meters.get("cache_read"):
                total += tokencost.calculate_cost_by_tokens(read, name, "cached")
        except KeyError:
            return None
        return total or None

    return f"tokencost {version('tokencost')}", price


def phoenix_engine() -> tuple[str, Engine]:
    import re
    from importlib.metadata import version

    import phoenix.server.cost_tracking as tracking
    from phoenix.db import models
    from phoenix.db.types.token_price_customization import TokenPriceCustomizationParser
    from phoenix.server.cost_tracking.cost_details_calculator import SpanCostDetailsCalculator
    from phoenix.server.cost_tracking.cost_model_lookup import CostModelLookup

    # the built-in models of its database, as it reads them from its manifest when the server starts
    manifest = json.loads((Path(tracking.__file__).parent / "model_cost_manifest.json").read_text())
    built_in, calculators = [], {}
    for number, entry in enumerate(manifest["models"], 1):
        model = models.GenerativeModel(
            id=number, name=entry["name"], provider=entry.get("provider") or "", is_built_in=True,
            name_pattern=re.compile(entry["name_pattern"]),
        )  # fmt: skip
        built_in.append(model)
        prices = [
            models.TokenPrice(
                token_type=price["token_type"], is_prompt=price["is_prompt"], base_rate=price["base_rate"],
                customization=TokenPriceCustomizationParser.parse(price.get("customization")),
            )
            for price in entry["token_prices"] if price.get("base_rate")
        ]  # fmt: skip
        ordinary = {(price.is_prompt, price.token_type) for price in prices}
        if {(True, "input"), (False, "output")} <= ordinary:  # it refuses a model without one of them
            calculators[number] = SpanCostDetailsCalculator(prices)
    lookup = CostModelLookup(built_in)
    providers = {"gemini": "google", "vertex": "google", "bedrock": "aws", "mistral": "mistralai"}

    def price(case: Case) -> Decimal | None:
        meters = SHAPES[case.shape]
        read, written = meters.get("cache_read", 0), meters.get("cache_write_5m", 0)
        asked, made = meters["input"] + read + written, meters["output"]
        counts = {"prompt": asked, "completion": made, "total": asked + made,
                  "prompt_details": {"cache_read": read, "cache_write": written}}  # fmt: skip
        provider = providers.get(case.seller, case.seller)
        span = {"llm": {"model_name": case.model, "provider": provider, "token_count": counts}}
        model = lookup.find_model(case.at, span)
        case.matched = "" if model is None else model.name
        calculator = None if model is None else calculators.get(model.id)
        if calculator is None:
            return None
        costs = [detail.cost for detail in calculator.calculate_details(span) if detail.cost]
        return sum((Decimal(repr(cost)) for cost in costs), Decimal(0)) or None

    return f"arize-phoenix {version('arize-phoenix')}", price


def mlflow_engine() -> tuple[str, Engine]:
    os.environ["MLFLOW_MODEL_CATALOG_URI"] = ""  # the catalog in the package, nothing from the network
    from importlib.metadata import version

    from mlflow.utils.providers import cost_per_token

    providers = {"vertex": "vertex_ai", "together": "together_ai"}

    def price(case: Case) -> Decimal | None:
        meters = SHAPES[case.shape]
        read, written = meters.get("cache_read", 0), meters.get("cache_write_5m", 0)
        try:
            found = cost_per_token(
                model=case.model, prompt_tokens=meters["input"] + read + written, completion_tokens=meters["output"],
                custom_llm_provider=providers.get(case.seller, case.seller), cache_read_input_tokens=read,
                cache_creation_input_tokens=written,
            )  # fmt: skip
        except Exception:
            return None
        return None if found is None else Decimal(repr(found[0])) + Decimal(repr(found[1])) or None

    return f"mlflow {version('mlflow')}", price


ENGINES = (litellm_engine, genai_engine, tokencost_engine, phoenix_engine, mlflow_engine)


# why they differ -----------------------------------------------------------------------------------------------------


def near(a: Decimal | None, b: Decimal | None, share: str = "0.000001") -> bool:
    return a is not None and b is not None and abs(a - b) <= abs(b) * Decimal(share)


def reason(case: Case, theirs: Decimal, who: str, differing: set[str]) -> str | None:
    """Return why an engine says another amount, None when no reason fits."""
    ours = case.cost.usd
    assert ours is not None
    meters = SHAPES[case.shape]
    flat = {"input": sum(meters.values()) - meters["output"], "output": meters["output"]}
    if near(theirs, ours, "0.04") and case.shape in ("cached", "written", "batch", "priority", "flex"):
        return "a published price is rounded (0.13 for 0.125); the row carries what the page says"
    if case.shape in ("priority", "flex", "batch") and near(theirs, case.usd("plain")):
        return f"it has no {case.shape} price and takes the ordinary one"
    if case.shape == "cached" and near(theirs, case.usd("plain", **flat)):
        return "it has no price for cached tokens and takes the ordinary one"
    if case.shape == "written" and near(theirs, case.usd("plain", **flat)):
        return "it has no price for cache writes and takes the ordinary one"
    if case.shape in ("cached", "written"):
        rest = case.usd("plain", input=meters["input"], output=meters["output"])
        if near(theirs, rest):
            return "it has no price for cached tokens and counts them as nothing"
    if near(theirs, case.usd(case.shape, **{**meters, "output": 0})):
        return "it has no price for what comes out"
    if case.shape == "long":
        plain = case.usd("plain")
        per_input = case.usd("plain", input=1_000)
        per_output = case.usd("plain", output=1_000)
        if plain and per_input and per_output and near(theirs, per_input * 300 + per_output):
            return "it knows no dearer step for long prompts"
    for day in ("2024-03-01", "2024-08-01", "2024-11-15", "2025-03-01", "2025-06-01", "2025-09-15", "2026-01-15",
                "2026-04-01", "2026-07-01", "2026-09-15", "2026-10-24", "2027-02-01",
                "2026-11-16T02:00:00Z"):  # fmt: skip
        if near(theirs, case.usd(at=day)):
            return "its price is that of another date or hour"
    if who.startswith("arize-phoenix") and case.matched.rpartition("/")[2] != case.model:
        return "it takes the price of another seller or model whose pattern is found in the name"
    if case.seller == "bedrock" and (near(theirs * Decimal("1.1"), ours) or near(theirs, ours * Decimal("1.1"))):
        return "it leaves out the 10 % of regional profiles and bare ids (or adds it to global ones)"
    if near(theirs * Decimal("1.2"), ours):
        return "it leaves out the 20 % of GovCloud"
    shape, shard = SHAPES[case.shape], case.engine.catalog.shard(case.seller)
    bare = case.model.partition(".")[2] if case.seller == "bedrock" else case.model
    for seller in {*SELLERS, case.seller}:
        usage = Usage(tuple(shape.items() if case.shape in ("plain", "cached", "written", "long") else flat.items()))
        other = case.engine.cost(usage, provider=seller, model=bare, region=REGIONS.get(seller), at=case.at)
        if near(theirs, other.usd) and shard is not None:
            return "it has no row of its own for the seller or profile and takes another one's price"
    if case.seller == "perplexity":
        fees = [Decimal(price) for meter, price in _row(case)["standard"].items() if meter.startswith("requests")]
        if any(near(theirs - fee / 1_000, ours) for fee in fees):
            return "it adds the fee of a request whose search context the reply does not state"
    for day in ("2025-03-01", "2025-09-15", "2026-06-01"):
        usage = Usage(tuple(flat.items()) if case.shape != "cached" else tuple(meters.items()))
        for seller in ("deepseek", "moonshot", "mistral", case.seller):
            if near(theirs, case.engine.cost(usage, provider=seller, model=case.model, at=day).usd):
                return "it takes the maker's price of another date"
    for model in shard.models if shard is not None else ():
        usage = Usage(tuple(SHAPES[case.shape].items()))
        if near(theirs, case.engine.cost(usage, provider=case.seller, model=model, at=case.at).usd):
            return "another model of the seller has this price: it takes the name for that one, or is behind"
    if case.model.startswith(("perplexity/", "fireworks_ai/")):
        return "the same words name two products"
    if case.seller in ("mistral", "azure") and "embed" in case.model:
        return "an embedding has no output; the generated call is not a real one"
    if f"{case.seller}/{case.model}" in differing or any(f"{case.seller}/{name}" in differing for name in _names(case)):
        return "the open lists differ; the higher rank stands (see the report of the build)"
    if "basis" in _row(case):
        return "a row kept by hand, from the seller's own words"
    if "prices.azure.com" in _row(case)["source"]:
        return "Azure's own retail meters stand"
    if who.startswith("mlflow"):
        return "its catalog is LiteLLM's list of an earlier day"
    if who.startswith("tokencost"):
        return "its list is a copy of LiteLLM's of 2025"
    if who.startswith("genai-prices") and case.cost.price_date is None and "(by litellm)" in _row(case)["source"]:
        return "it has no such model and takes one that its pattern matches"
    if who.startswith("litellm") and "(by litellm)" in _row(case)["source"]:
        return "its release is another one than the list in the catalog"
    if who.startswith("litellm") and case.model.startswith("claude-fable"):
        return "it has no later price than that of the launch"
    return None


def _names(case: Case) -> list[str]:
    shard = case.engine.catalog.shard(case.seller)
    assert shard is not None
    return list(shard.models[case.model].get("names", ()))


def _row(case: Case) -> dict[str, Any]:
    shard = case.engine.catalog.shard(case.seller)
    assert shard is not None
    row: dict[str, Any] = shard.models[case.model]["rows"][-1]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="the disagreements that build_catalog.py wrote")
    parser.add_argument("--at", default="2026-11-15T12:00:00", help="when the calls are made")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    at = datetime.fromisoformat(args.at).replace(tzinfo=UTC)
    differing = {row["model"] for row in json.loads(args.report.read_text())} if args.report else set()
    generated = list(cases(PriceEngine.bundled(), at))
    result: dict[str, Any] = {}
    unexplained: list[str] = []
    for make in ENGINES:
        try:
            name, price = make()
        except ImportError as error:
            print(f"not compared: {error.name} is not installed", file=sys.stderr)
            continue
        same = absent = 0
        why: Counter[str] = Counter()
        example: dict[str, str] = defaultdict(str)
        for case in generated:
            theirs = price(case)
            if theirs is None:
                absent += 1
            elif near(theirs, case.cost.usd):
                same += 1
            else:
                said = f"{case.seller}/{case.model} {case.shape}: {theirs:f}, here {case.cost.usd:f}"
                because = reason(case, theirs, name, differing)
                if because is None:
                    unexplained.append(f"{name}: {said}")
                    because = "unexplained"
                why[because] += 1
                example.setdefault(because, said)
        result[name] = {
            "calls": len(generated), "same": same, "no_price_there": absent,
            "different": {text: {"calls": count, "example": example[text]} for text, count in why.most_common()},
        }  # fmt: skip
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for name, found in result.items():
            print(
                f"{name}: {found['calls']} calls, {found['same']} the same, {found['no_price_there']} without a price"
            )
            for text, one in found["different"].items():
                print(f"  {one['calls']:>6}  {text}\n          {one['example']}")
        print(*unexplained, sep="\n")
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
