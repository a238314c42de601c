"""Reserve, settle, release: what fits goes, what does not is refused, and nothing is lost in between."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from budgets.made import ACME, call, guard, spend

from attribkit.attribution import Attribution
from attribkit.budgets.memory import MemoryStore
from attribkit.budgets.policy import Budget
from attribkit.budgets.reservations import WAIT
from attribkit.errors import BudgetExceeded, BudgetStoreDown
from attribkit.usage.model import Usage

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
GLOBEX = Attribution.of({"tenant_id": "globex"})


def state(store: Any, budget: str) -> tuple[Decimal, Decimal]:
    """Return what is spent and reserved of a budget, in USD."""
    found = [balance.state for balance in store.balances(budget)]
    return sum((Decimal(one.spent) for one in found), Decimal(0)).scaleb(-12), sum(
        (Decimal(one.reserved) for one in found), Decimal(0)
    ).scaleb(-12)


def test_what_fits_goes_and_what_does_not_is_refused_with_the_facts(store: Any) -> None:
    at = guard(store, Budget("acme-day", limit="10", window="day", match={"tenant_id": "acme"}), now=lambda: NOON)
    held = at.reserve(call("6"), ACME, "first")
    with pytest.raises(BudgetExceeded) as refused:
        at.reserve(call("4.000000000001"), ACME, "second")
    facts = refused.value
    assert (facts.budget, facts.limit, facts.spent, facts.reserved) == ("acme-day", 10, 0, 6)
    assert facts.resets_at == datetime(2026, 11, 22, tzinfo=UTC)
    assert (facts.operation_id, facts.unit, facts.http_status) == ("second", "usd", 429)
    assert facts.to_dict()["error"]["limit_usd"] == "10"
    at.release(at.reserve(call("4"), ACME, "third"))
    at.settle(held, Decimal("5.5"))
    assert state(store, "acme-day") == (Decimal("5.5"), 0)
    at.release(at.reserve(call("4.5"), ACME, "fourth"))
    assert at.reserve(call("100"), GLOBEX, "fifth") is None
    at.close()


def test_a_reservation_ends_once(store: Any) -> None:
    at = guard(store, Budget("b", limit="10"))
    held = at.reserve(call("6"), ACME, "")
    at.settle(held, Decimal(1))
    at.settle(held, Decimal(1))
    at.release(held)
    assert state(store, "b") == (1, 0)
    at.close()


def test_an_answer_without_a_price_costs_what_it_held(store: Any) -> None:
    at = guard(store, Budget("b", limit="10"))
    at.settle(at.reserve(call("6"), ACME, ""), None)
    assert state(store, "b") == (6, 0)
    at.close()


def test_a_free_call_goes_though_the_budget_is_spent(store: Any) -> None:
    at = guard(store, Budget("b", limit="1"))
    spend(at, "1")
    spend(at, "0")
    with pytest.raises(BudgetExceeded):
        spend(at, "0.000000000001")
    at.close()


def test_every_budget_that_matches_must_have_room_and_nothing_is_held_where_one_has_not(store: Any) -> None:
    at = guard(
        store,
        Budget("org", limit="10"),
        Budget("team", limit="5", match={"team": "red"}),
        Budget("each", limit="3", per="tenant_id"),
    )
    red = Attribution.of({"team": "red", "tenant_id": "acme"})
    for worst, name in (("11", "org"), ("6", "team"), ("4", "each")):
        with pytest.raises(BudgetExceeded) as refused:
            at.reserve(call(worst), red, "")
        assert refused.value.budget == name
    assert refused.value.key == {"tenant_id": "acme"}
    at.flush()
    assert state(store, "org") == state(store, "team") == state(store, "each") == (0, 0)
    spend(at, "3", who=red)
    with pytest.raises(BudgetExceeded):
        spend(at, "1", who=red)
    spend(at, "2", who=red.merged({"tenant_id": "globex"}))
    with pytest.raises(BudgetExceeded) as refused:
        spend(at, "1", who=red.merged({"tenant_id": "initech"}))
    assert refused.value.budget == "team"
    at.close()


def test_tokens_and_calls(store: Any) -> None:
    at = guard(
        store, Budget("tokens", limit=1000, unit="tokens"), Budget("calls", limit=3, unit="calls", window="hour")
    )
    held = at.reserve(call(tokens=900), ACME, "")
    with pytest.raises(BudgetExceeded) as refused:
        at.reserve(call(tokens=101), ACME, "")
    assert (refused.value.budget, refused.value.unit, refused.value.limit) == ("tokens", "tokens", 1000)
    assert refused.value.to_dict()["error"]["limit"] == "1000"
    at.settle(held, None, Usage((("input", 40), ("output", 10))))
    for _ in range(2):
        at.settle(at.reserve(call(tokens=100), ACME, ""), None, Usage((("input", 1),)))
    with pytest.raises(BudgetExceeded) as refused:
        at.reserve(call(tokens=0), ACME, "")
    assert refused.value.budget == "calls"
    assert {one.counter.budget: one.state.spent for one in store.balances()} == {"tokens": 52, "calls": 3}
    at.close()


def test_a_new_window_begins_at_nothing_and_a_late_answer_counts_where_it_was_asked(store: Any) -> None:
    clock = [NOON]
    at = guard(store, Budget("b", limit="10", window="day"), now=lambda: clock[0])
    held = at.reserve(call("10"), ACME, "")
    clock[0] += 86_400
    spend(at, "10")
    at.settle(held, Decimal(9))
    with pytest.raises(BudgetExceeded):
        spend(at, "1")
    clock[0] -= 86_400
    spend(at, "1")
    with pytest.raises(BudgetExceeded):
        spend(at, "1")
    at.close()


def test_a_rolling_window_lets_go_what_is_old(store: Any) -> None:
    clock = [NOON]
    at = guard(store, Budget("b", limit="10", window="rolling 60s"), now=lambda: clock[0])
    spend(at, "6")
    clock[0] += 30
    spend(at, "4")
    with pytest.raises(BudgetExceeded) as refused:
        spend(at, "1")
    assert refused.value.resets_at is None and refused.value.http_status == 429
    clock[0] += 31
    spend(at, "6")
    with pytest.raises(BudgetExceeded):
        spend(at, "1")
    clock[0] += 120
    spend(at, "10")
    at.close()


def test_two_windows_at_once(store: Any) -> None:
    clock = [NOON]
    at = guard(store, Budget("b", limit="10", window="month", daily_cap="4"), now=lambda: clock[0])
    spend(at, "4")
    with pytest.raises(BudgetExceeded) as refused:
        spend(at, "1")
    assert (refused.value.window, refused.value.limit) == ("daily cap", 4)
    for _ in range(2):
        clock[0] += 86_400
        spend(at, "3")
    clock[0] += 86_400
    with pytest.raises(BudgetExceeded) as refused:
        spend(at, "1")
    assert refused.value.window == "month"
    at.close()


def test_a_limit_lowered_below_what_is_spent_refuses_and_a_raised_one_lets_go(store: Any) -> None:
    at = guard(store, Budget("b", limit="10"))
    spend(at, "8")
    store.define(Budget("b", limit="5").as_dict(), "set")
    at._plans.refresh(store)
    with pytest.raises(BudgetExceeded) as refused:
        spend(at, "0.1")
    assert (refused.value.limit, refused.value.spent) == (5, 8)
    store.define(Budget("b", limit="20").as_dict(), "set")
    at._plans.refresh(store)
    spend(at, "12")
    store.define({"name": "b", "limit": "0"}, "removed")
    at._plans.refresh(store)
    spend(at, "12")
    at.close()


def test_a_limit_that_is_set_at_run_time_still_calls_what_was_declared() -> None:
    told, store = [], MemoryStore()
    thresholds = [{"at": "50%", "action": "warn", "call": told.append}]
    at = guard(store, Budget("b", limit="10", thresholds=thresholds))
    spend(at, "1")
    (known,) = store.definitions().values()
    store.define({**known[0], "limit": "4"}, "set")
    at._plans.refresh(store)
    spend(at, "1")
    assert [(one.spent, one.limit) for one in told] == [(2, 4)]
    at.close()


def test_a_budget_that_only_the_store_knows_is_in_force(store: Any) -> None:
    store.define(Budget("b", limit="5").as_dict(), "set")
    at = guard(store)
    with pytest.raises(BudgetExceeded):
        spend(at, "6")
    at.close()


def test_a_wallet_is_what_was_paid_in(store: Any) -> None:
    at = guard(store, Budget("wallet", limit=0, wallet=True, per="tenant_id"))
    with pytest.raises(BudgetExceeded) as refused:
        spend(at, "1")
    assert refused.value.http_status == 402
    counter = next(balance.counter for balance in store.balances("wallet"))
    store.top_up(counter, 5 * 10**12, "order 17", NOON)
    spend(at, "5")
    with pytest.raises(BudgetExceeded) as refused:
        spend(at, "1")
    assert (refused.value.limit, refused.value.spent) == (5, 5)
    with pytest.raises(BudgetExceeded):
        spend(at, "1", who=GLOBEX)
    (line,) = store.statement("wallet")
    assert (line.amount, line.note, line.key) == (5 * 10**12, "order 17", '{"tenant_id": "acme"}')
    at.close()


def test_a_wallet_topped_up_in_the_middle_of_a_refused_burst(store: Any) -> None:
    at = guard(store, Budget("wallet", limit="1", wallet=True), keep=True)
    let_go, stop = [], threading.Event()

    def burst() -> None:
        while not stop.is_set():
            try:
                spend(at, "1")
                let_go.append(1)
            except BudgetExceeded:
                pass

    threads = [threading.Thread(target=burst) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not let_go:
        time.sleep(0.001)
    store.top_up(next(iter(store.balances("wallet"))).counter, 10 * 10**12, "", NOON)
    until = time.monotonic() + 10
    while len(let_go) < 11 and time.monotonic() < until:
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    at.close()
    assert len(let_go) == 11
    assert state(store, "wallet") == (11, 0)


# -- actions ----------------------------------------------------------------------------------------------------------


def test_warnings_are_told_once_with_the_facts(store: Any) -> None:
    told = []
    thresholds = [{"at": "50%", "action": "warn", "call": told.append}, {"at": "80%", "action": "warn"}]
    spans = []
    at = guard(store, Budget("b", limit="10", thresholds=thresholds), also=spans.append)
    for _ in range(9):
        spend(at, "1")
    (notice,) = told
    assert (notice.kind, notice.budget, notice.spent, notice.limit) == ("warn", "b", 5, 10)
    assert [(one.kind, one.at) for one in spans] == [("warn", Decimal("0.5")), ("warn", Decimal("0.8"))]
    assert notice.as_dict()["spent"] == "5"
    at.close()


def test_a_dry_run_tells_and_refuses_nothing(store: Any) -> None:
    told = []
    at = guard(store, Budget("b", limit="1", dry_run=True), also=told.append)
    spend(at, "1")
    assert not told
    spend(at, "5")
    assert [one.kind for one in told] == ["would_reject"]
    assert state(store, "b") == (6, 0)
    at.close()


def test_a_downgrade_changes_tier_and_model_and_costs_less(store: Any) -> None:
    ladder = [
        {"at": "50%", "action": "downgrade", "tier": "flex"},
        {"at": "80%", "action": "downgrade", "models": {"gpt-5": "gpt-5-mini"}},
    ]
    at = guard(store, Budget("b", limit="10", thresholds=ladder))
    first = at.reserve(call("4", model="gpt-5"), ACME, "")
    assert (first.tier, first.model) == (None, None)
    at.settle(first, Decimal(5))
    second = at.reserve(call("4", model="gpt-5"), ACME, "")
    assert (second.tier, second.model, second.amounts) == ("flex", None, (4 * 10**11,))
    at.settle(second, Decimal(3))
    third = at.reserve(call("2", model="gpt-5"), ACME, "")
    assert (third.tier, third.model) == (None, "gpt-5-mini")
    at.settle(third, Decimal(1))
    # What it asks for does not fit any more, and what it gets instead does.
    assert at.reserve(call("9", model="gpt-5"), ACME, "").model == "gpt-5-mini"
    at.close()


def test_a_queued_call_goes_when_there_is_room_and_is_refused_when_there_is_none_in_time(store: Any) -> None:
    queue = [{"action": "queue", "seconds": 0.3, "waiting": 1}]
    at = guard(store, Budget("b", limit="10", thresholds=queue))
    held = at.reserve(call("10"), ACME, "")
    assert at.reserve(call("1"), ACME, "", wait=False) is WAIT
    with pytest.raises(BudgetExceeded):
        at.reserve(call("1"), ACME, "")
    timer = threading.Timer(0.05, at.release, (held,))
    timer.start()
    at.release(at.reserve(call("1"), ACME, ""))
    timer.join()
    at.close()


def test_unpriced_calls_get_what_the_budget_says(store: Any) -> None:
    told = []
    at = guard(
        store,
        Budget("strict", limit="10", unpriced="reject", match={"tenant_id": "strict"}),
        Budget("careful", limit="10", ceiling="4", match={"tenant_id": "careful"}),
        Budget("easy", limit="10", match={"tenant_id": "easy"}),
        also=told.append,
    )
    with pytest.raises(BudgetExceeded, match="no price"):
        at.reserve(call(None), Attribution.of({"tenant_id": "strict"}), "")
    careful = Attribution.of({"tenant_id": "careful"})
    for _ in range(2):
        at.settle(at.reserve(call(None), careful, ""), None)
    with pytest.raises(BudgetExceeded):
        at.reserve(call(None), careful, "")
    for _ in range(3):
        at.settle(at.reserve(call(None), Attribution.of({"tenant_id": "easy"}), ""), None)
    assert [one.kind for one in told] == ["unpriced"]
    assert [state(store, name)[0] for name in ("strict", "careful", "easy")] == [0, 8, 0]
    at.close()


def test_a_store_that_does_not_answer_lets_go_or_refuses_as_each_budget_says(store: Any) -> None:
    clock = [NOON]
    at = guard(
        store,
        Budget("open", limit="10", match={"tenant_id": "acme"}),
        Budget("closed", limit="10", match={"tenant_id": "globex"}, store_down="closed"),
        now=lambda: clock[0],
    )
    spend(at, "1")
    spend(at, "1", who=GLOBEX)
    answers = type(store).exchange

    def silent(*_: Any, **__: Any) -> Any:
        raise BudgetStoreDown("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "exchange", silent)
        spend(at, "20")
        with pytest.raises(BudgetExceeded, match="does not answer"):
            spend(at, "1", who=GLOBEX)
    assert type(store).exchange is answers
    clock[0] += 2
    with pytest.raises(BudgetExceeded):  # what was spent in the meantime is told
        spend(at, "1")
    spend(at, "9", who=GLOBEX)
    at.keep()
    assert state(store, "open") == (21, 0)
    at.close()


def test_a_stream_that_grows_holds_more_and_where_there_is_no_room_just_what_it_has_made(store: Any) -> None:
    told = []
    at = guard(store, Budget("b", limit="10"), also=told.append)
    stream = call()._replace(body={"per_token": 10**11})
    held = at.reserve(stream, ACME, "")
    assert (held.output, held.stated) == (10, False)
    assert at.grow(held, stream, 20) == 40
    assert state(store, "b") == (0, 4)
    assert not told
    assert at.grow(held, stream, 60) == 120  # 12 USD are not there, 6 are spent
    assert state(store, "b") == (0, 6)
    assert at.grow(held, stream, 105) == 210
    assert state(store, "b") == (0, Decimal("10.5"))
    with pytest.raises(BudgetExceeded):
        at.reserve(call("0.1"), ACME, "")
    assert [one.kind for one in told] == ["overrun"]
    at.settle(held, Decimal(11))
    assert state(store, "b") == (11, 0)
    assert at.grow(held, stream, 500) == 1000
    assert state(store, "b") == (11, 0)
    at.close()


def test_what_was_spent_before_anyone_asked_is_counted_and_told_beyond_the_limit(store: Any) -> None:
    told = []
    at = guard(store, Budget("b", limit="10"), Budget("strict", limit="9", unpriced="reject"), also=told.append)
    for _ in range(3):
        at.charge(call("1"), ACME, "", Decimal(6))
    assert at.flush()
    assert state(store, "b") == state(store, "strict") == (18, 0)
    assert sorted((one.kind, one.budget) for one in told) == [("overrun", "b"), ("overrun", "strict")]
    at.charge(call(None), ACME, "", None)
    assert state(store, "strict") == (18, 0)
    at.close()


def test_what_is_left_is_told_for_the_calls_of_a_budget(store: Any) -> None:
    budgets = (Budget("each", limit="10", per="tenant_id", daily_cap="4"), Budget("org", limit="100"))
    one, other = guard(store, *budgets), guard(store, *budgets)
    assert [one.left(name, ACME) for name in ("each", "org", "none")] == [1, 1, None]
    assert one.left("each", Attribution()) is None
    spend(one, "1")
    held = one.reserve(call("1"), ACME, "")
    assert [one.left(name, ACME) for name in ("each", "org")] == [Decimal("0.5"), Decimal("0.98")]
    assert [other.left(name, ACME) for name in ("each", "org")] == [Decimal("0.5"), Decimal("0.98")]
    one.release(held)
    assert one.left("each", ACME) == Decimal("0.75")
    one.close()
    other.close()


def test_a_noisy_neighbour_changes_nothing_for_another_tenant(store: Any) -> None:
    at = guard(store, Budget("each", limit="5", window="total", per="tenant_id"), keep=True)
    quiet = 0
    for _ in range(20):
        for _ in range(100):
            with contextlib.suppress(BudgetExceeded):
                spend(at, "0.25")
        spend(at, "0.25", who=GLOBEX)
        quiet += 1
    with pytest.raises(BudgetExceeded):
        spend(at, "0.25", who=GLOBEX)
    assert quiet == 20
    at.close()
    assert state(store, "each") == (10, 0)


def test_a_burst_of_refused_calls_asks_the_store_for_some_of_them_only(store: Any) -> None:
    at = guard(store, Budget("b", limit="1", window="total"))
    spend(at, "1")
    asked, exchange = [], store.exchange
    at._account.store.exchange = lambda *some, **more: (asked.append(1), exchange(*some, **more))[1]
    begun = time.monotonic()
    for _ in range(1000):
        with pytest.raises(BudgetExceeded) as refused:
            at.reserve(call("1"), ACME, "")
        assert (refused.value.spent, refused.value.limit) == (1, 1)
    assert len(asked) < 1000 or time.monotonic() - begun > 20
    store.top_up(next(iter(store.balances("b"))).counter, 10**12, "", NOON)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(BudgetExceeded):
            spend(at, "1")
            break
    assert state(store, "b") == (2, 0)
    at.close()


# -- several processes ------------------------------------------------------------------------------------------------


def test_nobody_is_refused_while_another_has_an_idle_share(store: Any) -> None:
    budget = Budget("b", limit="1000", window="total")
    one, other = guard(store, budget, keep=True), guard(store, budget, keep=True)
    for _ in range(5):
        spend(one, "1", worst="10")
    assert state(store, "b")[1] > 0, "no share was lent"
    held = other.reserve(call("995"), ACME, "")
    with pytest.raises(BudgetExceeded):
        one.reserve(call("0.1"), ACME, "")
    other.settle(held, Decimal(995))
    one.close()
    other.close()
    assert state(store, "b") == (1000, 0)


def test_threads_of_several_guards_spend_a_budget_to_the_last_call_and_no_further(store: Any) -> None:
    budget = Budget("b", limit="5", window="total")
    made = [guard(store, budget, keep=True) for _ in range(3)]
    done: list[int] = []

    def work(at: Any) -> None:
        for _ in range(100):
            try:
                spend(at, "0.01", worst="0.05")
                done.append(1)
            except BudgetExceeded:
                continue

    threads = [threading.Thread(target=work, args=(at,)) for at in made for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at in made:
        at.close()
    spent, reserved = state(store, "b")
    assert reserved == 0 and spent == Decimal(len(done)) / 100 <= 5
    # A call is refused where its worst case does not fit: up to that the money is spent.
    assert spent > 5 - Decimal("0.05")


def test_what_a_closed_guard_held_is_given_back(store: Any) -> None:
    at = guard(store, Budget("b", limit="10"))
    at.reserve(call("6"), ACME, "")
    at.close()
    assert state(store, "b") == (0, 0)


def test_counters_that_are_not_used_are_forgotten_and_begin_anew_where_they_were(store: Any) -> None:
    clock = [NOON]
    at = guard(store, Budget("b", limit="10", window="total", per="tenant_id"), now=lambda: clock[0])
    for number in range(100):
        spend(at, "1", who=Attribution.of({"tenant_id": str(number)}))
    clock[0] += 120
    at._account.forget_unused(at._account.store, at._plans.forget)
    assert not at._account.locals
    first = Attribution.of({"tenant_id": "0"})
    spend(at, "9", who=first)
    with pytest.raises(BudgetExceeded):
        spend(at, "1", who=first)
    assert state(store, "b") == (109, 0)
    at.close()


@pytest.mark.parametrize("happens", ["done", "done, and nobody hears of it", "not done"])
def test_while_the_store_forgets_a_counter_other_calls_go_on_and_its_own_are_counted_once(happens: str) -> None:
    clock, store, others = [NOON], MemoryStore(), []
    at = guard(store, Budget("b", limit="10", window="total", per="tenant_id"), now=lambda: clock[0])
    spend(at, "3")
    clock[0] += 120
    spend(at, "1", who=GLOBEX)
    real = store.exchange

    def slow(*some: Any, **more: Any) -> Any:
        at._account.store.exchange = real  # what follows is another thread's
        if happens != "not done":
            answer = real(*some, **more)
        thread = threading.Thread(target=lambda: others.append(spend(at, "2", who=GLOBEX)))
        thread.start()
        thread.join(20)
        at.charge(call("1"), ACME, "", Decimal(4))
        if happens != "done":
            raise BudgetStoreDown("gone")
        return answer

    at._account.store.exchange = slow
    with contextlib.suppress(BudgetStoreDown):
        at._account.forget_unused(at._account.store, at._plans.forget)
    assert others == [None]
    at.keep()
    spend(at, "1")
    at.keep()
    assert [one.state.spent for one in store.balances()] == [8 * 10**12, 3 * 10**12]
    at.close()
    assert [one.state.spent for one in store.balances()] == [8 * 10**12, 3 * 10**12]


def test_a_call_that_held_nothing_is_counted_once_after_its_counter_was_forgotten(store: Any) -> None:
    clock = [NOON]
    at = guard(store, Budget("b", limit="10", window="total"), now=lambda: clock[0])
    spend(at, "3")
    held = at.reserve(call("0"), ACME, "")
    clock[0] += 120
    at._account.forget_unused(at._account.store, at._plans.forget)
    at.settle(held, Decimal(2))
    spend(at, "1")
    assert state(store, "b") == (6, 0)
    at.close()
    assert state(store, "b") == (6, 0)


def test_what_the_store_knows_of_declared_budgets_is_not_told_again(store: Any) -> None:
    budgets = [Budget(f"b{number}", limit="1", thresholds=[{"at": "80%"}]) for number in range(20)]
    guard(store, *budgets).left("b0", ACME)
    told, define = [], type(store).define
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "define", lambda *some: (told.append(some[1]["name"]), define(*some)))
        guard(store, *budgets[1:], Budget("b0", limit="2")).left("b0", ACME)
    assert told == ["b0"]
    assert store.definitions()["b0"][0]["limit"] == "2"
