"""Build src/attribkit/pricing/data from rows kept by hand and the open price lists.

    python tools/build_catalog.py --litellm DIR --genai DIR --model-prices DIR --azure DIR --tokencost DIR
                                  [--report report.json]

Each DIR is an unpacked wheel (`pip download --no-deps litellm genai-prices model-prices azure-genai-prices
tokencost`, then unzip). Rank decides: rows in tools/prices/*.json are kept by hand and never overwritten (each says its
`basis`: the open lists' own notes, an announcement, or, with `checked`, the seller's page read on that day); then
Azure's own retail meters; then genai-prices (dated, reviewed), then LiteLLM (broadest), then model-prices (the history
of models.dev); then tokencost, LiteLLM's list of 2025, for models that all of them have dropped since. Where two lists
differ the higher rank stands and the difference goes into the report.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from price_azure import azure_offers
from price_sources import genai_offers, model_prices_offers

from attribkit.pricing.catalog import FORMAT, check_shard, in_force
from attribkit.pricing.lists import Offer, Row, both_groundings, litellm_offers, text
from attribkit.pricing.meters import FEES, UNITS, unit_of
from attribkit.pricing.names import candidates, without_date

HERE = Path(__file__).parent
DATA = HERE.parent / "src" / "attribkit" / "pricing" / "data"
NOT_CARDS = frozenset(
    (
        "from", "source", "basis", "checked", "note", "steps", "regions", "uplift", "hours", "fees", "free", "over",
        "strict_regions",
    )
)  # fmt: skip
Disagreement = dict[str, Any]


class Book:
    """The models of one seller while they are put together."""

    def __init__(self, seller: str) -> None:
        self.seller = seller
        self.models: dict[str, dict[str, Any]] = {}
        self.owner: dict[str, str] = {}
        self.matchers: list[tuple[str, Any]] = []

    def add(self, offer: Offer, listed: str, checked: str, report: list[Disagreement]) -> None:
        rows = [{**row, "source": offer.source, "checked": checked, "list": listed} for row in offer.rows]
        name = self.owner.get(offer.model)
        if name is None:
            for key, matches in self.matchers:
                if "uplift" in rows[-1] and without_date(offer.model) != key:
                    continue  # another release: residency depends on the day of release
                if offer.region is None and matches(offer.model) and same_price(self.models[key]["rows"], rows):
                    name = key
                    self.owner[offer.model] = key
                    self.models[key]["names"].add(offer.model)
                    break
        if offer.region is not None:
            self._add_region(offer, rows[-1])
            return
        if name is None:
            self.models[offer.model] = {"rows": rows, "names": set()}
            self.owner[offer.model] = name = offer.model
            if offer.matches:
                self.matchers.append((offer.model, offer.matches))
        elif self.models[name]["rows"][0].get("list") != "hand":
            # a geographic profile's price under a global profile's name is a slip of the history's keeper
            own = without_date(offer.model.lower()) == without_date(name.lower()) and not name.startswith("global.")
            merge(self.models[name]["rows"], rows, f"{self.seller}/{offer.model}", report, history=own)
        for other in offer.names:
            if other != name and other not in self.owner:
                self.owner[other] = name
                self.models[name]["names"].add(other)

    def _add_region(self, offer: Offer, row: Row) -> None:
        key = self.owner.get(offer.model)
        if key is None:
            cards = {k: v for k, v in row.items() if k not in ("uplift",)}
            self.models[offer.model] = {"rows": [cards], "names": set()}
            self.owner[offer.model] = key = offer.model
        rows = self.models[key]["rows"]
        if rows[0].get("list") == "hand":
            return
        cards = {k: v for k, v in row.items() if k not in ("source", "checked", "list", "uplift")}
        have = rows[-1].setdefault("regions", {}).setdefault(offer.region, cards)
        if have is not cards:
            fill_tiers(have, cards)


def same_price(a: list[Row], b: list[Row]) -> bool:
    """Return whether two models cost the same today, as far as both say."""
    x, y = a[current(a)].get("standard", {}), b[current(b)].get("standard", {})
    shared = set(x) & set(y) - FEES
    return bool(shared) and all(x[m] == y[m] for m in shared) and x.get("input") == y.get("input")


CHECKED = date.today().isoformat()
"""The day the lists were read (--checked)."""


def merge(rows: list[Row], lower: list[Row], where: str, report: list[Disagreement], *, history: bool = True) -> None:
    """Fill what `rows` lack from rows of a lower rank; take their history when `rows` have none. Another name of the
    model ("-latest") has the history of what it meant before, which is not taken."""
    at = current(rows)
    now, other = rows[at], lower[current(lower)]
    agree = "standard" in now
    if not agree:
        now.update(deepcopy({k: v for k, v in other.items() if k not in now or k == "list"}))
        return
    for tier in [k for k in other if k not in NOT_CARDS and k != "list"]:
        if tier not in now:
            if agree:
                now[tier] = other[tier]
            continue
        for meter, price in other[tier].items():
            have = now[tier].get(meter)
            if have is None:
                if agree and not (tier != "standard" and meter in FEES):
                    now[tier][meter] = price
            elif Decimal(have) != Decimal(price):
                report.append({"model": where, "what": f"{tier}.{meter}", now["list"]: have, label(now, other): price})
                if tier == "standard" and meter in ("input", "output"):
                    agree = False
    if not agree:
        return
    _merge_steps(now, other, where, report)
    for key in ("uplift", "regions"):
        if key in other:
            now.setdefault(key, {}).update({k: v for k, v in other[key].items() if k not in now[key]})
    if not history:
        return
    if len(rows) == 1 and len(lower) > 1:
        rows[:0] = [deepcopy(row) for row in lower[: current(lower)]]
        now["from"] = other["from"]
    elif len(rows) == 1 and "from" not in now and "from" in other:
        now["from"] = other["from"]


def fill_tiers(cards: dict[str, Any], other: dict[str, Any]) -> None:
    """Take the tiers that `cards` lack from other cards with the same standard price."""
    mine, theirs = cards.get("standard", {}), other.get("standard", {})
    if not mine.get("input") or not all(
        theirs.get(meter) == mine[meter] for meter in ("input", "output") if meter in mine
    ):
        return
    for tier, card in other.items():
        if tier not in cards and tier not in NOT_CARDS and tier != "list":
            cards[tier] = deepcopy(card)


def label(now: Row, other: Row) -> str:
    """Return the other list's name, told apart when it is the same list under a second name."""
    listed: str = other["list"]
    return f"{listed} (second name)" if listed == now["list"] else listed


