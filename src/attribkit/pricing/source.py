"""Prices from a file or a URL over the bundled catalog: fetched off the path of calls, checked before they are taken,
kept in a file so that the last good ones survive a restart and a source that is down."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from attribkit.errors import PriceDataError
from attribkit.pricing.catalog import FORMAT, Catalog, Shard, check_shard

__all__ = ["TTL_HOURS", "Fetched", "PriceSource", "RefreshedCatalog", "Refresher", "as_one_file", "read_catalog"]

TTL_HOURS = 24.0
_RETRY = 900.0
"""Seconds after which a source that failed is asked again."""
_TIMEOUT = 20.0
_MOST_BYTES = 64 * 1024 * 1024
_MOST_CHANGE = 100
"""A price that moved by more than this factor is a slip of the unit (per thousand for per million), not a price."""
_SHARD_KEYS = ("models", "fees", "schedules", "strict_regions")


class RefreshedCatalog(Catalog):
    """The bundled catalog with what a newer table adds. Rows that were checked by hand stay as they are."""

    def __init__(self, base: Catalog, table: Mapping[str, Any]) -> None:
        self.base, self.table = base, table
        self.directory = base.directory
        self.version = f"{table['version']}~{base.version}"
        self.built: str = table["built"]
        self.infer = base.infer
        added = {name: entry for name, entry in table["sellers"].items() if name not in base.sellers}
        self.sellers = {
            **base.sellers,
            **{
                name: {"models": len(entry["models"]), "aliases": entry.get("aliases", ())}
                for name, entry in added.items()
            },
        }
        self.aliases = dict(base.aliases)
        for name, entry in added.items():
            for alias in (name, *entry.get("aliases", ())):
                self.aliases.setdefault(alias, name)
        self._shards = {}

    def shard(self, seller: str) -> Shard | None:
        shard = self._shards.get(seller)
        if shard is not None or seller not in self.sellers:
            return shard
        base, newer = self.base.shard(seller), self.table["sellers"].get(seller)
        if newer is None:
            return base
        if base is None:
            shard = Shard(seller, {"format": FORMAT, **{key: newer[key] for key in _SHARD_KEYS if key in newer}})
        else:
            shard = _merged(base, newer, str(self.table["built"]), adds_only=_adds_only(self.table))
        self._shards[seller] = shard
        return shard


def _adds_only(table: Mapping[str, Any]) -> bool:
    """Return whether a table says no dates and is of a lower rank than the bundled rows: LiteLLM's list."""
    return str(table["version"]).endswith("-litellm")


def _merged(base: Shard, newer: Mapping[str, Any], built: str, *, adds_only: bool) -> Shard:
    models: dict[str, Any] = dict(base.models)
    for model, entry in newer["models"].items():
        known = base.names.get(model) or base.names.get(model.lower())
        if known is None:
            models[model] = entry
        elif not adds_only:
            rows = _rows(models[known]["rows"], entry["rows"])
            if rows is not models[known]["rows"]:
                names = {*models[known].get("names", ()), *entry.get("names", ()), model} - {known}
                models[known] = {"names": sorted(names), "rows": rows}
    return Shard(
        base.seller,
        {
            "format": FORMAT,
            "models": models,
            "fees": {**newer.get("fees", {}), **base.fees} if adds_only else {**base.fees, **newer.get("fees", {})},
            "schedules": {**base.schedules, **newer.get("schedules", {})},
            "strict_regions": base.strict_regions,
        },
    )


