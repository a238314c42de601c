"""From the name a call carries (prefixes, ARNs, snapshots, resource names) to names a price catalog can hold."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

__all__ = ["candidates", "nearest", "profile_scope", "snapshot_day", "stated_region", "without_date"]

_SCOPES = frozenset(("global", "us", "eu", "apac", "jp", "au", "ca", "us-gov"))
_ROUTES = frozenset(
    ("converse", "converse_like", "invoke", "responses", "chat", "global-standard", "global", "claude_platform")
)
_VARIANTS = frozenset(("thinking", "extended", "beta", "exacto"))
_ZONES = {"eu": "datazone-eu", "us": "datazone-us", "apac": "datazone-apac", "global": "global", "us-gov": "usgov"}
"""What LiteLLM writes before an Azure model (azure/eu/gpt-4o), to the deployment type."""


def candidates(model: str, seller: str, aliases: Container[str]) -> Iterator[str]:
    """Yield the names under which `model` may stand in the catalog, nearest first; the same one can come twice.

    `aliases` holds the words that are sellers, so that "groq/openai/gpt-oss-120b" loses the first part alone.
    """
    yield model
    low = model.lower()
    yield low
    name = low
    for shorter in _without_path(low, seller, aliases):
        name = shorter
        yield name
    if name.startswith("ft:") and len(name) > 3:
        base = name.split(":")[1]
        yield f"ft:{base}"
        yield f"ft:{without_date(base)}"
        return
    if seller == "bedrock":
        yield from _bedrock(name)
        return
    if ":" in name:
        head, _, variant = name.partition(":")
        if variant in _VARIANTS:
            name = head
            yield name
            if seller == "openrouter":
                yield low.removeprefix("openrouter/").partition(":")[0]
    if "@" in name:
        name, _, snapshot = name.partition("@")
        if snapshot.isdigit():
            yield f"{name}-{snapshot}"
            if name[-3:-1] == "-v":  # Vertex counts releases of one name: claude-3-5-sonnet-v2@20241022
                yield f"{name[:-3]}-{snapshot}"
        yield name
    if name.endswith("-latest"):
        name = name.removesuffix("-latest")
        yield name
    dateless = without_date(name)
    if dateless != name:
        yield dateless
    if seller in ("gemini", "vertex") and len(name) > 4 and name[-4] == "-" and name[-3:].isdigit():
        yield name[:-4]
    if name.startswith("claude"):
        yield dateless.replace(".", "-")


def profile_scope(model: str) -> str | None:
    """Return the scope of a Bedrock inference profile (global, us, eu, ...), None for a bare model id."""
    head = model.rpartition("/")[2].partition(".")[0]
    return head if head in _SCOPES else None


def stated_region(model: str, seller: str) -> str | None:
    """Return the region that a name states: an ARN's, a Vertex resource's, that of LiteLLM's prefix (azure/eu/...,
    bedrock/us-west-2/...); else None."""
    if "/" not in model or seller not in ("azure", "bedrock", "vertex"):
        return None
    if seller == "vertex":
        return model.partition("/locations/")[2].partition("/")[0] or None
    if model.startswith("arn:"):
        words = model.split(":")
        return words[3] or None if len(words) > 5 else None
    for part in model.lower().split("/")[:-1]:
        if seller == "azure" and part in _ZONES:
            return _ZONES[part]
        if seller == "bedrock" and _is_region(part):
            return part
    return None


def nearest(model: str, names: Mapping[str, str], most: int = 3) -> list[str]:
    """Return up to `most` known names that look like `model`: those that share the longest beginning."""
    wanted = model.lower().rpartition("/")[2]
    if "/" in model:
        wanted = wanted.partition(":")[0]  # a router's variant
    words = set(_words(wanted))
    scored = []
    for name in names:
        same, bare = 0, name.rpartition("/")[2].lower()
        for a, b in zip(wanted, bare, strict=False):
            if a != b:
                break
            same += 1
        if same >= 3:
            scored.append((-same - 2 * len(words.intersection(_words(bare))), len(name), name))
    scored.sort()
    found: list[str] = []
    for _, _, name in scored:
        if names[name] not in found:
            found.append(names[name])
            if len(found) == most:
                break
    return found


def _words(name: str) -> list[str]:
    return name.replace(".", "-").replace(":", "-").split("-")


def _without_path(name: str, seller: str, aliases: Container[str]) -> Iterator[str]:
    """Yield `name` with one more leading part taken off each time."""
    if name.startswith("arn:"):
        kind, _, rest = _arn_resource(name)
        if kind in ("inference-profile", "foundation-model"):
            yield rest
        return
    if name.startswith("@"):  # Portkey: @integration/model
        name = name.partition("/")[2]
        yield name
    if name.startswith(("models/", "publishers/", "projects/", "endpoints/")) or "/publishers/" in name:
        yield name.rpartition("/")[2]
        return
    while "/" in name:
        head, _, name_after = name.partition("/")
        if not (
            head == seller
            or head in aliases
            or head in _ROUTES
            or _is_region(head)
            or (seller == "azure" and head in _ZONES)
        ):
            return
        name = name_after
        yield name


def _arn_resource(name: str) -> tuple[str, str, str]:
    # arn:aws:bedrock:REGION:ACCOUNT:KIND/ID where ID itself holds a colon (":0")
    parts = name.split(":", 5)
    return parts[5].partition("/") if len(parts) == 6 else ("", "", "")


def _bedrock(name: str) -> Iterator[str]:
    yield name
    head, _, bare = name.partition(".")
    if head not in _SCOPES:
        bare, head = name, ""
    for form in (bare, bare.rpartition(":")[0] if bare.count(":") > 1 else bare):
        if head:
            yield f"{head}.{form}"
        yield form
        short = form.partition(":")[0]
        if head:
            yield f"{head}.{short}"
        yield short
        versionless = short[:-3] if short[-3:-1] == "-v" and short[-1].isdigit() else short
        yield versionless
        if head:
            yield f"{head}.{without_date(versionless)}"
        yield without_date(versionless)


def without_date(name: str) -> str:
    """Return a model's name without the date of its snapshot (-2025-08-07, -20250807)."""
    if len(name) > 11 and name[-11] == "-" and name[-6] == "-" and name[-3] == "-":
        date = name[-10:].replace("-", "")
        if date.isdigit() and len(date) == 8:
            return name[:-11]
    if len(name) > 9 and name[-9] == "-" and name[-8:].isdigit() and name[-8:-6] == "20":
        return name[:-9]
    return name


def snapshot_day(name: str) -> str:
    """Return the ISO day in a snapshot's name (gpt-4o-2024-08-06, claude-haiku-4-5@20251001), "" without one."""
    words = name.replace("@", "-").replace(":", "-").split("-")
    for place, word in enumerate(words):
        if not word.isdigit() or word[:2] != "20":
            continue
        if len(word) == 8:
            return f"{word[:4]}-{word[4:6]}-{word[6:]}"
        rest = words[place + 1 : place + 3]
        if len(word) == 4 and len(rest) == 2 and all(part.isdigit() and len(part) == 2 for part in rest):
            return "-".join((word, *rest))
    return ""


def _is_region(word: str) -> bool:
    return word.count("-") >= 2 and word[-1:].isdigit()
