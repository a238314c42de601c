"""The price engine: from a usage and what kind of call it was to an exact, dated, explained cost."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from time import time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from attribkit.cost import Cost, CostLine
from attribkit.pricing.cards import COMMITTED, TIERS, NoPrice, card_at
from attribkit.pricing.catalog import Catalog, Shard, instant
from attribkit.pricing.meters import FEES, PRICES, STANDS_IN
from attribkit.pricing.names import candidates, nearest, profile_scope, snapshot_day, stated_region
from attribkit.pricing.overrides import Overrides, Rule, discounted, read_overrides
from attribkit.pricing.schedule import DAY
from attribkit.usage.model import INPUT_METERS, OUTPUT_METERS, Usage
from attribkit.usage.read import read_usage

if TYPE_CHECKING:
    from attribkit.attribution import Attribution

__all__ = ["PriceEngine", "Rate"]

_ZERO = Decimal(0)
_EVER, _NEVER = -(1 << 62), 1 << 62
_MOST_ENTRIES = 4_096
_STATES_ITS_CHARGE = frozenset(("openrouter",))
"""Sellers whose usage object says what the account was charged: it beats any table."""
_INPUT, _OUTPUT = INPUT_METERS, OUTPUT_METERS
_TEXT_INPUT = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
_TEXT_OUTPUT = ("output", "reasoning_apart")
_AZURE_ZONES = {
    **{zone: f"datazone-{zone}" for zone in ("us", "eu", "apac")},
    **{f"datazone{zone}": f"datazone-{zone}" for zone in ("us", "eu", "apac")},
}
_AGENT_SONAR = "perplexity/perplexity/sonar"
"""What Perplexity's Agent API calls "perplexity/sonar"; LiteLLM writes the chat API's "sonar" like that."""
_multiply, _add = PRICES.multiply, PRICES.add
_new = tuple.__new__

_Prices = dict[str, Decimal]
_PLAIN_METERS = ("input", "cache_read", "output")
_Group = frozenset[int] | None
_Key = tuple[str | None, str | None, str | None, str | None, str | None, str | None, bool, _Group]
"""Provider, model, tier, region, region by the usage, speed, batch, which conditional overrides hold."""


class _Entry:
    """What one kind of call costs between two instants; or why there is no price."""

    __slots__ = ("built", "charge", "date", "free", "list_prices", "list_steps", "most", "name", "prices", "reason",
                 "since", "steps", "until", "version")  # fmt: skip

    def __init__(self, since: int, until: int, version: str, built: str) -> None:
        self.since, self.until, self.version, self.built = since, until, version, built
        self.charge: Rule | None = None
        self.prices: _Prices | None = None
        self.steps: tuple[tuple[int, _Prices], ...] = ()
        self.list_prices: _Prices | None = None
        self.list_steps: tuple[tuple[int, _Prices], ...] = ()
        self.name: str | None = None
        self.date: str | None = None
        self.reason: str | None = None
        self.free: str | None = None
        self.most: tuple[Decimal, Decimal, Decimal] | None = None
        """The dearest text prices of input and output and the fee, where the number of tokens does not change them."""


class Rate(NamedTuple):
    """What a text token costs in calls of one kind that start from `since` to before `until` (UTC nanoseconds)."""

    prices: Mapping[str, Decimal]
    """USD for each of input, cache_read and output. Empty where a cost is more than counts times these prices."""
    since: int
    until: int
    most_input: int | None
    """The most input tokens for which they hold; None: any number."""
    cost: Cost
    """Such a cost, without its amounts."""


class PriceEngine:
    """Prices calls from one catalog and an organisation's overrides. Safe to share between threads; never raises
    for what a provider sent."""

    def __init__(self, catalog: Catalog, overrides: Overrides) -> None:
        self.catalog, self.overrides = catalog, overrides
        self._entries: dict[_Key, _Entry] = {}
        self._sellers: dict[tuple[str | None, str | None], str] = {}
        self._conditional = bool(overrides.fields)
        self._own_version = f"{catalog.version}+{overrides.digest}" if overrides.digest else catalog.version

    @classmethod
    def bundled(
        cls,
        overrides: Iterable[Mapping[str, Any] | str | os.PathLike[str]]
        | Mapping[str, Any]
        | str
        | os.PathLike[str] = (),
    ) -> PriceEngine:
        """Return an engine over the catalog in the package; without overrides the same one each time.

        `overrides` are mappings or TOML/JSON files; raises PriceDataError for one that breaks the format.
        """
        return cls(Catalog.bundled(), read_overrides(overrides)) if overrides else _plain_engine()

    def with_catalog(self, catalog: Catalog) -> PriceEngine:
        """Return an engine with the same overrides over another catalog."""
        return PriceEngine(catalog, self.overrides)

    @property
    def version(self) -> str:
        """The version of the catalog, and of the overrides when there are any."""
        return self._own_version

    def age_days(self, now: date | datetime | None = None) -> int:
        """Return how many days ago the catalog was built."""
        today = now or date.today()
        if isinstance(today, datetime):
            today = today.date()
        return (today - date.fromisoformat(self.catalog.built)).days

    def known(self, seller: str) -> tuple[str, ...]:
        """Return the models of a seller that have a price, () for an unknown seller."""
        shard = self.catalog.shard(self.catalog.aliases.get(seller, seller))
        return tuple(shard.models) if shard else ()

    def nearest(self, model: str, seller: str | None = None) -> list[str]:
        """Return known names that look like `model`, as "seller/model"; of all sellers when none is given.

        Without a seller this loads the whole catalog: for commands, not for the path of a call.
        """
        found = []
        for name in [seller] if seller else list(self.catalog.sellers):
            shard = self.catalog.shard(self.catalog.aliases.get(name, name))
            if shard is not None:
                found += [f"{shard.seller}/{near}" for near in nearest(model, shard.names)]
        wanted = model.lower()
        found.sort(key=lambda name: (-_shared(name.rpartition("/")[2], wanted), len(name)))
        return found[:5]

    def lookup(self, model: str, seller: str | None = None) -> list[tuple[Shard, str]]:
        """Return where a name is found, as (shard, the catalog's own name): with one seller, or with every one that
        has it. Without a seller, and where the name does not tell one, this loads the whole catalog: for commands."""
        told = self.seller_of(seller, model)
        sellers = [told] if told else [seller] if seller else list(self.catalog.sellers)
        found = []
        for name in sellers:
            shard = self.catalog.shard(name)
            key = self._find(shard, name, model)[1]
            if shard is not None and key is not None:
                found.append((shard, key))
        return found

    def price(
        self,
        payload: Any,
        *,
        model: str | None,
        provider: str | None = None,
        api: str | None = None,
        service_tier: str | None = None,
        region: str | None = None,
        batch: bool = False,
        at: datetime | date | str | int | None = None,
        who: Attribution | None = None,
    ) -> Cost:
        """Return the cost of a raw usage payload; the arguments are those of `cost`.

        A response object's usage is taken as well as its JSON: whatever has `model_dump` is dumped.
        """
        if type(payload) is not dict and payload is not None and not isinstance(payload, Mapping):
            payload = _dumped(payload)
        try:
            seller = self._sellers.get((provider, model))
            if seller is None:
                seller = self._remember_seller(provider, model)
        except (TypeError, AttributeError):
            return Cost.unknown("provider and model are not names", price_version=self._own_version)
        usage = read_usage(payload, provider=seller, api=api)
        return self.cost(
            usage,
            provider=provider,
            model=model,
            api=api,
            service_tier=service_tier,
            region=region,
            batch=batch,
            at=at,
            who=who,
        )

    def cost(
        self,
        usage: Usage,
        *,
        provider: str | None,
        model: str | None,
        api: str | None = None,
        service_tier: str | None = None,
        region: str | None = None,
        batch: bool = False,
        at: datetime | date | str | int | None = None,
        who: Attribution | None = None,
    ) -> Cost:
        """Return what `usage` cost at an instant (`at`: date-time, date, ISO text, or nanoseconds since the epoch; now
        when None). What the usage itself states (model, tier, region, speed) goes before the arguments. `who` is the
        Attribution of the call, for overrides with a `when`. What was asked in several rounds is priced round by
        round."""
        if usage[10] and usage[2]:
            asked = (provider, model, api, service_tier, region, batch, at, who)
            return self._by_round(usage, *asked)
        try:
            ns = time_ns() if at is None else at if isinstance(at, int) else _instant(at)
            batch = batch or api == "batch"
            if provider == "perplexity":
                model = _of_perplexity(model, api)
            group = self.overrides.group(who) if self._conditional else None
            key = (provider, usage[4] or model, usage[5] or service_tier, region, usage[6], usage[7], batch, group)
            entry = self._entries.get(key)
            if entry is None or not entry.since <= ns < entry.until:
                entry = self._resolve(key, ns)
            stated = usage[8]
            if entry.prices is None or not usage[2] or stated is not None:
                answer = self._unusual(usage, entry, provider)
                if answer is not None:
                    return answer if entry.charge is None else _charged(answer, entry.charge)
            if entry.charge is not None:
                return _charged(_priced(usage, entry), entry.charge)
            return _priced(usage, entry)
        except Exception as error:  # the app comes first: no payload may break it
            return Cost.unknown(f"cannot be priced: {type(error).__name__}: {error}", price_version=self._own_version)

    def _by_round(
        self,
        usage: Usage,
        provider: str | None,
        model: str | None,
        api: str | None,
        service_tier: str | None,
        region: str | None,
        batch: bool,
        at: datetime | date | str | int | None,
        who: Attribution | None,
    ) -> Cost:
        """Return the sum of what each round cost, with the last one's row; unpriced when one of them is."""
        at = time_ns() if at is None else at
        costs = []
        for one in usage.rounds:
            cost = self.cost(
                one._replace(model=one.model or usage.model, estimated=usage.estimated),
                provider=provider,
                model=model,
                api=api,
                service_tier=service_tier,
                region=region,
                batch=batch,
                at=at,
                who=who,
            )
            if cost.usd is None:
                return cost
            costs.append(cost)
        lines: dict[tuple[str, Decimal], CostLine] = {}
        for line in (line for cost in costs for line in cost.lines):
            met = lines.get((line.meter, line.unit_price))
            if met is not None:
                line = line._replace(quantity=met.quantity + line.quantity, usd=_add(met.usd, line.usd))
            lines[line.meter, line.unit_price] = line
        last = next((cost for cost in reversed(costs) if cost.status == "priced"), costs[-1])
        return last._replace(
            usd=_sum(cost.usd for cost in costs),
            lines=tuple(lines.values()),
            list_usd=_sum(cost.list_usd for cost in costs),
            charged_usd=_sum(cost.charged_usd for cost in costs),
        )

    def rate(
        self,
        *,
        provider: str | None,
        model: str | None,
        api: str | None = None,
        service_tier: str | None = None,
        region: str | None = None,
        batch: bool = False,
        at: int,
    ) -> Rate:
        """Return the unit prices behind `cost`, for a usage of text tokens that states nothing else: then the cost is
        the exact sum of its products. The arguments are those of `cost`."""
        if provider == "perplexity":
            model = _of_perplexity(model, api)
        key = (provider, model, service_tier, region, None, None, batch or api == "batch", None)
        entry = self._entries.get(key)
        if entry is None or not entry.since <= at < entry.until:
            entry = self._resolve(key, at)
        prices: _Prices = {}
        unusual = (entry.list_prices, entry.charge, entry.free, entry.reason)
        if not self._conditional and entry.prices is not None and unusual == (None, None, None, None):
            prices = {meter: entry.prices[meter] for meter in _PLAIN_METERS if entry.prices.get(meter)}
            if len(prices) < len(_PLAIN_METERS):  # one has no price, or costs nothing: `cost` has more to say of that
                prices = {}
        most_input = min((over for over, _ in entry.steps), default=None)
        cost = Cost(None, "priced", (), entry.version, None, None, None, entry.name, entry.date, None, entry.built)
        return Rate(prices, entry.since, entry.until, most_input, cost)

    def ceiling(
        self,
        *,
        provider: str | None,
        model: str | None,
        input_tokens: int,
        max_output_tokens: int,
        service_tier: str | None = None,
        region: str | None = None,
        batch: bool = False,
        every_modality: bool = False,
        at: datetime | date | str | int | None = None,
        who: Attribution | None = None,
    ) -> Decimal | None:
        """Return the most that a call with so many tokens can cost: no cache hits, every input token at the dearest
        text price of its step (a 1-hour cache write where there is one). None when the call has no price; for budgets
        that reserve before a call leaves. With `every_modality` audio, image and video prices count too.
        `who` is the Attribution of the call, for overrides with a `when`."""
        if type(input_tokens) is not int or type(max_output_tokens) is not int:
            return None
        try:
            ns = time_ns() if at is None else at if isinstance(at, int) else _instant(at)
            group = self.overrides.group(who) if self._conditional else None
            key = (provider, model, service_tier, region, None, None, batch, group)
            entry = self._entries.get(key)
            if entry is None or not entry.since <= ns < entry.until:
                entry = self._resolve(key, ns)
            if entry.free:
                return _ZERO
            if entry.prices is None:
                return None
            if entry.most is not None and not every_modality:
                read, made, fee = entry.most
                return _add(_add(_multiply(read, input_tokens), _multiply(made, max_output_tokens)), fee)
            prices = _step(entry.prices, entry.steps, input_tokens)
            read = max((prices[m] for m in (_INPUT if every_modality else _TEXT_INPUT) if m in prices), default=_ZERO)
            made = max((prices[m] for m in (_OUTPUT if every_modality else _TEXT_OUTPUT) if m in prices), default=_ZERO)
            fee = max((p for m, p in prices.items() if m.startswith("requests")), default=_ZERO)
            if not (entry.steps or every_modality):
                entry.most = read, made, fee
            return _add(_add(_multiply(read, input_tokens), _multiply(made, max_output_tokens)), fee)
        except Exception:
            return None

    def seller_of(self, provider: str | None, model: str | None) -> str | None:
        """Return the catalog's word for a provider; inferred from the model's name when no provider is given."""
        if provider:
            aliases = self.catalog.aliases
            return aliases.get(provider) or aliases.get(provider.lower())
        if not model:
            return None
        low = model.lower().removeprefix("@")
        if low.startswith("arn:aws:bedrock"):
            return "bedrock"
        head = low.partition("/")[0]
        if "/" in low and head in self.catalog.aliases:
            return str(self.catalog.aliases[head])
        if low.startswith("ft:"):
            low = low[3:]
        found: str = next((seller for prefix, seller in self.catalog.infer if low.startswith(prefix)), "")
        return found or None

    def _remember_seller(self, provider: str | None, model: str | None) -> str:
        seller = (self.seller_of(provider, model) if isinstance(model, str | None) else None) or provider or ""
        if len(self._sellers) >= _MOST_ENTRIES:
            self._sellers.clear()
        self._sellers[provider, model] = seller
        return seller

    def _unusual(self, usage: Usage, entry: _Entry, provider: str | None) -> Cost | None:
        """Answer what is not a plain product of counts and prices; None when it is one after all."""
        stated = usage.stated_usd
        version, built = entry.version, entry.built
        if stated is not None and (provider in _STATES_ITS_CHARGE or (entry.prices is None and not entry.free)):
            line = CostLine("stated", 1, stated, stated)
            name = f"{provider}/stated" if provider else "stated"
            if not stated:
                return Cost(
                    _ZERO,
                    "free",
                    (),
                    version,
                    "the provider stated a charge of 0",
                    _ZERO,
                    stated,
                    name,
                    None,
                    None,
                    built,
                )
            return Cost(stated, "priced", (line,), version, None, stated, stated, name, None, None, built)
        if entry.free is not None and (usage.known or entry.reason == "committed"):
            return Cost(_ZERO, "free", (), version, entry.free, _ZERO, stated, entry.name, entry.date, None, built)
        if not usage.known:
            why = "; ".join(usage.problems[:3]) or "the reply stated no usage"
            return Cost.unknown(f"no usable usage: {why}", price_version=version, stated_usd=stated)
        if entry.prices is None:
            return Cost.unknown(entry.reason or "no price", price_version=version, stated_usd=stated)
        return None

    def _resolve(self, key: _Key, ns: int) -> _Entry:
        """Find and keep what the calls of one kind cost around `ns`."""
        entry = self._resolved(*key, ns)
        if len(self._entries) >= _MOST_ENTRIES:
            self._entries.clear()
        self._entries[key] = entry
        return entry

    def _resolved(
        self,
        provider: str | None,
        model: str | None,
        tier: str | None,
        region: str | None,
        served_region: str | None,
        speed: str | None,
        batch: bool,
        group: _Group,
        ns: int,
    ) -> _Entry:
        entry = _Entry(_EVER, _NEVER, self.catalog.version, self.catalog.built)
        seller = self.seller_of(provider, model) if isinstance(model, str) else None
        if seller == "azure" and isinstance(region, str):
            region, kind = _azure_deployment(region)
            batch, tier = batch or kind == "batch", kind if kind in COMMITTED else tier
        tier = _tier(tier, speed, batch)
        if tier in COMMITTED:
            entry.free, entry.reason = COMMITTED[tier], "committed"
            return entry
        if not isinstance(model, str) or not model.strip():
            entry.reason = "the call names no model"
            return entry
        if seller == "bedrock" and "claude_platform/" in model:  # AWS bills it, Anthropic serves and prices it
            seller, region = "anthropic", None
        if seller is None and provider:
            seller = provider.lower()
        if seller is None:
            entry.reason = f"no provider is given and the name {model!r} does not tell one"
            return entry
        if seller == "anthropic" and served_region:
            region = served_region
        shard = self.catalog.shard(seller)
        own_name = self.overrides.names.get((seller, model.lower()))
        names, found, since_found = self._find(shard, seller, own_name or model)
        rule, entry.charge, since, until = self.overrides.find(seller, (*names, model), tier, ns, group)
        if ns < since_found:
            found, until = None, min(until, since_found)
        else:
            since = max(since, since_found)
        entry.since, entry.until = since, until
        if rule is not None or entry.charge is not None:
            entry.version = self._own_version
        if rule is not None and rule.kind == "free":
            entry.free, entry.name = rule.reason, f"{seller}/{found or model}"
            return entry
        if shard is None or found is None:
            entry.reason = self._why_unknown(shard, seller, model, provider)
            if seller == "openrouter" and model.endswith(":free"):
                entry.free, entry.name = "a :free variant on OpenRouter", f"{seller}/{model}"
                return entry
        else:
            entry.name = f"{seller}/{found}"
            card = card_at(shard, found, tier=tier, region=_region(seller, region, model), ns=ns)
            entry.since, entry.until = max(since, card.since), min(until, card.until)
            if isinstance(card, NoPrice):
                entry.reason = card.reason
            else:
                entry.date, entry.free = card.date, card.free
                if card.free is None:
                    entry.prices, entry.steps = card.prices, card.steps
        if rule is not None:
            _apply(rule, entry)
            if entry.name is None and entry.prices is not None:
                entry.name = f"{seller}/{model}"
        if entry.prices is not None:
            entry.prices = _with_stand_ins(entry.prices)
            entry.steps = tuple((over, _with_stand_ins(prices)) for over, prices in entry.steps)
        if entry.list_prices is not None:
            entry.list_prices = _with_stand_ins(entry.list_prices)
            entry.list_steps = tuple((over, _with_stand_ins(prices)) for over, prices in entry.list_steps)
        return entry

    def _find(self, shard: Shard | None, seller: str, model: str) -> tuple[tuple[str, ...], str | None, int]:
        """Return the names tried, the catalog's own name of the model, and the instant from which that is what the name
        means: a snapshot that the catalog does not know cannot be of a day after the call."""
        tried: dict[str, None] = {}
        for name in candidates(model, seller, self.catalog.aliases):
            tried[name] = None
            if shard is not None and name in shard.names:
                found = shard.names[name]
                tried[found] = None
                day = snapshot_day(model)
                return tuple(tried), found, _EVER if not day or snapshot_day(name) else _day_before(day)
        return tuple(tried), None, _EVER

    def _why_unknown(self, shard: Shard | None, seller: str, model: str, provider: str | None) -> str:
        if shard is None:
            return (
                f"no price list of seller {provider or seller!r}; "
                "give its prices, or that it is free, in the price overrides"
            )
        near = nearest(model, shard.names)
        hint = f"; nearest known: {', '.join(near)}" if near else ""
        if seller == "azure":
            hint += "; a deployment's name needs a [[name]] row in the price overrides"
        return f"no price of {seller}/{model} is known{hint}"


@cache
def _plain_engine() -> PriceEngine:
    return PriceEngine(Catalog.bundled(), read_overrides(()))


def _priced(usage: Usage, entry: _Entry) -> Cost:
    prices = entry.prices
    assert prices is not None
    if entry.steps:
        prices = _step(prices, entry.steps, usage.input_tokens)
    total = _ZERO
    lines = []
    for meter, quantity in usage[0]:
        unit = prices.get(meter)
        if unit is None:
            return Cost.unknown(
                f"no price of {entry.name} for {quantity} {meter}",
                price_version=entry.version,
                stated_usd=usage.stated_usd,
            )
        usd = _multiply(unit, quantity)
        lines.append(_new(CostLine, (meter, quantity, unit, usd)))
        total = _add(total, usd) if total else usd
    at_list: Decimal | None = total
    if entry.list_prices is not None:
        at_list = _at_list(usage, entry)
    elif entry.reason == "contract only":
        at_list = None
    status, reason = ("priced", None) if usage[9] is None else ("estimated", usage[9])
    if not total and status == "priced":
        if entry.list_prices is None and any(prices.values()):
            billed = ", ".join(sorted(meter for meter, price in prices.items() if price and meter not in FEES))
            return Cost.unknown(
                f"the usage states nothing that {entry.name} is billed by ({billed})",
                price_version=entry.version,
                stated_usd=usage.stated_usd,
            )
        status, reason = "free", "every meter of this call has a price of 0"
    return _new(
        Cost,
        (
            total,
            status,
            tuple(lines),
            entry.version,
            reason,
            at_list,
            usage[8],
            entry.name,
            entry.date,
            None,
            entry.built,
        ),
    )


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum, None when one of them is not known."""
    total = _ZERO
    for usd in amounts:
        if usd is None:
            return None
        total = _add(total, usd)
    return total


def _of_perplexity(model: str | None, api: str | None) -> str | None:
    return _AGENT_SONAR if api == "responses" and model == "perplexity/sonar" else model


def _charged(cost: Cost, charge: Rule) -> Cost:
    """Return `cost` with what the mark-up makes of it; what has no cost is charged nothing that can be said."""
    basis = cost.list_usd if charge.on_list and cost.list_usd is not None else cost.usd
    return cost if basis is None else cost._replace(charged_usd=_multiply(basis, charge.factor))


def _at_list(usage: Usage, entry: _Entry) -> Decimal | None:
    prices = _step(entry.list_prices or {}, entry.list_steps, usage.input_tokens)
    total = _ZERO
    for meter, quantity in usage.meters:
        unit = prices.get(meter)
        if unit is None:
            return None
        total = _add(total, _multiply(unit, quantity))
    return total


def _apply(rule: Rule, entry: _Entry) -> None:
    """Put an override over the list price, which stays beside it."""
    if rule.kind == "discount":
        if entry.prices is None:
            return
        entry.list_prices, entry.list_steps = entry.prices, entry.steps
        entry.prices = discounted(entry.prices, rule)
        entry.steps = tuple((over, discounted(prices, rule)) for over, prices in entry.steps)
        return
    if entry.prices is None:
        entry.prices, entry.reason = dict(rule.prices), "contract only"
        return
    entry.list_prices, entry.list_steps = entry.prices, entry.steps
    entry.prices = {**entry.prices, **rule.prices}
    entry.steps = tuple((over, {**prices, **rule.prices}) for over, prices in entry.steps)


def _step(prices: _Prices, steps: tuple[tuple[int, _Prices], ...], tokens: int) -> _Prices:
    for over, dearer in steps:
        if tokens > over:
            prices = dearer
    return prices


def _with_stand_ins(prices: _Prices) -> _Prices:
    """Return `prices` with what token meters without a price of their own cost."""
    full = dict(prices)
    for meter, others in STANDS_IN.items():
        if meter not in prices:
            if meter.endswith("_cache_read") and prices.get(others[0]) == prices.get("input"):
                others = others[1:]  # audio and images at the price of text: cached like text
            for other in others:
                if other in prices:
                    full[meter] = prices[other]
                    break
    return full


def _tier(tier: str | None, speed: str | None, batch: bool) -> str:
    if isinstance(tier, str):
        tier = tier.lower().removeprefix("service_tier_")
        tier = TIERS.get(tier, tier)
    else:
        tier = "standard"
    if batch and tier not in COMMITTED:
        return "batch"
    if tier == "standard" and isinstance(speed, str) and speed not in ("standard", ""):
        return speed.lower()
    return tier


def _region(seller: str, region: str | None, model: str) -> str | None:
    """Return where the call was served in the words of the seller's rows."""
    if region is None:
        region = stated_region(model, seller)
    if seller == "bedrock":
        scope = profile_scope(model)
        if scope == "global":
            return f"global:{region.lower()}" if isinstance(region, str) else None
        if scope == "us-gov":
            return scope
        region = region or (scope if scope != "us" else None) or "in-region"
    return region.lower() if isinstance(region, str) else None


def _azure_deployment(region: str) -> tuple[str, str | None]:
    """Return the region or zone of what Azure writes ("East US 2", "DataZoneStandard", "GlobalBatch"), and what kind of
    deployment it is, where that is said."""
    word = region.lower().replace(" ", "").replace("-", "").replace("_", "")
    if "provisioned" in word or word == "ptu":
        return word, "provisioned"
    zone = word.removesuffix("batch").removesuffix("standard") or word
    return _AZURE_ZONES.get(zone, zone), "batch" if word.endswith("batch") else None


def _instant(at: datetime | date | str) -> int:
    if isinstance(at, str):
        return instant(at)
    return instant(at.isoformat())


def _day_before(day: str) -> int:
    """Return the instant a day before an ISO day begins, for time zones; the end of time for what is no date."""
    try:
        return instant(day) - DAY
    except ValueError:
        return _NEVER


def _dumped(payload: Any) -> Any:
    try:
        return payload.model_dump()
    except Exception:
        return payload


def _shared(a: str, b: str) -> int:
    same = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        same += 1
    return same