def _rows(have: list[dict[str, Any]], newer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a model: after rows checked by hand only what begins later, otherwise the newer table's, with
    the past that it does not reach."""
    by_hand = max((place for place, row in enumerate(have) if "basis" in row), default=-1)
    if by_hand == len(have) - 1:
        last = max(have[-1].get("from", ""), str(have[-1].get("checked", "")))
        later = [row for row in newer if row.get("from", "") > last]
        return [*have, *later] if later else have
    if by_hand >= 0:  # the past is by hand, the present is not
        edge = have[by_hand + 1]["from"]
        present = newer[max(place for place, row in enumerate(newer) if not place or row.get("from", "") <= edge)]
        later = [row for row in newer if row.get("from", "") > edge]
        return [*have[: by_hand + 1], {**present, "from": edge}, *later]
    first = newer[0].get("from", "")
    past = [row for row in have if row.get("from", "") < first] if first else []
    return [*past, *newer]


class Fetched(NamedTuple):
    """What asking a source came to."""

    taken: bool
    """Whether there are other prices now than before."""
    version: str
    built: str
    error: str | None = None
    """Why the last good prices stay; None when the source answered well."""


class PriceSource:
    """A catalog in one file, or LiteLLM's price list, at a path or an http(s) URL.

    `catalog()` never waits for a network: it is what the last good answer said, from the file it is kept in, else the
    bundled prices. `refresh()` asks the source. What breaks the format is refused whole, and the last good one stays.
    """

    def __init__(self, where: str, *, ttl_hours: float = TTL_HOURS, cache: str | None = None) -> None:
        self.where, self.ttl = where, ttl_hours * 3600
        self.remote = where.startswith(("http://", "https://"))
        if not self.remote and "://" in where:
            raise PriceDataError(f"{where}: prices come from a file or from an http(s) URL")
        self.cache = Path(cache or _cache_file(where))
        self.last: Fetched | None = None
        """What the latest refresh of this process came to."""

    def catalog(self, base: Catalog | None = None) -> Catalog:
        """Return the last good prices over `base`, the bundled catalog; that alone when there are none."""
        base = base or Catalog.bundled()
        try:
            return RefreshedCatalog(base, _checked(self.cache.read_bytes(), base, str(self.cache)))
        except (OSError, PriceDataError):
            return base

    def age_hours(self) -> float | None:
        """Return how long ago the source answered well; None when it never did."""
        try:
            return max(0.0, (time.time() - self.cache.stat().st_mtime) / 3600)
        except OSError:
            return None

    def due(self) -> float:
        """Return in how many seconds the source is to be asked; 0 for now."""
        age = self.age_hours()
        left = 0.0 if age is None else self.ttl - age * 3600
        if self.last is not None and self.last.error is not None:
            left = max(left, _RETRY)
        return max(0.0, left)

    def refresh(self, base: Catalog | None = None) -> Fetched:
        """Ask the source and keep a good answer. Never raises for what the source does; `error` says it."""
        base = base or Catalog.bundled()
        before = self.catalog(base)
        try:
            body = _fetched(self.where) if self.remote else Path(self.where).read_bytes()
            table = _checked(body, base, self.where)
            taken = f"{table['version']}~{base.version}" != before.version
            _kept(self.cache, json.dumps(table, separators=(",", ":")).encode())
            self.last = Fetched(taken, f"{table['version']}~{base.version}", table["built"])
        except (OSError, ValueError, PriceDataError) as error:
            self.last = Fetched(False, before.version, before.built, str(error))
        return self.last


class Refresher:
    """Asks a source again and again on a thread of its own, and tells what it took."""

    def __init__(self, source: PriceSource, taken: Callable[[Catalog], None]) -> None:
        self._source, self._taken = source, taken
        self._stopped = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin; again after a fork, where the thread of the parent is gone."""
        self._stopped = Event()
        self._thread = Thread(target=self._run, args=(self._stopped,), name="attribkit-prices", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End. A request under way is left to itself."""
        self._stopped.set()

    def _run(self, stopped: Event) -> None:
        while not stopped.wait(self._source.due()):
            if self._source.refresh().taken and not stopped.is_set():
                self._taken(self._source.catalog())
            if self._source.due() <= 0:  # a clock that jumped, a folder that cannot be written
                stopped.wait(_RETRY)


def read_catalog(where: str) -> Catalog:
    """Return the catalog that `where` names, on its own and not over the bundled one: "bundled", a directory of shards,
    a catalog in one file, LiteLLM's list, or a URL of one of the last two. Raises PriceDataError."""
    if where == "bundled":
        return Catalog.bundled()
    if os.path.isdir(where):
        return Catalog(where)
    try:
        body = _fetched(where) if where.startswith(("http://", "https://")) else Path(where).read_bytes()
    except OSError as error:
        raise PriceDataError(f"{where}: cannot be read: {error}") from error
    return RefreshedCatalog(_Nothing(), _checked(body, None, where))


class _Nothing(Catalog):
    def __init__(self) -> None:
        self.directory, self.version, self.built = "", "none", ""
        self.sellers, self.infer, self.aliases, self._shards = {}, (), {}, {}


def as_one_file(catalog: Catalog) -> dict[str, Any]:
    """Return a catalog as the one JSON object that a source can serve."""
    sellers = {}
    for seller in sorted(catalog.sellers):
        shard = catalog.shard(seller)
        assert shard is not None
        entry: dict[str, Any] = {"models": shard.models}
        for key, value in (("fees", shard.fees), ("schedules", shard.schedules)):
            if value:
                entry[key] = value
        if shard.strict_regions:
            entry["strict_regions"] = True
        if aliases := catalog.sellers[seller].get("aliases"):
            entry["aliases"] = list(aliases)
        sellers[seller] = entry
    return {"format": FORMAT, "version": catalog.version, "built": catalog.built, "sellers": sellers}


def _checked(body: bytes, base: Catalog | None, where: str) -> dict[str, Any]:
    """Return the table in `body`, all of it in order; raises PriceDataError for the first thing that is not."""
    table: Any
    try:
        table = json.loads(body, parse_float=Decimal)
    except ValueError as error:
        raise PriceDataError(f"{where}: is no JSON: {error}") from error
    if not isinstance(table, dict):
        raise PriceDataError(f"{where}: is not a JSON object")
    from attribkit.pricing.lists import is_litellm, litellm_catalog

    if is_litellm(table):
        table = litellm_catalog(json.loads(body), built=datetime.now(UTC).date().isoformat())
    if table.get("format") != FORMAT:
        raise PriceDataError(f"{where}: a catalog of format {table.get('format')!r}; this version reads {FORMAT}")
    for key in ("version", "built"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise PriceDataError(f"{where}: no {key}")
    try:
        date.fromisoformat(table["built"])
    except ValueError as error:
        raise PriceDataError(f"{where}: built = {table['built']!r} is not an ISO date") from error
    sellers = table.get("sellers")
    if not isinstance(sellers, dict) or not sellers:
        raise PriceDataError(f"{where}: no sellers")
    for seller, entry in sellers.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("models"), dict):
            raise PriceDataError(f"{where}: {seller}: no models")
        try:
            check_shard(seller, {"format": FORMAT, **{key: entry[key] for key in _SHARD_KEYS if key in entry}})
        except (AttributeError, KeyError, TypeError) as error:
            raise PriceDataError(f"{where}: {seller}: not in the format: {type(error).__name__} {error}") from error
        if base is not None and not _adds_only(table):
            _check_moves(where, base.shard(seller), entry["models"])
    checked: dict[str, Any] = table
    return checked


def _check_moves(where: str, base: Shard | None, models: Mapping[str, Any]) -> None:
    """Refuse a table in which a known price moved as no price does."""
    if base is None:
        return
    for model, entry in models.items():
        known = base.names.get(model)
        if known is None:
            continue
        before, after = base.models[known]["rows"][-1].get("standard", {}), entry["rows"][-1].get("standard", {})
        for meter in ("input", "output"):
            was, now = Decimal(before.get(meter, "0")), Decimal(after.get(meter, "0"))
            if was and now and not was / _MOST_CHANGE <= now <= was * _MOST_CHANGE:
                raise PriceDataError(f"{where}: {base.seller}/{model}: {meter} moved from {was} to {now}; wrong unit?")


def _fetched(url: str) -> bytes:
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "attribkit", "Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as reply:
        body: bytes = reply.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        raise PriceDataError(f"{url}: more than {_MOST_BYTES} bytes")
    return body


def _kept(path: Path, body: bytes) -> None:
    """Put `body` into the file at once: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _cache_file(where: str) -> str:
    import hashlib

    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    return os.path.join(home, "attribkit", f"prices-{hashlib.sha256(where.encode()).hexdigest()[:16]}.json")