def current(rows: list[Row]) -> int:
    """Return the place of the row that is in force when the lists were read; later ones are announced."""
    return max(n for n, row in enumerate(rows) if row.get("from", "") <= CHECKED or n == 0)


def _merge_steps(now: Row, other: Row, where: str, report: list[Disagreement]) -> None:
    mine = {step["over"]: step for step in now.get("steps", ())}
    theirs = {step["over"]: step for step in other.get("steps", ())}
    if set(mine) != set(theirs):
        if theirs:
            report.append({"model": where, "what": "steps", now["list"]: sorted(mine), other["list"]: sorted(theirs)})
        return
    for over, step in mine.items():
        for tier, card in theirs[over].items():
            if tier == "over":
                continue
            have = step.setdefault(tier, {})
            for meter, price in card.items():
                if meter not in have:
                    have[meter] = price
                elif Decimal(have[meter]) != Decimal(price):
                    report.append(
                        {"model": where, "what": f"over {over}: {tier}.{meter}", now["list"]: have[meter],
                         other["list"]: price}
                    )  # fmt: skip


def complete(row: Row, later: Row | None) -> None:
    """Fill the tiers of a row: meters that a tier's list left out by the ratio of its input price; for a row of the
    past the tiers themselves, by their ratio to the standard card of the row after it."""
    standard = row["standard"]
    if later is not None:
        for tier in [k for k in later if k not in NOT_CARDS and k not in ("list", "standard")]:
            if tier not in row and later["standard"].get("input") and later[tier].get("input"):
                row[tier] = {m: text(Decimal(p) * share(later, tier, m)) for m, p in standard.items() if m not in FEES}
                row["note"] = "tiers by their ratio in the row after it"
        for meter, price in later["standard"].items():
            if meter not in standard and meter.startswith("cache") and later["standard"].get("input"):
                ratio = Decimal(price) / Decimal(later["standard"]["input"])
                if "input" in standard and ratio != 0:
                    standard[meter] = text(round(Decimal(standard["input"]) * ratio, 6))
    scopes = [row, *row.get("steps", ()), *row.get("regions", {}).values()]
    for region in row.get("regions", {}).values():
        scopes += region.get("steps", ())
    for scope in scopes:
        base = scope.get("standard") or standard
        for meter in ("cache_read", "cache_write_5m", "cache_write_1h"):
            if (
                scope is not row
                and meter not in base
                and meter in standard
                and standard.get("input")
                and "input" in base
            ):
                base[meter] = text(Decimal(standard[meter]) * Decimal(base["input"]) / Decimal(standard["input"]))
        for tier, card in scope.items():
            if tier in NOT_CARDS or tier in ("list", "standard") or not isinstance(card, dict):
                continue
            if not card.get("input") or not Decimal(base.get("input", 0)):
                continue
            ratio = Decimal(card["input"]) / Decimal(base["input"])
            for meter, price in base.items():
                if meter not in card and meter not in FEES and unit_of(meter) == 1_000_000:
                    card[meter] = text(Decimal(price) * ratio)


def share(row: Row, tier: str, meter: str) -> Decimal:
    """Return what share of a meter's ordinary price a tier takes: its own where the row says both, else the input's."""
    card, standard = row[tier], row["standard"]
    if meter not in card or not Decimal(standard.get(meter, 0)):
        meter = "input"
    return Decimal(card[meter]) / Decimal(standard[meter])


def fill_step_tiers(row: Row, later: Row | None = None) -> None:
    """Give a step the tiers that the row has and no list states for it only where a rule of the seller does, or where
    the row after it has them. What a tier does not discount at all, it does not discount in long prompts either."""
    standard = row.get("standard", {})
    beyond = {tier for step in (later or {}).get("steps", ()) for tier in step}
    for step in row.get("steps", ()):
        for tier in ("batch", "flex", *sorted(beyond & {"priority", "fast"})):
            if tier in row and tier not in step and step.get("standard", {}).get("input"):
                ratio = Decimal(row[tier]["input"]) / Decimal(standard["input"])
                step[tier] = {
                    m: p if row[tier].get(m) == standard.get(m) else text(Decimal(p) * ratio)
                    for m, p in step["standard"].items()
                    if m not in FEES
                }


