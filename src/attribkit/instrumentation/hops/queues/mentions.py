"""Which of several items the running code works on: the one that its innermost frames hold, by identity.

What is handed to a call stands in the frames between the consumer and the call: the item itself, or a part of it (a
prompt, a list of messages). The innermost frame that holds any decides. Strings that a compiler may have made one of
several equal ones say nothing, nor does what items of different owners share.
"""

from __future__ import annotations

import dis
import functools
import itertools
import sys
from collections import deque
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from inspect import CO_OPTIMIZED
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

__all__ = ["left_over", "meant", "values_of"]


_LOOKED_AT = 4000
_DEEP = 7
_ROOTS = ("asyncio.events", "asyncio.base_events", "asyncio.runners", "threading", "concurrent.futures.thread")
_PLAIN = (str, bytes)
_PARTS = (str, bytes, list, dict)
_ITSELF = ("self", "cls")


def meant(
    items: Sequence[tuple[object, Hashable]], frames: Iterable[FrameType], consumer: FrameType | None, code: CodeType
) -> set[int] | None:
    """Return the positions of the items that the running code works on, which have one owner; none where it works on
    items of several, or on which cannot be told, and None where its frames hold no item.

    `frames` are those of the running code, innermost first, up to `consumer`, or to the root of a task or thread that
    it has started. `code` is the consumer's.
    """
    chain = list(_up_to(frames, consumer))
    told = _told(items, _constants([code, *(frame.f_code for frame in chain)]))
    if told is None:
        return None
    for frame in chain:
        found = _held(values_of(frame, leave=_ITSELF), told)
        if found is None:
            return set()
        if found:
            turn = set() if consumer is None else {id(each) for each in values_of(consumer, only=_turns(consumer))}
            if _one(items, {i for key in (*found, *(turn & told.keys())) for i in told[key]}):
                return {i for key in found for i in told[key]}
            return _of_turn(frame, told, items) or set()
    return None if consumer is None else _of_turn(consumer, told, items)


def _one(items: Sequence[tuple[object, Hashable]], positions: set[int]) -> bool:
    return len({items[i][1] for i in positions}) == 1


def _up_to(frames: Iterable[FrameType], consumer: FrameType | None) -> Iterator[FrameType]:
    for frame in frames:
        if frame is consumer or (consumer is None and frame.f_globals.get("__name__") in _ROOTS):
            return
        yield frame


# -- what tells an item -----------------------------------------------------------------------------------------------


def _told(items: Sequence[tuple[object, Hashable]], constants: set[int]) -> dict[int, set[int]] | None:
    """Return the positions of the items that each object tells; None when one of them cannot be told at all, which
    would be overlooked beside others."""
    told: dict[int, set[int]] = {}
    parts: dict[int, set[int]] = {}
    for i, (item, _) in enumerate(items):
        if id(item) in constants or not list(_telling(item, 0)):
            return None
        told.setdefault(id(item), set()).add(i)
        for part in _telling(item, 2):
            parts.setdefault(id(part), set()).add(i)
    for key, positions in parts.items():
        if key not in constants and len({items[i][1] for i in positions}) == 1:
            told.setdefault(key, positions)
    return told


def _telling(item: Any, depth: int) -> Iterator[Any]:
    if isinstance(item, _PLAIN):
        if len(item) > 3 and not (isinstance(item, str) and item.isidentifier()):
            yield item
        return
    if item is None or isinstance(item, (int, float, complex, type)):
        return
    if not isinstance(item, (tuple, frozenset)) or item:  # there is one empty tuple
        yield item
    if depth:
        for part in _inside(item, opened=True):
            if isinstance(part, _PARTS):
                yield from _telling(part, depth - 1)


def _constants(codes: Iterable[CodeType]) -> set[int]:
    found: set[int] = set()
    for code in codes:
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                found.update(map(id, constant.co_consts))
            else:
                found.add(id(constant))
    return found


# -- what a frame holds -----------------------------------------------------------------------------------------------


def values_of(frame: FrameType, leave: Container[str] = (), only: Container[str] | None = None) -> list[Any]:
    """Return the values of a frame's variables, without those named in `leave`."""
    return [value for name, value in _named(frame) if name not in leave and (only is None or name in only)]


