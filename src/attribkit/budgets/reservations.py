"""What a call holds, and what this process has in the counters that it counts against."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from attribkit.attribution import Attribution
from attribkit.budgets.matching import Limit
from attribkit.budgets.policy import Threshold
from attribkit.budgets.queues import Queue
from attribkit.calls import LLMCall

__all__ = ["NO_PLAN", "UNITS", "WAIT", "Local", "Plan", "Reservation", "Wait", "Worst", "WorstCase"]

UNITS = {"usd": 0, "tokens": 1, "calls": 2}
"""The place of each unit where all three are said."""


class Worst(NamedTuple):
    """The most that a call can use."""

    usd: int | None
    """Pico-dollars; None when the call has no price."""
    tokens: int
    output: int = 0
    """The output tokens that are in it."""
    stated: bool = True
    """Whether the call itself bounds its output; else it is what was learned from calls like it."""
    size: int = 0
    """The bytes of its prompt."""


class WorstCase(Protocol):
    """Where the most that a call can use is known, and learned."""

    def worst_case(
        self,
        call: LLMCall,
        who: Attribution | None = None,
        *,
        model: str | None = None,
        tier: str | None = None,
        output: int | None = None,
    ) -> Worst: ...
    def learn(self, call: LLMCall, size: int, input_tokens: int, output_tokens: int) -> None: ...


class Wait:
    """Told instead of a reservation: this call has to wait, and the caller said that it cannot."""

    operation_id = tier = model = None

    def __repr__(self) -> str:
        return "WAIT"


WAIT = Wait()


class Local:
    """What this process has in one counter, and what it last heard of it. Changed under the account's lock."""

    __slots__ = ("apart", "busy", "dead", "extra", "flights", "heard", "held", "lent", "lent_at", "limit", "outgrown",
                 "overran", "owed", "queue", "quiet", "refusals", "refused_at", "reserved", "settled", "sharing",
                 "slot", "spent", "uncertain", "used", "warned")  # fmt: skip

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.held = self.busy = self.owed = self.lent = self.settled = 0
        self.spent = self.reserved = self.extra = 0
        self.used = self.lent_at = self.refused_at = 0.0
        self.refusals = 0
        self.slot = -1
        self.flights = self.warned = 0
        self.uncertain = self.dead = False
        self.heard = self.outgrown = self.overran = self.sharing = False
        self.apart = False
        """While the account makes out with the store what is held here: nothing else is asked of it meanwhile."""
        self.queue = Queue()
        self.quiet = not limit.budget.thresholds
        """Whether it says nothing on the way to its limit."""

    def level(self, own: int) -> Decimal:
        """Return which share of the limit is spent or reserved, as far as is known, without what one call holds."""
        limit = self.limit.rung.limit + self.extra
        used = self.spent + self.reserved - self.held + self.busy + self.owed - own
        return Decimal(used) / limit if limit else Decimal(1)


class Plan(NamedTuple):
    """The counters of the calls of one kind, while all of their windows last."""

    since: float
    until: float
    locals: tuple[Local, ...]
    priced: bool
    only_usd: bool
    downgrades: tuple[tuple[Local, Threshold], ...]
    queue: Threshold | None
    patient: bool = True
    """Whether a call waits a moment for what others hold: no budget says how it is to be refused or queued."""
    single: Local | None = None
    """The only counter, where it counts USD and no threshold changes a call."""


NO_PLAN = Plan(0, 0, (), False, False, (), None)


class Reservation:
    """What one call holds in each counter that it counts against."""

    tier: str | None = None
    """The tier that the call is to have instead of its own."""
    model: str | None = None
    """The model that the call is to have instead of its own."""
    output = 0
    """Output tokens up to which the call is covered, where it does not bound them itself."""
    stated = True
    who: Attribution | None = None
    size = -1
    closed = False
    unknown: tuple[int, ...] | None = None
    """What it costs where nothing is known of what it used, where that is not what it holds."""
    single: Local | None = None
    """The only counter, where it was decided in this process."""

    def __init__(self, account: Any, locals: tuple[Local, ...], amounts: tuple[int, ...], operation_id: str) -> None:
        self.account = account
        """The `Account` out of which it holds: after a fork the child has another, and lets this one be."""
        self.locals, self.amounts = locals, amounts
        self.operation_id = operation_id

    def amount_of(self, local: Local) -> int:
        """Return what is asked of one counter."""
        return self.amounts[self.locals.index(local)]