def add_patches(book: Book, patches: dict[str, Any]) -> None:
    """Put parts kept by hand into every row of models that are otherwise the lists'."""
    for model, parts in patches.items():
        for row in book.models[book.owner[model]]["rows"]:
            for key, part in parts.items():
                whole = isinstance(part, dict) and isinstance(row.get(key), dict)
                row[key] = {**row[key], **part} if whole else deepcopy(part)


def add_history(book: Book, history: dict[str, Any]) -> None:
    """Put rows kept by hand of the past before a model's own. Snapshots that a name moved away from, or to, keep the
    rows without that past."""
    for model, past in history.items():
        key = book.owner[model]
        entry = book.models[key]
        for snapshot in past.get("snapshots", ()):
            entry["names"].discard(snapshot)
            book.models[snapshot] = {"rows": deepcopy(entry["rows"]), "names": set()}
            book.owner[snapshot] = snapshot
        rows = [row for row in entry["rows"] if row.get("from", "") > past["until"]]
        now = entry["rows"][current(entry["rows"])] if not rows or len(entry["rows"]) > len(rows) else rows.pop(0)
        now["from"] = past["until"]
        entry["rows"] = [*({**row, "list": "hand"} for row in past["rows"]), now, *(r for r in rows if r is not now)]


def fold(book: Book, model: str, other: str) -> None:
    """Make `other` a name of `model`: what its own entry said gives way to the model's rows and their history."""
    key, old = book.owner[model], book.owner.get(other)
    if old == key:
        return
    names = {other}
    if old == other:
        names |= book.models.pop(old)["names"]
    elif old is not None:
        book.models[old]["names"].discard(other)
    book.models[key]["names"] |= names
    for name in names:
        book.owner[name] = key


def add_names(book: Book, same: dict[str, list[str]]) -> None:
    """Names of one model which the lists hold apart, or with less than the model itself (`*` for any words)."""
    for model, patterns in same.items():
        for pattern in patterns:
            held = [name for name in book.owner if fnmatch.fnmatchcase(name, pattern)] if "*" in pattern else [pattern]
            for name in held:
                fold(book, model, name)


def add_apart(book: Book, apart: dict[str, dict[str, Any]]) -> None:
    """Names that a list holds together, and whose rows differ in parts that it does not say."""
    for model, parts in apart.items():
        entry = book.models[book.owner[model]]
        first, *others = parts["names"]
        entry["names"] -= {first, *others}
        rows = [{k: v for k, v in row.items() if k not in parts} for row in entry["rows"]]
        more = {k: v for k, v in parts.items() if k != "names"}
        book.models[first] = {"rows": [deepcopy({**row, **more}) for row in rows], "names": set(others)}
        for row in entry["rows"]:
            for part in more:
                row.pop(part, None)
        for name in parts["names"]:
            book.owner[name] = first


def azure_cuts(book: Book, openai: Book, later: dict[str, Row]) -> None:
    """The retail meters are older than OpenAI's cut of the 5.6 models; Azure followed, as LiteLLM's list shows. Keep
    the meters as the price before, under the day of OpenAI's own row."""
    for model, row in later.items():
        key, theirs = book.owner.get(model), openai.owner.get(model)
        if key is None or theirs is None or len(openai.models[theirs]["rows"]) < 2:
            continue
        rows = book.models[key]["rows"]
        at = current(openai.models[theirs]["rows"])
        if rows[-1].get("list") == "azure-retail" and not same_price(rows, [row]):
            rows.append({**row, "from": openai.models[theirs]["rows"][at]["from"]})


def prepare(books: dict[str, Book], report: list[Disagreement]) -> None:
    """Rules that hold across lists, each with the page that states it."""
    carry_tiers(books["gemini"])
    cached_audio(books["gemini"])
    cached_audio(books["vertex"])
    inherit(books["vertex"], books["gemini"], report, drop=("flex_", "fast"))
    inherit(books["vertex"], books["anthropic"], report, drop=("fast", "priority", "flex"), uplift_from="4-5")
    bedrock_profiles(books["bedrock"], books["anthropic"])
    bedrock_geographies(books["bedrock"])
    bedrock_regions(books["bedrock"], report)
    bedrock_tiers(books["bedrock"])
    uplifts(books)
    azure_zones(books["azure"])
    short_names(books)
    transcriptions(books["mistral"])
    grounding_fees(books["gemini"])
    grounding_fees(books["vertex"])


def short_names(books: dict[str, Book]) -> None:
    """Names that replies carry and no list has: Vertex's open models without their publisher, fine-tuned models
    without the date of their base."""
    found: dict[str, set[str]] = defaultdict(set)
    for key, entry in books["vertex"].models.items():
        for name in (key, *entry["names"]):
            if name.endswith("-maas") and "/" in name:
                found[name.rpartition("/")[2]].add(key)
    for name, keys in found.items():
        if len(keys) == 1 and name not in books["vertex"].owner:
            books["vertex"].models[next(iter(keys))]["names"].add(name)
    for key in [key for key in books["openai"].models if key.startswith("ft:")]:
        base = without_date(key)
        if base not in books["openai"].owner:
            books["openai"].models[key]["names"].add(base)
    half_price_batches(books)


