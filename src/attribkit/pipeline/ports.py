"""What the pipeline asks of the rooms beside it: gateways, prices, budgets, tiers. For the type checker alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from decimal import Decimal
from typing import Any, Protocol

from attribkit.attribution import Attribution
from attribkit.calls import CallKind, LLMCall
from attribkit.cost import Cost
from attribkit.gateways.base import CallIds, Headers
from attribkit.usage.model import Usage

__all__ = ["Guard", "Matcher", "Prices", "Rate", "Route", "Tiers"]


class Route(Protocol):
    """What the pipeline asks of a gateway that matched."""

    dialect: str
    host: str
    stream_usage: bool
    body_apis: frozenset[str]
    reads_reply: bool

    def headers(self, attribution: Attribution) -> Headers: ...
    def sent(self, attribution: Attribution) -> Attribution: ...
    @property
    def call_headers(self) -> Callable[[CallIds], Headers]: ...
    def body(self, attribution: Attribution, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]: ...
    def tier(self, tier: str, api: str, body: Mapping[str, Any]) -> Mapping[str, Any]: ...
    def gateway_request_id(self, headers: Mapping[str, str]) -> str | None: ...
    def stated_cost(self, headers: Mapping[str, str]) -> str | None: ...


class Matcher(Protocol):
    def match(self, url: str) -> Route | None: ...


class Rate(Protocol):
    """What `pricing.engine.Rate` says."""

    @property
    def prices(self) -> Mapping[str, Decimal]: ...
    @property
    def since(self) -> int: ...
    @property
    def until(self) -> int: ...
    @property
    def most_input(self) -> int | None: ...
    @property
    def cost(self) -> Cost: ...


class Prices(Protocol):
    kinds: dict[Any, CallKind]
    """What the pipeline has found of kinds of calls; another dict when the prices are others."""

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
    ) -> Rate: ...

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
        at: int | None = None,
        who: Attribution | None = None,
    ) -> Cost: ...


class Guard(Protocol):
    """What the pipeline asks of budgets. `reserve` raises BudgetExceeded; with `wait=False` it answers WAIT where it
    would block, and the call is asked for `later`, in another thread."""

    def reserve(self, call: LLMCall, attribution: Attribution, operation_id: str, *, wait: bool = True) -> Any: ...
    def settle(
        self, reservation: Any, usd: Decimal | None, usage: Usage = ..., call: LLMCall | None = None
    ) -> None: ...
    def charge(
        self, call: LLMCall, attribution: Attribution, operation_id: str, usd: Decimal | None, usage: Usage = ...
    ) -> None: ...
    def grow(self, reservation: Any, call: LLMCall, made: int) -> int: ...
    def release(self, reservation: Any) -> None: ...
    def later(self, call: LLMCall, attribution: Attribution, operation_id: str) -> Future[Any]: ...


class Tiers(Protocol):
    """Returns the attribution with the tier that the policy picks for it."""

    def applied(self, attribution: Attribution, model: str | None = None, *, wait: bool = True) -> Attribution: ...
