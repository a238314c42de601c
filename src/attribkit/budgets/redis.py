"""Budgets counted in Redis, for the processes of many machines: each exchange is one script and one round trip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attribkit.budgets.batches import Asked, Line
from attribkit.budgets.store import GRAVE, Answer, Balance, Counter, Entry, Hold, Holder, Move, State
from attribkit.errors import BudgetStoreDown, ConfigurationError

__all__ = ["RedisStore"]

_TAG = "{attribkit}:budgets:"  # one slot of a cluster: a script may touch any of these keys
_COUNTER, _HOLDER, _BUDGET, _ENTRIES = f"{_TAG}counter:", f"{_TAG}holds:", f"{_TAG}counters:", f"{_TAG}entries:"
_HOLDERS, _DEFINITIONS, _VERSION = f"{_TAG}holders", f"{_TAG}definitions", f"{_TAG}version"
_SECONDS = 5.0
_BURIED = ":buried"
"""In a holder's hash: who it was, once it is buried."""


def _script(name: str) -> str:
    folder = Path(__file__).parent
    numbers = (folder / "redis_numbers.lua").read_text(encoding="utf-8")
    return numbers + (folder / f"redis_{name}.lua").read_text(encoding="utf-8")


class RedisStore:
    """A Store at a `redis://` or `rediss://` URL. Needs `attribkit[redis]` and Redis 6 or later."""

    direct = False

    def __init__(self, url: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise ConfigurationError(
                "budget_store redis://...: the client is not installed; pip install 'attribkit[redis]'",
                name="budget_store",
            ) from None
        self._error: type[Exception] = redis.RedisError
        self._no_script: type[Exception] = redis.exceptions.NoScriptError
        self._line = Line(2 * _SECONDS)
        self._redis: Any = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),  # an exchange that may have been made is not made again
        )
        self._moves = self._redis.register_script(_script("moves"))
        self._bury = self._redis.register_script(_script("bury"))
        self._define = self._redis.register_script(_script("define"))
        self._top_up = self._redis.register_script(_script("top_up"))

    def _asked(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (self._error, OSError) as error:
            raise BudgetStoreDown(f"Redis: {type(error).__name__}") from error

    def exchange(self, holder: str, moves: Sequence[Move], now: float, *, wait: bool = True) -> Answer:
        def work(collect: Callable[[], list[Asked]]) -> list[Answer]:
            batch = collect()
            if len(batch) == 1:
                keys, values = _said(batch[0])
                return [_answer(self._asked(lambda: self._moves(keys=keys, args=values)))]
            return [_answer(one) for one in self._asked(lambda: self._together(batch))]

        return self._line.ask(Asked(holder, moves, now), work, wait)

    def _together(self, batch: Sequence[Asked]) -> list[Any]:
        """Run the script for each exchange, in one round trip."""
        script = self._moves
        found: list[Any] = [None] * len(batch)
        missing = list(range(len(batch)))
        for _ in range(2):
            pipeline = self._redis.pipeline(transaction=False)
            for place in missing:
                keys, values = _said(batch[place])
                pipeline.evalsha(script.sha, len(keys), *keys, *values)
            for place, told in zip(missing, pipeline.execute(raise_on_error=False), strict=True):
                found[place] = told
            missing = [place for place in missing if isinstance(found[place], self._no_script)]
            if not missing:
                break
            self._redis.script_load(script.script)
        for told in found:
            if isinstance(told, Exception):
                raise told
        return found

    def _time(self) -> float:
        seconds, micros = self._redis.time()
        return float(seconds) + float(micros) / 1e6

    def beat(self, holder: Holder, lease: float, now: float) -> None:
        def work() -> None:
            facts = json.dumps([holder.host, holder.pid, holder.born, self._time() + lease])
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(_HOLDERS, holder.id, facts)
            pipeline.hdel(_HOLDER + holder.id, _BURIED)
            pipeline.persist(_HOLDER + holder.id)
            pipeline.execute()

        self._asked(work)

    def holders(self, now: float) -> list[tuple[Holder, bool]]:
        def work() -> list[tuple[Holder, bool]]:
            now = self._time()
            found = [Holder(id, *json.loads(facts)) for id, facts in self._redis.hgetall(_HOLDERS).items()]
            return [(one, one.expires <= now) for one in found]

        return list(self._asked(work))

    def holds(self, holder: str) -> list[Hold]:
        found = self._asked(lambda: self._redis.hgetall(_HOLDER + holder))
        return [Hold(id, int(text.split()[0]), int(text.split()[2])) for id, text in found.items() if id != _BURIED]

    def bury(self, holder: str, settled: Mapping[str, int], now: float, *, forget: bool = False) -> int:
        values = [repr(now), holder, _COUNTER, "" if forget else str(GRAVE)]
        for id, amount in settled.items():
            values += [id, str(amount)]
        return int(self._asked(lambda: self._bury(keys=[_HOLDER + holder, _HOLDERS], args=values)))

    def prune(self, now: float) -> int:
        """Counters end by themselves here; their names are taken out of the sets of their budgets."""

        def work() -> int:
            gone = 0
            for name in self._redis.scan_iter(f"{_BUDGET}*"):
                keys = list(self._redis.sscan_iter(name, count=1000))
                for start in range(0, len(keys), 1000):
                    pipeline = self._redis.pipeline(transaction=False)
                    some = keys[start : start + 1000]
                    for key in some:
                        pipeline.exists(key)
                    ended = [key for key, there in zip(some, pipeline.execute(), strict=True) if not there]
                    if ended:
                        gone += self._redis.srem(name, *ended)
            return gone

        return int(self._asked(work))

    def version(self) -> int:
        return int(self._asked(lambda: self._redis.get(_VERSION)) or 0)

    def definitions(self) -> dict[str, tuple[dict[str, Any], str]]:
        found = {}
        for name, text in self._asked(lambda: self._redis.hgetall(_DEFINITIONS)).items():
            origin, _, table = text.partition("\n")
            found[name] = json.loads(table), origin
        return found

    def define(self, table: Mapping[str, Any], origin: str) -> None:
        text = f"{origin}\n{json.dumps(table, sort_keys=True)}"
        self._asked(lambda: self._define(keys=[_DEFINITIONS, _VERSION], args=[table["name"], origin, text]))

    def top_up(self, counter: Counter, amount: int, note: str, now: float) -> State:
        self.exchange("", [Move(counter, -1, 0, forget=True)], now)
        entry = json.dumps([now, counter.budget, counter.key, amount, note])
        keys = [_COUNTER + counter.id, _ENTRIES + counter.budget]
        return State(*map(int, self._asked(lambda: self._top_up(keys=keys, args=[str(amount), entry]))))

    def statement(self, budget: str, key: str | None = None) -> list[Entry]:
        lines = self._asked(lambda: self._redis.lrange(_ENTRIES + budget, 0, -1))
        found = [Entry(*json.loads(line)) for line in lines]
        return [one for one in found if key in (None, one.key)]

    def balances(self, budget: str | None = None) -> Iterator[Balance]:
        sets = (
            [_BUDGET + budget] if budget is not None else self._asked(lambda: [*self._redis.scan_iter(f"{_BUDGET}*")])
        )
        for name in sorted(sets):
            for key in sorted(self._asked(lambda name=name: self._redis.smembers(name))):  # type: ignore[misc]
                found = self._asked(lambda key=key: self._redis.hgetall(key))  # type: ignore[misc]
                if not found:
                    self._asked(lambda name=name, key=key: self._redis.srem(name, key))  # type: ignore[misc]
                    continue
                counter = Counter(
                    found["id"], found["budget"], found["key"], found["window"], found["unit"], int(found["start"]),
                    int(found["end"]) if found["end"] else None, int(found["slice"]), int(found["length"]),
                )  # fmt: skip
                state = State(*(int(found[one]) for one in ("spent", "reserved", "extra", "lent")))
                yield Balance(counter, state)

    def close(self) -> None:
        self._redis.close()


def _said(asked: Asked) -> tuple[list[str], list[str]]:
    """Return an exchange as keys and arguments of the script."""
    keys, values = [_HOLDER + asked.holder], [repr(asked.now), asked.holder, _HOLDERS]
    for move in asked.moves:
        counter = move.counter
        keys.append(_COUNTER + counter.id)
        values += ["" if one is None else str(one) for one in counter]
        values += [str(int(one)) for one in move[1:]]
        values.append(_BUDGET + counter.budget)
    return keys, values


def _answer(told: Sequence[Any]) -> Answer:
    numbers = [int(one) for one in told]
    states = tuple(State(*numbers[at : at + 4]) for at in range(1, len(numbers), 5))
    return Answer(numbers[0], states, tuple(numbers[5::5]))