def half_price_batches(books: dict[str, Book]) -> None:
    """Sellers that state one rule for their batch API, half of every token price, and whose lists leave it out."""
    for seller, (page, left_out) in HALF_PRICE_BATCHES.items():
        for name, entry in books[seller].models.items():
            for row in entry["rows"]:
                standard = row.get("standard", {})
                if "batch" in row or row.get("list") == "hand" or not standard.get("input") or left_out.search(name):
                    continue
                tokens = {m: p for m, p in standard.items() if m not in FEES and unit_of(m) == 1_000_000}
                row["batch"] = {meter: text(Decimal(price) / 2) for meter, price in tokens.items()}
                row["note"] = "; ".join(filter(None, (row.get("note"), f"batch: half of every token price, {page}")))


HALF_PRICE_BATCHES = {
    "mistral": ("https://docs.mistral.ai/capabilities/batch", re.compile("voxtral|ocr|tts|deepseek|glm|vibe")),
    "groq": ("https://console.groq.com/docs/batch", re.compile("orpheus|whisper|tts|compound|specdec")),
}


def inherit(
    book: Book, base: Book, report: list[Disagreement], drop: tuple[str, ...], uplift_from: str | None = None
) -> None:
    """Vertex sells Gemini and Claude at their makers' prices; regional endpoints of Claude 4.5 and later cost 10 %
    more (cloud.google.com/vertex-ai/generative-ai/pricing). Where Vertex's own list has another price for a Gemini
    model, that one stands; what only Vertex's list has (tiers, meters) is taken over."""
    for key, entry in base.models.items():
        rows = deepcopy(entry["rows"])
        vertex = book.models.get(book.owner.get(key, key))
        uplift = None
        if vertex is None and "free" in rows[-1]:
            continue  # what the Gemini API gives away is not free here
        if vertex is not None:
            own = vertex["rows"][-1]
            uplift = own.get("uplift")
            if vertex["rows"][0].get("list") == "hand":
                continue
            if uplift_from is None and "standard" in own:
                theirs = rows[current(rows)]
                if "free" in theirs or not same_price([own], [theirs]):
                    for meter in ("input", "output"):
                        maker = theirs.get("standard", {}).get(meter, "free")
                        if own["standard"].get(meter) not in (None, maker):
                            report.append({"model": f"vertex/{key}", "what": f"standard.{meter}", "maker": maker,
                                           label(theirs, own): own["standard"][meter]})  # fmt: skip
                    continue
                merge(rows, vertex["rows"], f"vertex/{key}", report, history=False)
        for row in rows:
            for scope in (row, *row.get("steps", ())):
                for tier in drop:
                    scope.pop(tier, None)
            row.pop("uplift", None)
            if uplift_from is None:
                if uplift:
                    row["uplift"] = uplift
            elif claude_since(key) >= (4, 5):
                row["uplift"] = {"*": "1.1"}
        names = set(entry["names"]) | {key}
        # of Claude the maker's row holds under each of its names: Vertex's own list knows some by another price
        held = {book.owner.get(name) for name in (names if uplift_from is not None else (key,))}
        for old in sorted(name for name in held if name in book.models):
            names |= set(book.models.pop(old)["names"]) | {old}
        names.discard(key)
        book.models[key] = {"rows": rows, "names": names}
        for name in (*names, key):
            book.owner[name] = key
    # a snapshot that Vertex writes with "@" is the same model
    for name in list(book.models):
        if "@" in name:
            plain = name.replace("@default", "").replace("@", "-").replace("-latest", "")
            home = book.owner.get(plain) or book.owner.get(plain.rpartition("-")[0])
            if home and home != name and home in book.models and "claude" in name:
                book.models[home]["names"].add(name)
                book.owner[name] = home
                del book.models[name]


def claude_since(name: str) -> tuple[int, int]:
    """Return the generation in a Claude model's name: claude-opus-4-5 is (4, 5), claude-3-5-haiku (3, 5)."""
    numbers = [
        int(word)
        for word in name.replace(".", "-").replace("@", "-").replace(":", "-").split("-")
        if word.isdigit() and len(word) <= 2
    ]
    if not numbers:
        return (0, 0)
    return (numbers[0], numbers[1] if len(numbers) > 1 else 0)


