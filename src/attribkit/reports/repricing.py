"""History priced again: a new figure under a label, beside what each row says itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from time import time_ns
from typing import NamedTuple

from attribkit.cost import Cost
from attribkit.errors import ConfigurationError
from attribkit.ledger.base import Figure, LedgerRow, LedgerStore, Question, Repricing
from attribkit.money import from_pico, to_pico, usd_text
from attribkit.pricing.engine import PriceEngine
from attribkit.usage.model import Usage

__all__ = ["Change", "Preview", "preview", "price_again", "reprice"]

_BATCH = 2_000
_MOST = 2**63 - 1


class Change(NamedTuple):
    """What becomes of the calls of one seller and model."""

    name: str
    calls: int
    changed: int
    newly_priced: int
    """Rows that had no price and have one now."""
    no_longer_priced: int
    """Rows that had a price and have none by these prices: they would leave the sum."""
    before: Decimal
    after: Decimal


class Preview(NamedTuple):
    """What a repricing comes to, by seller and model, the largest difference first."""

    changes: tuple[Change, ...]
    total: Change
    version: str


class _Tally:
    def __init__(self) -> None:
        self.calls = self.changed = self.newly = self.lost = self.before = self.after = 0

    def add(self, row: LedgerRow, figure: Figure | None) -> None:
        self.calls += 1
        self.before += row.cost_pico or 0
        self.after += (row if figure is None else figure).cost_pico or 0
        if figure is not None:
            self.changed += 1
            self.newly += row.cost_pico is None and figure.cost_pico is not None
            self.lost += row.cost_pico is not None and figure.cost_pico is None

    def change(self, name: str) -> Change:
        return Change(
            name, self.calls, self.changed, self.newly, self.lost, from_pico(self.before), from_pico(self.after)
        )


def price_again(row: LedgerRow, engine: PriceEngine) -> Cost | None:
    """Return what a row costs by the engine's prices at the time of the call; None when there is nothing to price: a
    call that was never served, or whose usage nobody stated; and when a meter had more prices than one, as in a reply
    of several rounds and models: the row says no more which tokens had which."""
    if not row.meters or row.status == "rejected":
        return None
    priced = [line[0] for line in json.loads(row.cost_lines)] if row.cost_lines else []
    if len(set(priced)) < len(priced):
        return None
    meters = tuple(
        (name, quantity if type(quantity) is int else Decimal(str(quantity)))
        for name, quantity in json.loads(row.meters).items()
    )
    problems = tuple(json.loads(row.usage_problems)) if row.usage_problems else ()
    usage = Usage(
        meters,
        row.reasoning_tokens or 0,
        not problems,
        problems,
        tier=row.served_tier,
        stated_usd=from_pico(row.stated_pico) if row.stated_pico is not None and _provider_stated(row) else None,
        estimated=row.usage_estimated,
    )
    return engine.cost(
        usage,
        provider=row.provider,
        model=row.model,
        api=row.api,
        region=row.region,
        batch=bool(row.batch),
        at=row.started_ns,
        who=row.attribution,
    )


def _provider_stated(row: LedgerRow) -> bool:
    """Return whether the stated cost is the provider's own word, which can stand for a price, and not a gateway's."""
    return row.provider == "openrouter" or row.gateway is None or (row.priced_as or "").endswith("stated")


def _figure(row: LedgerRow, engine: PriceEngine) -> Figure | None:
    """Return the figure of a row, None when it stays as it is."""
    cost = price_again(row, engine)
    if cost is None:
        return None
    pico = _pico(cost.usd)
    charged = pico if cost.charged_usd is None else _pico(cost.charged_usd)
    was = row.cost_pico if row.charged_pico is None else row.charged_pico
    if (pico, _pico(cost.list_usd), charged) == (row.cost_pico, row.list_pico, was) and (
        cost.status == row.cost_status or pico is None
    ):
        return None
    lines = [[name, count, str(price), str(usd)] for name, count, price, usd in cost.lines]
    return Figure(
        row.call_id,
        pico,
        _pico(cost.list_usd),
        charged,
        cost.status,
        cost.reason,
        cost.price_version,
        cost.priced_as,
        cost.price_date,
        json.dumps(lines, default=str, separators=(",", ":")),
    )


def _pico(usd: Decimal | None) -> int | None:
    if usd is None:
        return None
    pico = to_pico(usd)
    return pico if -_MOST <= pico <= _MOST else None


def _figures(
    store: LedgerStore, engine: PriceEngine, question: Question, progress: Callable[[int], None] | None
) -> Iterator[tuple[LedgerRow, Figure | None]]:
    for number, row in enumerate(store.records(question), 1):
        yield row, _figure(row, engine)
        if progress is not None and number % 500 == 0:
            progress(number)


def preview(
    store: LedgerStore,
    engine: PriceEngine,
    question: Question = Question(),  # noqa: B008 (a frozen value)
    *,
    progress: Callable[[int], None] | None = None,
) -> Preview:
    """Return what pricing the rows of `question` again would come to. Nothing is written."""
    return _tallied(_figures(store, engine, question, progress), engine)


def reprice(
    store: LedgerStore,
    engine: PriceEngine,
    question: Question = Question(),  # noqa: B008 (a frozen value)
    *,
    label: str,
    reason: str,
    progress: Callable[[int], None] | None = None,
) -> Preview:
    """Price the rows of `question` again and keep the result under `label`; the rows stay as they are.

    Figures are written in batches that no report sees, so that the application's own rows are not held up; they
    become visible all at once at the end. A run that did not end leaves nothing that a report could find. Raises
    ConfigurationError for a label that is taken, or for one without a reason.
    """
    if not label.strip() or not reason.strip():
        raise ConfigurationError("a repricing needs a label and a reason", name="label", value=label)
    store.begin_repricing(label)
    waiting: list[Figure] = []

    def kept() -> Iterator[tuple[LedgerRow, Figure | None]]:
        for row, figure in _figures(store, engine, question, progress):
            if figure is not None:
                waiting.append(figure)
                if len(waiting) >= _BATCH:
                    store.write_figures(label, waiting)
                    waiting.clear()
            yield row, figure

    found = _tallied(kept(), engine)
    if waiting:
        store.write_figures(label, waiting)
    store.finish_repricing(
        Repricing(
            label,
            reason,
            time_ns(),
            engine.version,
            question.since_ns,
            question.until_ns,
            json.dumps(dict(question.where), sort_keys=True),
            found.total.calls,
            found.total.changed,
        )
    )
    return found


def _tallied(rows: Iterator[tuple[LedgerRow, Figure | None]], engine: PriceEngine) -> Preview:
    total, by_name = _Tally(), dict[str, _Tally]()
    for row, figure in rows:
        total.add(row, figure)
        name = f"{row.provider}/{row.model or '?'}"
        tally = by_name.get(name)
        if tally is None:
            tally = by_name[name] = _Tally()
        tally.add(row, figure)
    changes = [tally.change(name) for name, tally in by_name.items() if tally.changed]
    changes.sort(key=lambda change: (-abs(change.after - change.before), change.name))
    return Preview(tuple(changes), total.change("total"), engine.version)


def as_json(found: Preview) -> str:
    """Return a preview as JSON; money is plain decimal text."""

    def figures(change: Change) -> dict[str, object]:
        return {
            "name": change.name,
            "calls": change.calls,
            "changed": change.changed,
            "newly_priced": change.newly_priced,
            "no_longer_priced": change.no_longer_priced,
            "before_usd": usd_text(change.before),
            "after_usd": usd_text(change.after),
        }

    return json.dumps(
        {
            "rows": [figures(change) for change in found.changes],
            "total": figures(found.total),
            "price_version": found.version,
        },
        indent=2,
        ensure_ascii=False,
    )