def _named(frame: FrameType) -> list[tuple[str, Any]]:
    variables = frame.f_locals
    found = list(variables.items())
    if sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED:
        _forget(variables)
    return found


def _forget(variables: Any) -> None:
    """Empty the copy of a frame's variables, which keeps them alive, unless the app has it too by `locals()`."""
    if sys.getrefcount(variables) <= _ALONE:
        variables.clear()


def _alone() -> int:
    def forget(variables: Any) -> int:
        return sys.getrefcount(variables)

    def values(frame: FrameType) -> int:
        variables = frame.f_locals
        return forget(variables)

    return values(sys._getframe())


_ALONE = _alone()


def _held(values: Iterable[Any], told: Container[int]) -> set[int] | None:
    """Return which of `told` stand in `values` at any depth; None when there is too much to look at."""
    found: set[int] = set()
    seen: set[int] = set()
    due = [(value, 0) for value in values]
    while due:
        value, depth = due.pop()
        key = id(value)
        if key in told:
            found.add(key)
        elif depth < _DEEP and key not in seen:
            seen.add(key)
            if len(seen) > _LOOKED_AT:
                return None
            due += [(each, depth + 1) for each in _inside(value)]
    return found


def _inside(value: Any, *, opened: bool = False) -> Iterable[Any]:
    """Return what stands in a container, a record, or a function that was made for a value; `opened` for any object."""
    try:
        if isinstance(value, dict):
            return list(value.values())
        if isinstance(value, (list, tuple, set, frozenset, deque)):
            return list(value)
        if isinstance(value, functools.partial):
            return [value.func, *value.args, *value.keywords.values()]
        if isinstance(value, FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
            return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        if isinstance(value, MethodType):
            return [value.__self__] if opened else []
        cls = type(value)
        if opened or hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__pydantic_fields__"):
            slots = [getattr(value, name, None) for name in getattr(cls, "__slots__", ()) if isinstance(name, str)]
            return [*getattr(value, "__dict__", {}).values(), *slots]
    except Exception:  # an object of the app's may refuse; it changes while it is read
        return []
    return []


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


# -- whose turn it is in a loop ---------------------------------------------------------------------------------------

_LOADS = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CLOSURE", "LOAD_CLASSDEREF")
_STORES = ("STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF")
_KEEPS = frozenset(
    {"append", "appendleft", "add", "insert", "extend", "push", "setdefault", "update", "write", "put", "put_nowait"}
)
_RETURNS = ("RETURN_", "RAISE_", "RERAISE", "JUMP_", "POP_JUMP_", "FOR_ITER", "END_FOR")
_AWAITS = ("JUMP_BACKWARD_NO_INTERRUPT", "SEND")


@functools.lru_cache(256)
def _instructions(code: CodeType) -> tuple[dis.Instruction, ...]:
    return tuple(dis.get_instructions(code))


def _of_turn(
    frame: FrameType, told: Mapping[int, set[int]], items: Sequence[tuple[object, Hashable]]
) -> set[int] | None:
    """Return the positions of the items whose turn it is in a `for` loop of the frame, if what it calls is made from
    them and from nothing else that changes in the loop; None where that is not certain."""
    code = _instructions(frame.f_code)
    at = max((i for i, each in enumerate(code) if each.offset <= frame.f_lasti), default=None)
    around = [loop for loop in _targets(frame.f_code) if loop[0] <= frame.f_lasti < loop[1]]
    if at is None or not around:
        return None
    start, end, _ = max(around, key=lambda loop: loop[0])
    body = [each for each in code if start <= each.offset < end]
    turns = {name for _, _, names in around for name in names}
    changes = {name for each in body if each.opname.startswith(_STORES) for name in _names_of(each)} - turns
    for before, each in itertools.pairwise(body):
        if each.opname in ("LOAD_METHOD", "LOAD_ATTR") and each.argval in _KEEPS:
            changes.update(_names_of(before) if before.opname.startswith(_LOADS) else ())
        elif each.opname in ("STORE_ATTR", "STORE_SUBSCR"):
            changes.update(name for one in body if _lies_in(one, each) for name in _names_of(one))
    names = _made_from(code, at, start, changes)
    if names is None:
        return None
    variables = {name: value for name, value in _named(frame) if name in names}
    turn = [value for name, value in variables.items() if name in turns and id(value) in told]
    if not turn or _held([value for name, value in variables.items() if name not in turns], told) != set():
        return None
    positions = {i for value in turn for i in told[id(value)]}
    return positions if _one(items, positions) else None


def _made_from(code: tuple[dis.Instruction, ...], at: int, start: int, changes: set[str]) -> set[str] | None:
    """Return the names from which the expression at `at` is made. A name that changes in the loop stands for those from
    which it has just been made; None where that cannot be told."""
    found: set[str] = set()
    if _span(code[at]) is None:
        return None
    for i, each in enumerate(code[: at + 1]):
        if not _lies_in(each, code[at]):
            continue
        for name in _names_of(each):
            if name not in changes:
                found.add(name)
                continue
            stored = _just_stored(code, i, start, name)
            made = None if stored is None else _made_before(code, stored, start, changes)
            if made is None:
                return None
            found |= made
    return found


def _span(each: dis.Instruction) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return where in the source an instruction's expression begins and ends."""
    place = each.positions
    if place is None or None in place:
        return None
    return (place.lineno or 0, place.col_offset or 0), (place.end_lineno or 0, place.end_col_offset or 0)


def _lies_in(each: dis.Instruction, expression: dis.Instruction) -> bool:
    """Return whether `each` loads a variable for an expression."""
    if not each.opname.startswith(_LOADS):
        return False
    inner, outer = _span(each), _span(expression)
    return inner is not None and outer is not None and outer[0] <= inner[0] and inner[1] <= outer[1]


def _just_stored(code: tuple[dis.Instruction, ...], i: int, start: int, name: str) -> int | None:
    """Return where `name` is set before `i` on the only way there."""
    landings = {each.argval for each in code if each.opcode in _JUMPS and each.opname not in _AWAITS}
    while i > 0 and code[i - 1].offset > start:
        if code[i].offset in landings:
            return None
        i -= 1
        each = code[i]
        if each.opname.startswith(_STORES) and name in _names_of(each):
            return i
        if each.opname.startswith(_RETURNS) and each.opname not in _AWAITS:
            return None
    return None


def _made_before(code: tuple[dis.Instruction, ...], stored: int, start: int, changes: set[str]) -> set[str] | None:
    """Return the names from which the value that is stored at `stored` is made."""
    value = stored - 1
    while value > 0 and code[value].opname in ("CACHE", "NOP", "COPY"):
        value -= 1
    return _made_from(code, value, start, changes) if code[value].offset > start else None


_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))