def bedrock_profiles(book: Book, anthropic: Book) -> None:
    """Bedrock's global profiles cost the list price; geographic profiles and bare ids of Claude 4.5 and later 10 %
    more (aws.amazon.com/bedrock/pricing). One model holds both: the global price, and an uplift for all else."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in list(book.models):
        claude = re.search(r"(?:^|[./])claude-(.*)", name)
        if claude is None or book.models[name]["rows"][0].get("list") == "hand":
            continue
        rest = claude.group(1)
        plain = rest.partition(":")[0].partition("@")[0]
        plain = re.sub(r"(-20\d{6})?(-v\d)?$", "", plain)
        if claude_since(plain) < (4, 5):
            continue
        home = anthropic.owner.get(f"claude-{plain}")
        if home is None:
            continue
        found[plain].add(f"anthropic.claude-{rest}")
        if re.search(r"-v\d(:\d)?$", rest):  # LiteLLM writes GovCloud's without the maker
            found[plain].add(f"claude-{rest}")
        for other in (name, *book.models.pop(name)["names"]):
            book.owner.pop(other, None)
    for plain, names in found.items():
        rows = deepcopy(anthropic.models[anthropic.owner[f"claude-{plain}"]]["rows"])
        for row in rows:
            for scope in (row, *row.get("steps", ())):
                for tier in ("fast", "flex", "priority", "uplift"):
                    scope.pop(tier, None)
            row["uplift"] = {"us-gov": "1.2", "us-gov-west-1": "1.2", "us-gov-east-1": "1.2", "*": "1.1"}
        key = f"anthropic.claude-{plain}"
        book.models[key] = {"rows": rows, "names": names - {key}}
        for name in (*names, key):
            book.owner[name] = key


def bedrock_geographies(book: Book) -> None:
    """A geographic profile that costs what the bare model costs is a name of it, so that it has the same tiers, steps
    and history. What only the profile's row states is taken over first."""
    for name in sorted(book.models):
        scope, _, bare = name.partition(".")
        key = book.owner.get(bare)
        if scope not in ("us", "eu", "apac", "jp", "au", "ca") or key not in book.models or key == name:
            continue
        mine, theirs = book.models[key]["rows"], book.models[name]["rows"]
        if "hand" in (mine[0].get("list"), theirs[0].get("list")) or not same_price(mine, theirs):
            continue
        if mine[current(mine)]["standard"].get("output") != theirs[current(theirs)]["standard"].get("output"):
            continue
        now, other = mine[current(mine)], theirs[current(theirs)]
        if "steps" not in now and "steps" in other:
            now["steps"] = deepcopy(other["steps"])
        fill_tiers(now, other)
        fold(book, bare, name)


def bedrock_regions(book: Book, report: list[Disagreement]) -> None:
    """Bedrock's prices differ by the region that a call is sent to, through a geographic profile too. AWS's own price
    list has them (tools/prices/regions/bedrock.json); a model whose regions differ has no price in one that is not
    listed."""
    listed = json.loads((HERE / "prices" / "regions" / "bedrock.json").read_text())
    for model, prices in listed["prices"].items():
        key = book.owner.get(model)
        if key is None or book.models[key]["rows"][0].get("list") == "hand":
            continue
        row = book.models[key]["rows"][-1]
        base = row["standard"]
        here: dict[str, Any] = {}
        everywhere: dict[str, Any] = {}
        for numbers, regions in prices.items():
            tokens = numbers.split()
            words = ("input",) if "embed" in model else ("input", "output")
            cards = {"standard": dict(zip(words, tokens, strict=False))}
            if len(tokens) > len(words):
                cards["batch"] = dict(zip(words, tokens[len(words) :], strict=True))
            for region in regions.split():
                scope, _, place = region.rpartition(":")
                (everywhere if scope else here)[region if scope else place] = cards
        for cards in here.values():
            if "batch" in cards and "batch" not in row and cards["standard"].items() <= base.items():
                row["batch"] = deepcopy(cards["batch"])
        here.setdefault("us-east-1", {})
        _put_regions(row, here, f"bedrock/{model}", report)
        row["source"] = f"{row['source']}; regions: {listed['source']}"
        for scope in ("eu", "apac", "jp", "ca", "au"):
            profile = f"{scope}.{model}"
            if (other := book.owner.get(profile)) and other != key and profile in book.models:
                theirs = book.models[profile]["rows"][-1]
                cards = {k: v for k, v in theirs.items() if k in ("standard", "batch", "flex", "priority")}
                row["regions"].setdefault(scope, cards)
                fold(book, model, profile)
        if everywhere and (profile := book.owner.get(f"global.{model}")):
            _put_regions(book.models[profile]["rows"][-1], everywhere, f"bedrock/global.{model}", report)


def _put_regions(row: Row, listed: dict[str, Any], where: str, report: list[Disagreement]) -> None:
    """Put regions' cards into a row: an empty one says that the row's own price holds there."""
    regions = row.setdefault("regions", {})
    for region, cards in sorted(listed.items()):
        standard = cards.get("standard", {})
        have = regions.get(region, {}).get("standard", {})
        for meter, price in standard.items():
            if meter in have and Decimal(have[meter]) != Decimal(price):
                report.append({"model": where, "what": f"{region}: {meter}", "aws": price, row["list"]: have[meter]})
        same = all(
            Decimal(row[tier].get(meter, 0)) == Decimal(price)
            for tier, card in cards.items()
            for meter, price in card.items()
        )
        regions[region] = {} if same else deepcopy(cards)
    if any(regions[region] for region in listed):
        row["strict_regions"] = True


def bedrock_tiers(book: Book) -> None:
    """Bedrock's flex tier costs half of the on-demand price and its priority tier 1.75 times as much, of each model
    that has tiers (aws.amazon.com/bedrock/pricing): those for which a list knows one, and those of the announcement."""
    for name, entry in book.models.items():
        row = entry["rows"][-1]
        if row.get("list") == "hand" or not row.get("standard", {}).get("input"):
            continue
        if "claude" in name or not (name in BEDROCK_TIERED or "flex" in row or "priority" in row):
            continue
        for cards in (row, *row.get("regions", {}).values()):
            standard = cards.get("standard", {})
            for tier, ratio in (("flex", Decimal("0.5")), ("priority", Decimal("1.75"))):
                if tier not in cards and standard.get("input"):
                    tokens = {m: p for m, p in standard.items() if m not in FEES and unit_of(m) == 1_000_000}
                    cards[tier] = {m: text(Decimal(p) * ratio) for m, p in tokens.items()}


