"""What the budget tests are made of: calls with a stated worst case, and guards on a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from attribkit.attribution import Attribution
from attribkit.budgets.guard import BudgetGuard
from attribkit.budgets.policy import Budget
from attribkit.budgets.reservations import Worst
from attribkit.calls import LLMCall
from attribkit.money import to_pico

ACME = Attribution.of({"tenant_id": "acme"})


def call(usd: str | None = "1", *, tokens: int = 100, model: str = "gpt-5-mini") -> LLMCall:
    """Return a call whose worst case is what is said."""
    body = {"usd": usd, "tokens": tokens, "model": model}
    return LLMCall("openai", "openai", "chat", "http://gw/v1", model, body=body)


class Told:
    """Bounds that know what the call says of itself; a cheaper model or tier costs a tenth."""

    def worst_case(
        self,
        call: LLMCall,
        who: Attribution | None = None,
        *,
        model: str | None = None,
        tier: str | None = None,
        output: int | None = None,
    ) -> Worst:
        body: Mapping[str, Any] = call.body or {}
        if "per_token" in body:  # it does not bound its answer
            output = 10 if output is None else output
            return Worst(body["per_token"] * output, output, output, False)
        usd = None if body["usd"] is None else to_pico(Decimal(body["usd"]))
        return Worst(usd // 10 if usd and (model or tier) else usd, body["tokens"])

    def learn(self, call: LLMCall, size: int, input_tokens: int, output_tokens: int) -> None:
        pass


def guard(store: Any, *budgets: Budget, keep: bool = False, now: Callable[[], float] | None = None, **more: Any) -> Any:
    """Return a guard on `store`; without its thread, and so without local shares, unless `keep`. Its calls wait for
    what others hold only with `patience`."""
    more.setdefault("patience", 0.0)
    if now is not None:
        more["now"] = now
    return BudgetGuard(budgets, store=lambda: _Lent(store), bounds=Told(), keep=keep, **more)


class _Lent:
    """A store that several guards of one test use: none of them closes it."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        pass


def spend(at: Any, usd: str, *, who: Attribution = ACME, worst: str | None = None) -> None:
    """Make one call that costs `usd`."""
    held = at.reserve(call(worst or usd), who, "operation")
    if held is not None:
        at.settle(held, Decimal(usd))
