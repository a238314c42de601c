"""Exchanges that several threads of one process ask for at once: the first of them asks the store for all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from attribkit.budgets.store import Answer, Move
from attribkit.errors import BudgetStoreBusy
from attribkit.storage.forks import let_go_at_fork

__all__ = ["Asked", "Line"]

_MOST = 256
_turn = threading.Lock


class Asked:
    """One exchange that is asked for, and what became of it."""

    __slots__ = ("answer", "error", "holder", "moves", "now", "turn")

    def __init__(self, holder: str, moves: Sequence[Move], now: float) -> None:
        self.holder, self.moves, self.now = holder, moves, now
        self.turn: threading.Lock | None = None
        self.answer: Answer | None = None
        self.error: Exception | None = None


class Line:
    """Threads of a process before one store. One at a time speaks with it, and takes along what the others have asked
    until then: a transaction or a round trip serves all of them, and however many threads a process has, it waits for
    the store once."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._begin()
        let_go_at_fork(self, "thread")

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._led = False
        self._waiting: deque[Asked] = deque()
        self._batch: list[Asked] = []
        """Whom the one that leads asks for."""

    def ask(self, asked: Asked, work: Callable[[Callable[[], list[Asked]]], Sequence[Answer]], wait: bool) -> Answer:
        """Return the answer to `asked`. `work` is given a function that says for whom it works, `asked` first, and
        returns an answer for each. With `wait=False` BudgetStoreBusy is raised where another thread is at it."""
        with self._lock:
            if not self._led:
                self._led = leads = True
            else:
                leads = False
                if wait:
                    asked.turn = _turn()
                    asked.turn.acquire()
                    self._waiting.append(asked)
        if leads:
            return self._lead(asked, work)
        if asked.turn is None:
            raise BudgetStoreBusy("another thread of this process asks the budget store just now")
        try:
            served = asked.turn.acquire(timeout=self._patience)
        except BaseException:  # a signal's: whoever has left can lead nobody
            if not self._left(asked) and asked.turn.acquire() and asked.answer is None and asked.error is None:
                self._pass_on(())
            raise
        if not served:
            if self._left(asked):
                raise BudgetStoreBusy(f"the budget store has not answered for {self._patience:.0f} s")
            asked.turn.acquire()
        if asked.answer is not None:
            return asked.answer
        if asked.error is not None:
            raise asked.error
        return self._lead(asked, work)

    def _lead(self, asked: Asked, work: Callable[[Callable[[], list[Asked]]], Sequence[Answer]]) -> Answer:
        self._batch = batch = [asked]
        try:
            answers = work(self._collect)
            if len(batch) > 1:
                for one, answer in zip(batch, answers, strict=True):
                    one.answer = answer
            return answers[0]
        except BaseException as error:
            for one in batch[1:]:
                one.error = error if isinstance(error, Exception) else BudgetStoreBusy(f"interrupted: {error!r}")
            raise
        finally:
            self._pass_on(batch)

    def _collect(self) -> list[Asked]:
        """Return what is asked for now, and take no more along."""
        batch, waiting = self._batch, self._waiting
        if waiting and len(batch) == 1:
            with self._lock:
                while waiting and len(batch) < _MOST and waiting[0].holder == batch[0].holder:
                    batch.append(waiting.popleft())
        return batch

    def _left(self, asked: Asked) -> bool:
        """Take `asked` out of the line; False when it is being asked for, or is the first now."""
        with self._lock:
            there = asked in self._waiting
            if there:
                self._waiting.remove(asked)
        return there

    def _pass_on(self, served: Sequence[Asked]) -> None:
        """Let those go that are served, all but the first, who led; and let the next one lead."""
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            self._led = following is not None
        if len(served) > 1:
            for one in served[1:]:
                assert one.turn is not None
                one.turn.release()
        if following is not None:
            assert following.turn is not None
            following.turn.release()

    def before_fork(self) -> None:
        """Nothing is let go: what is asked just now is the parent's."""

    def after_fork_in_parent(self) -> None:
        """Nothing was taken."""

    def after_fork_in_child(self) -> None:
        """Nobody asks yet."""
        self._begin()