BEDROCK_TIERED = frozenset(
    (
        "openai.gpt-oss-20b-1:0", "openai.gpt-oss-120b-1:0", "deepseek.v3-v1:0", "qwen.qwen3-32b-v1:0",
        "qwen.qwen3-coder-480b-a35b-v1:0", "qwen.qwen3-coder-30b-a3b-v1:0", "qwen.qwen3-235b-a22b-2507-v1:0",
        "amazon.nova-pro-v1:0", "amazon.nova-premier-v1:0",
    )
)  # fmt: skip
"""aws.amazon.com/about-aws/whats-new/2025/11/amazon-bedrock-priority-flex-inference-service-tiers"""


def transcriptions(book: Book) -> None:
    """Mistral's transcription models are billed by the minute; the tokens that their replies state too cost nothing
    (mistral.ai/pricing/api)."""
    for entry in book.models.values():
        for row in entry["rows"]:
            for tier in ("standard", "batch"):
                if set(row.get(tier, ())) == {"seconds"}:
                    row[tier] |= {"input": "0", "output": "0"}


def grounding_fees(book: Book) -> None:
    """No tier and no step changes what Google's grounding costs (ai.google.dev/gemini-api/docs/pricing). What is free
    of it each day or month is the project's, not the call's: no price here."""
    for entry in book.models.values():
        for row in entry["rows"]:
            if row.get("list") == "hand" or "standard" not in row:
                continue
            said = {m: row["standard"][m] for m in ("grounding", "maps_grounding") if m in row["standard"]}
            for scope in (row, *row.get("steps", ())):
                for card in scope.values():
                    if isinstance(card, dict):
                        card.pop("grounding", None)
                        card.pop("maps_grounding", None)
            both_groundings(said)
            if said:
                row["fees"] = {**row.get("fees", {}), **said}


def cached_audio(book: Book) -> None:
    """Google's cached audio costs the share of audio that cached text costs of text, as where the page states
    both (ai.google.dev/gemini-api/docs/pricing)."""
    for entry in book.models.values():
        for row in entry["rows"]:
            plain = row.get("standard", {})
            if row.get("list") == "hand" or "audio_cache_read" in plain or not plain.get("input"):
                continue
            if "cache_read" not in plain or plain.get("audio_input", plain["input"]) == plain["input"]:
                continue
            dearer = Decimal(plain["audio_input"]) / Decimal(plain["input"])
            for tier in ("standard", "batch", "flex", "priority"):
                if "cache_read" in row.get(tier, ()):
                    row[tier].setdefault("audio_cache_read", text(round(Decimal(row[tier]["cache_read"]) * dearer, 6)))


def carry_tiers(book: Book) -> None:
    """A price that is announced for a later day has the tiers of today at their share of the ordinary price, where no
    list says more of that day; its fees are those of today."""
    for entry in book.models.values():
        for before, row in pairwise(entry["rows"]):
            if "hand" in (row.get("list"), before.get("list")) or row.get("from", "") <= CHECKED:
                continue
            standard, was = row["standard"], before["standard"]
            for meter, price in was.items():
                if meter in FEES:
                    standard.setdefault(meter, price)
            for tier in ("batch", "flex", "priority"):
                if tier not in before or tier in row or not was.get("input") or not before[tier].get("input"):
                    continue
                ratio = Decimal(before[tier]["input"]) / Decimal(was["input"])
                row[tier] = {m: text(Decimal(p) * ratio) for m, p in standard.items() if m not in FEES}
                row["note"] = "tiers by their ratio in the row before it"


def azure_zones(book: Book) -> None:
    """A data zone costs 10 % more than global in the EU and the US, 20 % in Asia Pacific; the retail meters, where they
    have a model, hold the published number (azure.microsoft.com/pricing/details/cognitive-services/openai-service)."""
    for name, entry in book.models.items():
        if name.startswith(("gpt-", "o1", "o3", "o4", "text-embedding-3", "codex-")):
            for row in entry["rows"]:
                zones = {"datazone-us": "1.1", "datazone-eu": "1.1", "datazone-apac": "1.2"}
                if "standard" in row:
                    row["uplift"] = {**zones, **row.get("uplift", {})}


def uplifts(books: dict[str, Book]) -> None:
    """Regions that cost a flat share more, by model: where the seller states the rule and no list has every model."""
    for entry in books["xai"].models.values():  # us.api.x.ai: docs.x.ai/developers/regions
        for row in entry["rows"]:
            row.setdefault("uplift", {"us": "1.1"})
    older_snapshots(books["openai"])
    for name, entry in books["openai"].models.items():  # developers.openai.com/api/docs/guides/data-residency
        for row in entry["rows"]:
            if name.startswith(RELEASED_WITH_RESIDENCY) or "uplift" in row:
                row["uplift"] = {**row.get("uplift", {}), "*": "1.1"}
    for name, entry in books["anthropic"].models.items():  # platform.claude.com/docs/en/about-claude/pricing
        if claude_since(name) >= (4, 6) or name.startswith(("claude-fable", "claude-mythos")):
            for row in entry["rows"]:
                row.setdefault("uplift", {"us": "1.1"})