def _names_of(each: dis.Instruction) -> tuple[str, ...]:
    return each.argval if isinstance(each.argval, tuple) else (str(each.argval),)


# -- variables that are left over -------------------------------------------------------------------------------------


@functools.lru_cache(256)
def _targets(code: CodeType) -> tuple[tuple[int, int, frozenset[str]], ...]:
    """Return the extent of each `for` loop and the variables that it sets."""
    found = []
    instructions = _instructions(code)
    for i, each in enumerate(instructions):
        if each.opname == "FOR_ITER":
            names: set[str] = set()
            for after in instructions[i + 1 : i + 12]:
                if after.opname.startswith("STORE_"):
                    value = after.argval
                    names.update(value if isinstance(value, tuple) else (str(value),))
                elif not after.opname.startswith(("UNPACK_", "CACHE")):
                    break
            found.append((each.offset, int(each.argval), frozenset(names)))
    return tuple(found)


def _turns(frame: FrameType) -> set[str]:
    """Return the names of the variables of the `for` loops that are under way."""
    at = frame.f_lasti
    return {name for start, end, names in _targets(frame.f_code) if start <= at < end for name in names}


def left_over(frame: FrameType) -> set[str]:
    """Return the names of variables that a loop has left behind, which is not under way."""
    return {name for _, _, names in _targets(frame.f_code) for name in names} - _turns(frame)