def older_snapshots(book: Book) -> None:
    """Residency costs more only for models released since RESIDENCY: an older snapshot under the name of a newer one
    has a row of its own without the uplift."""
    for key in sorted(book.models):
        entry = book.models[key]
        if not any("uplift" in row for row in entry["rows"]):
            continue
        for name in sorted((key, *entry["names"])):
            dateless = without_date(name)
            if dateless == name or name[len(dateless) + 1 :] >= RESIDENCY or name == key:
                continue
            entry["names"].discard(name)
            rows = [{k: v for k, v in row.items() if k != "uplift"} for row in deepcopy(entry["rows"])]
            if dateless in entry["names"]:
                raise SystemExit(f"openai/{dateless}: has older snapshots than {key}")
            book.models[name] = {"rows": rows, "names": set()}
            book.owner[name] = name


RESIDENCY = "2026-03-05"
RELEASED_WITH_RESIDENCY = (
    "gpt-5.4", "gpt-5.5", "gpt-5.6", "gpt-6", "gpt-image-2", "gpt-realtime-2", "gpt-live-", "gpt-transcribe",
)  # fmt: skip
"""OpenAI models released on or after 2026-03-05, when data residency began to cost 10 % more."""


def shard_of(book: Book, fees: dict[str, str], hand: dict[str, Any]) -> dict[str, Any]:
    models = {}
    for key in sorted(book.models):
        entry = book.models[key]
        rows = entry["rows"]
        for number in range(len(rows) - 1, -1, -1):
            if rows[number].get("list") != "hand":
                for cards in rows[number].get("regions", {}).values():
                    fill_tiers(cards, {k: v for k, v in rows[number].items() if isinstance(v, dict)})
                later = rows[number + 1] if number + 1 < len(rows) else None
                if later is None:
                    fill_step_tiers(rows[number])
                complete(rows[number], later)
                fill_step_tiers(rows[number], later)
        models[key] = {}
        names = sorted(n for n in entry["names"] if n != key and n not in book.models)
        if names:
            models[key]["names"] = names
        models[key]["rows"] = [tidy(row) for row in rows]
    follow(models, hand.get("moving", {}))
    for model, rows in hand.get("later", {}).items():
        models[model]["rows"] += rows
    shard: dict[str, Any] = {"format": FORMAT, "seller": book.seller}
    for key in ("strict_regions", "schedules"):
        if key in hand:
            shard[key] = hand[key]
    if fees:
        shard["fees"] = fees
    shard["models"] = dict(sorted(models.items()))
    return shard


def follow(models: dict[str, Any], moving: dict[str, dict[str, Any]]) -> None:
    """Give names that meant one model after another ("-latest", a retired name that is served by its successor) the
    rows of each model for the time in which they meant it. `means` holds pairs of the day and the model."""
    before = deepcopy(models)
    owner = {name: key for key, entry in before.items() for name in (key, *entry.get("names", ()))}
    for name, said in moving.items():
        rows: list[Row] = []
        for (start, target), (end, _) in pairwise([*said["means"], ["9999", ""]]):
            theirs = before[owner[target]]["rows"]
            first = in_force(theirs, start)
            for row in (first, *(row for row in theirs if start < row.get("from", "") < end and row is not first)):
                if rows and price_of(row) == price_of(rows[-1]):
                    continue
                since = {"from": start if row is first else row["from"]}
                rest = {key: value for key, value in row.items() if key not in ("from", "note")}
                if target != name:  # which model a name means is known by hand
                    rest |= {"basis": row.get("basis", "open lists"),
                             "note": f"the name means {target}, {said['source']}"}  # fmt: skip
                rows.append(since | rest)
        rows[0].pop("from", None)
        for entry in models.values():
            if name in entry.get("names", ()):
                entry["names"].remove(name)
        models[name] = {**({"names": models[name]["names"]} if "names" in models.get(name, ()) else {}), "rows": rows}


def price_of(row: Row) -> Row:
    """Return what a row says of the price alone."""
    return {key: value for key, value in row.items() if key not in ("from", "source", "basis", "checked", "note")}


def tidy(row: Row) -> Row:
    order = ("from", "source", "basis", "checked", "note", "withdrawn", "free", "hours", "standard")
    listed = row.get("list")
    out: Row = {key: row[key] for key in order if key in row}
    if listed and listed != "hand":
        out["source"] = f"{row['source']} (by {listed})"
    for key, value in row.items():
        if key in out or key == "list":
            continue
        if key == "steps":
            value = [{k: v for k, v in step.items() if v or k == "over"} for step in value]
        out[key] = value
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", type=Path, required=True)
    parser.add_argument("--genai", type=Path, required=True)
    parser.add_argument("--model-prices", type=Path, required=True)
    parser.add_argument("--azure", type=Path, required=True, help="azure-genai-prices: Azure's retail meters")
    parser.add_argument("--tokencost", type=Path, required=True)
    parser.add_argument("--report", type=Path, help="write every disagreement between lists here, as JSON")
    parser.add_argument("--checked", default=date.today().isoformat(), help="the day the lists were read")
    args = parser.parse_args()
    global CHECKED
    CHECKED = args.checked

    books: dict[str, Book] = defaultdict(lambda: Book(""))
    report: list[Disagreement] = []
    sellers = json.loads((HERE / "prices" / "sellers.json").read_text())
    hand: dict[str, dict[str, Any]] = {}
    for path in sorted((HERE / "prices").glob("*.json")):
        if path.name == "sellers.json":
            continue
        data = json.loads(path.read_text())
        hand[data["seller"]] = data
        book = books[data["seller"]] = Book(data["seller"])
        for model, entry in data["models"].items():
            offer = Offer(data["seller"], model, [], "", set(entry.get("names", ())))
            book.models[model] = {"rows": [{**row, "list": "hand"} for row in entry["rows"]], "names": offer.names}
            for name in (model, *offer.names):
                book.owner[name] = model
    dropped: list[str] = []
    cuts: dict[str, Row] = {}
    lists = (
        ("azure-retail", azure_offers(args.azure / "azure_genai_prices" / "data" / "snapshot.json", dropped)),
        ("genai-prices", genai_offers(args.genai)),
        ("litellm", by_place(litellm_offers(args.litellm / "litellm" / "model_prices_and_context_window_backup.json"))),
        ("model-prices", model_prices_offers(args.model_prices / "model_prices" / "snapshot.json")),
        ("tokencost", by_place(litellm_offers(args.tokencost / "tokencost" / "model_prices.json"))),
    )
    for listed, offers in lists:
        for offer in offers:
            if listed == "tokencost" and not retired(offer, books):
                continue
            book = books[offer.seller]
            book.seller = offer.seller
            if listed == "litellm" and offer.seller == "azure" and "gpt-5.6" in offer.model:
                row = {**offer.rows[-1], "source": offer.source, "checked": args.checked, "list": listed}
                if offer.region is None:
                    cuts[offer.model] = row
                elif offer.model in cuts:
                    cuts[offer.model].setdefault("regions", {})[offer.region] = {
                        k: v for k, v in offer.rows[-1].items() if k != "uplift"
                    }
            if offer.seller == "perplexity" and offer.model == "perplexity/sonar":
                offer = replace(offer, model=f"perplexity/{offer.model}", names=set(), matches=None)
            book.add(offer, listed, offer.checked or args.checked, report)
    for seller, data in hand.items():
        add_names(books[seller], data.get("same", {}))
        add_apart(books[seller], data.get("apart", {}))
        add_history(books[seller], data.get("history", {}))
        add_patches(books[seller], data.get("patches", {}))
    azure_cuts(books["azure"], books["openai"], cuts)
    prepare(books, report)

    DATA.mkdir(exist_ok=True)
    for old in DATA.glob("*.json"):
        old.unlink()
    digest = hashlib.sha256()
    index_sellers = {}
    for seller in sorted(books):
        shard = shard_of(books[seller], sellers["fees"].get(seller, {}), hand.get(seller, {}))
        if not shard["models"]:
            continue
        check_shard(seller, shard)
        body = dumped(shard)
        digest.update(body.encode())
        (DATA / f"{seller}.json").write_text(body)
        index_sellers[seller] = {"models": len(shard["models"])}
        if aliases := sellers["aliases"].get(seller):
            index_sellers[seller]["aliases"] = aliases
    index = {
        "format": FORMAT,
        "version": f"{args.checked.replace('-', '.')}-{digest.hexdigest()[:8]}",
        "built": args.checked,
        "units": UNITS,
        "infer": sellers["infer"],
        "sellers": index_sellers,
    }
    (DATA / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    if args.report:
        args.report.write_text(json.dumps(report, indent=1))
    total = sum(entry["models"] for entry in index_sellers.values())
    print(f"{total} models of {len(index_sellers)} sellers, {len(report)} disagreements, version {index['version']}")


def retired(offer: Offer, books: dict[str, Book]) -> bool:
    """Return whether an old list's model is one that no other list has, under any of its names."""
    if offer.seller not in books or offer.region is not None or UNSOLD.search(f"{offer.seller}/{offer.model}"):
        return False
    makers = ("gemini", "anthropic") if offer.seller == "vertex" else ()
    known = [books[seller].owner for seller in (offer.seller, *makers)]
    names = set(candidates(offer.model, offer.seller, frozenset(books)))
    return not any(name in owner for owner in known for name in names)


UNSOLD = re.compile(
    r"(gemini|vertex)/.*(-exp\b|experimental|ultra|bison|gecko|embedding|image-generation)"
    r"|vertex/gemini-1|openai/ft:|claude-3-5-sonnet.*-v2"
)
"""Models that were never sold, or by the character: the old list guesses their price."""


def by_place(offers: Iterable[Offer]) -> list[Offer]:
    """Return the offers without a region first, then us-east-1: the first one becomes the model's base card."""
    return sorted(offers, key=lambda offer: (offer.region is not None, offer.region != "us-east-1"))


def dumped(shard: dict[str, Any]) -> str:
    """Return JSON with one row a line, so that a changed price is a changed line."""
    head = {k: v for k, v in shard.items() if k != "models"}
    lines = [json.dumps(head, separators=(",", ":"))[:-1] + ',"models":{']
    models = list(shard["models"].items())
    for number, (name, entry) in enumerate(models):
        end = "," if number < len(models) - 1 else ""
        names = f'"names":{json.dumps(entry["names"], separators=(",", ":"))},' if "names" in entry else ""
        rows = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in entry["rows"])
        lines.append(f' {json.dumps(name)}:{{{names}"rows":[\n  {rows}]}}{end}')
    return "\n".join(lines) + "}}\n"


if __name__ == "__main__":
    main()
