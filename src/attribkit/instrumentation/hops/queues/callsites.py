"""What the code around a call does with the value it gets: read from its bytecode once, and remembered.

A queue is a channel of work where a loop takes one item after the other, and a store of things where a function takes
one and puts it back. Which of the two a `get()` is stands in the code that calls it.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import CodeType, FrameType
from typing import Any, NamedTuple

from attribkit.instrumentation.hops.frames import OURS, module_of

__all__ = ["Caller", "Site", "caller", "site_of"]

_GETS = frozenset({"get", "get_nowait", "receive", "receive_nowait", "recv"})
_PUTS = frozenset({"put", "put_nowait", "send", "send_nowait"})
_COLLECTORS = frozenset(
    {"append", "appendleft", "add", "insert", "extend", "push", "heappush", "insort", "setdefault", "update"}
)
_LOOKUPS = frozenset({"LOAD_METHOD", "LOAD_ATTR", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"})
_CALLS = frozenset({"PRECALL", "CALL", "CALL_KW", "CALL_FUNCTION_EX"})
_GATHERS = frozenset({"LIST_APPEND", "SET_ADD", "MAP_ADD", "BUILD_LIST", "BUILD_SET", "BUILD_MAP", "LIST_EXTEND"})
_INPLACE_ADD = "+="
_KEPT = 4096
_FAR = 80
"""Instructions that are looked at on either side; one statement is shorter."""


class Site(NamedTuple):
    """What is known of one place in a code object that gets a value."""

    loops: bool
    """It stands inside a loop."""
    lines: tuple[int, int] | None
    """The first and the last line of the innermost loop in which all is done with the value; None if that is the whole
    function."""
    passes: bool
    """The value is returned or yielded, as it is or beside others: what happens to it is decided by the caller."""
    collects: bool
    """The value is kept beside the next one: several may be worked on together."""
    puts_back: bool
    """The same code puts into what it gets from."""
    awaited: bool
    """The value is awaited in the statement that asks for it."""


UNKNOWN = Site(False, None, False, True, True, False)
_sites: dict[tuple[int, int], tuple[CodeType, Site]] = {}


def site_of(code: CodeType, at: int) -> Site:
    """Return what `code` does with the value of the call at the offset `at`."""
    known = _sites.get((id(code), at))
    if known is not None and known[0] is code:
        return known[1]
    site = _read(list(dis.get_instructions(code)), at, code.co_name in _COMPREHENSIONS)
    if len(_sites) >= _KEPT:
        _sites.clear()
    _sites[id(code), at] = code, site
    return site


class Caller(NamedTuple):
    """Who decides what happens to the value: the sites that it passed through, read together."""

    frame: FrameType
    site: Site
    root: bool
    """Nothing of the app's own stands above it in its task or thread."""
    loops: bool
    """It, or what handed the value up to it, stands in a loop."""
    direct: bool
    """It asked itself, or by a generator; no function of its own handed a single value up."""


_BETWEEN = frozenset(
    {"asyncio.queues", "asyncio.tasks", "asyncio.threads", "asyncio.timeouts", "queue", "_queue"}
    | {"anyio.streams.memory", "anyio.abc._streams", "multiprocessing.queues", "multiprocessing.managers"}
    | {"multiprocessing.connection"}
)
_STEPS = frozenset({"__step", "__step_run_and_handle_result", "__wakeup"})
_ROOTS = frozenset({"asyncio", "threading", "uvloop", "concurrent", "multiprocessing"})
_GENERATORS = CO_GENERATOR | CO_ASYNC_GENERATOR


def caller(frames: Iterator[FrameType]) -> Caller | None:
    """Return who decides what happens to the value that the first of `frames` gets; None when nobody of the app does:
    the getter runs in a task of its own."""
    found: Caller | None = None
    for frame in frames:
        module = module_of(frame)
        name = frame.f_code.co_name
        if (module in _BETWEEN and name not in _STEPS) or module.startswith(OURS) or (not module and name in _GETS):
            continue  # a method of a manager's proxy has no module
        root = module.partition(".")[0] in _ROOTS
        if found is not None and (root or not found.site.passes):
            return found._replace(root=root)
        if root:
            return None
        site = site_of(frame.f_code, frame.f_lasti)
        if found is None:
            found = Caller(frame, site, False, site.loops, True)
        else:
            below = found.site
            generator = found.frame.f_code.co_flags & _GENERATORS
            direct = found.direct and (bool(generator) or below.collects)
            site = site._replace(
                collects=site.collects or (below.collects and not generator),
                puts_back=site.puts_back or below.puts_back,
            )
            found = Caller(frame, site, False, site.loops or found.loops, direct)
    return None if found is None else found._replace(root=True)


# -- reading bytecode -------------------------------------------------------------------------------------------------


_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


def _read(code: list[dis.Instruction], at: int, comprehension: bool) -> Site:
    here = max((i for i, each in enumerate(code) if each.offset <= at), default=None)
    if here is None:
        return UNKNOWN
    passes, gathers, names, awaited, ends, end = _use(code, here)
    collects = comprehension or gathers or (ends and _handed_to_collector(code, here))
    collects = collects or any(_kept(code, i, names) for i in range(len(code)))
    receiver = _receiver(code, here)
    twins = [i for i, each in enumerate(code) if _is_lookup(each, _GETS) and i and code[i - 1].argval == receiver]
    if receiver is not None and len(twins) > 1 and not passes:
        collects = collects or any(set(_use(code, _call_after(code, i)).names) != set(names) for i in twins)
    if collects and not passes:
        passes = comprehension or _returned(code, _containers(code, here, gathers))
    loops = _loops(code, here)
    puts = _puts(code)
    return Site(
        loops=bool(loops),
        lines=_extent(code, loops, names, end),
        passes=passes,
        collects=collects,
        puts_back=bool(puts) if receiver is None else receiver in puts,
        awaited=awaited,
    )


def _puts(code: list[dis.Instruction], depth: int = 0) -> list[Any]:
    """Return the names of what is put into, by functions within the code too."""
    found = [code[i - 1].argval for i, each in enumerate(code) if i and _is_lookup(each, _PUTS)]
    for each in code:
        if isinstance(each.argval, CodeType) and depth < 3:
            found += _puts(list(dis.get_instructions(each.argval)), depth + 1)
    return found


def _loops(code: list[dis.Instruction], here: int) -> list[tuple[int, int]]:
    """Return the lines of the loops around an instruction, the innermost first.

    By lines, not offsets: the compiler moves what is rare to the end of a function, and doubles a `while`'s condition.
    """
    line = _line(code[here])
    places = {each.offset: i for i, each in enumerate(code)}
    before: list[list[int]] = [[] for _ in code]
    for i, each in enumerate(code):
        if i + 1 < len(code) and not each.opname.startswith(_LEAVES):
            before[i + 1].append(i)
        if each.opcode in _JUMPS and each.argval in places:
            before[places[each.argval]].append(i)
    around: dict[int, tuple[int, int]] = {}
    for i, each in enumerate(code):
        if not each.opname.startswith(("JUMP_BACKWARD", "POP_JUMP_BACKWARD")):
            continue
        start = places.get(each.argval)
        if start is None or code[start].opname in ("SEND", "END_SEND") or code[i - 1].opname == "CLEANUP_THROW":
            continue  # the loop that an await is
        body, due = {start, i}, [i]
        while due:
            for earlier in before[due.pop()]:
                if earlier not in body:
                    body.add(earlier)
                    due.append(earlier)
        lines = [found for one in body if (found := _line(code[one]))]
        if lines and min(lines) <= line <= max(lines) and 0 not in body:
            low, high = around.get(start, (min(lines), max(lines)))
            around[start] = min(low, *lines), max(high, *lines)
    return sorted(around.values(), key=lambda lines: lines[1] - lines[0])


def _extent(
    code: list[dis.Instruction], loops: list[tuple[int, int]], names: tuple[str, ...], end: int
) -> tuple[int, int] | None:
    """Return the lines of the innermost loop in which `names`, as they are from `end` on, are used."""
    used: set[int] = set()
    places = {each.offset: i for i, each in enumerate(code)}
    for name in names:
        seen, due = {end}, [end]
        while due:
            i = due.pop()
            each = code[i]
            if _loads(each, (name,)):
                used.add(_line(each))
            after = [places[each.argval]] if each.opcode in _JUMPS and each.argval in places else []
            if i + 1 < len(code) and not each.opname.startswith(_LEAVES):
                after.append(i + 1)
            for one in after:
                if one not in seen:
                    seen.add(one)
                    own = end < one <= end + 8  # what an unpacking stores
                    if own or not code[one].opname.startswith("STORE_") or name not in _names(code[one]):
                        due.append(one)
    for low, high in loops:
        if all(low <= line <= high for line in used):
            return low, high
    return None


_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_LEAVES = ("RETURN_VALUE", "RETURN_CONST", "RAISE_", "RERAISE", "JUMP_")


def _line(each: dis.Instruction) -> int:
    place = each.positions
    return place.lineno or 0 if place is not None else 0


class _Use(NamedTuple):
    passes: bool
    gathers: bool
    names: tuple[str, ...]
    awaited: bool
    dropped: bool
    """It ends as the value of a statement."""
    end: int


def _use(code: list[dis.Instruction], here: int) -> _Use:
    """Follow the value from the call to where it is kept or dropped."""
    gathers, awaited = False, code[here].opname == "SEND"
    i, steps = here if awaited or code[here].opname == "YIELD_VALUE" else here + 1, 0
    if code[here].opname == "YIELD_VALUE":  # suspended in an await
        while i > 0 and code[i].opname != "SEND":
            i -= 1
    offsets: dict[int, int] | None = None
    calls = 0
    while i < len(code) and steps < _FAR:
        each = code[i]
        name = each.opname
        steps += 1
        if name == "SEND":
            awaited = True
            if offsets is None:
                offsets = {one.offset: n for n, one in enumerate(code)}
            i = offsets.get(each.argval, i + 1)
            continue
        if name.startswith("STORE_FAST") or name in ("STORE_NAME", "STORE_GLOBAL", "STORE_DEREF"):
            return _Use(False, gathers, _stored(code, i), awaited, False, i)
        if name == "STORE_ATTR":
            return _Use(False, gathers, (), awaited, False, i)
        if name.startswith("UNPACK_"):
            return _Use(False, gathers, _unpacked(code, i, each), awaited, False, i)
        if name == "STORE_SUBSCR":
            return _Use(False, True, (), awaited, False, i)
        if name.startswith("RETURN_"):
            if name == "RETURN_GENERATOR":
                i += 1
                continue
            return _Use(not calls and not gathers, gathers, (), awaited, name != "RETURN_VALUE", i)
        if name == "YIELD_VALUE":
            return _Use(not calls and not gathers, gathers, (), awaited, False, i)
        if name == "POP_TOP" or name.startswith("POP_JUMP"):
            return _Use(False, gathers, (), awaited, name == "POP_TOP", i)
        if name in _GATHERS or (name == "BINARY_OP" and each.argrepr == _INPLACE_ADD):
            gathers = True
        if name in _CALLS and not _awaits_next(code, i):
            calls += 1
        i += 1
    return _Use(False, True, (), awaited, False, i)


def _awaits_next(code: list[dis.Instruction], i: int) -> bool:
    """Return whether the call at `i` is itself what is awaited: `await wait_for(q.get(), 1)` hands the item through."""
    for each in code[i + 1 : i + 4]:
        if each.opname == "GET_AWAITABLE":
            return True
        if each.opname not in _CALLS and each.opname != "CACHE":
            return False
    return False


def _names(each: dis.Instruction) -> tuple[str, ...]:
    value: Any = each.argval
    if isinstance(value, tuple):
        return tuple(str(one) for one in value)
    return (str(value),)


def _stored(code: list[dis.Instruction], i: int) -> tuple[str, ...]:
    each = code[i]
    return _names(each)[:1] if each.opname == "STORE_FAST_LOAD_FAST" else _names(each)


def _unpacked(code: list[dis.Instruction], i: int, each: dis.Instruction) -> tuple[str, ...]:
    names: list[str] = []
    for one in code[i + 1 : i + 20]:
        if one.opname.startswith("STORE_FAST") or one.opname in ("STORE_NAME", "STORE_GLOBAL", "STORE_DEREF"):
            names += _stored(code, code.index(one, i)) if one.opname == "STORE_FAST_LOAD_FAST" else _names(one)
            if one.opname == "STORE_FAST_LOAD_FAST":
                break
        elif not one.opname.startswith("UNPACK_"):
            break
    return tuple(names)


def _loads(each: dis.Instruction, names: tuple[str, ...]) -> bool:
    if not each.opname.startswith(("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "STORE_FAST_LOAD_FAST")):
        return False
    found = _names(each)
    return any(name in names for name in (found[1:] if each.opname == "STORE_FAST_LOAD_FAST" else found))


def _is_lookup(each: dis.Instruction, names: frozenset[str]) -> bool:
    return each.opname in ("LOAD_METHOD", "LOAD_ATTR") and each.argval in names


def _kept(code: list[dis.Instruction], i: int, names: tuple[str, ...]) -> bool:
    """Return whether the instruction at `i` begins to keep one of `names` in a container that outlives a round."""
    if not names:
        return False
    each = code[i]
    if each.opname in _LOOKUPS and each.argval in _COLLECTORS:
        return _goes_into(code, i + 1, names)
    if not _loads(each, names):
        return False
    built, depth = False, 1
    for after in code[i + 1 : i + 12]:
        name = after.opname
        if name == "STORE_SUBSCR":
            return depth == 3  # the value; else it is the key or the container
        if name == "LIST_APPEND" or (name == "BINARY_OP" and after.argrepr == _INPLACE_ADD):
            return True
        depth += _effect(after)
        if name in ("BUILD_LIST", "BUILD_SET"):
            built = True
        elif built and (name.startswith("STORE_") or name == "BINARY_OP"):
            return True
        elif not name.startswith(("LOAD_", "BUILD_TUPLE", "BINARY_SUBSCR", "BINARY_SLICE", "CACHE", "COPY")):
            return False
    return False


def _goes_into(code: list[dis.Instruction], i: int, names: tuple[str, ...]) -> bool:
    """Return whether one of `names` is an argument of the call whose callee has just been looked up."""
    depth, seen = 0, False
    for each in code[i : i + 24]:
        name = each.opname
        if name == "PUSH_NULL" and not depth:
            continue
        if name in ("PRECALL", "CALL", "CALL_KW"):
            if depth == (each.arg or 0):
                return seen
            return False
        if _loads(each, names):
            seen = True
        if name in ("SEND", "GET_AWAITABLE", "CALL_FUNCTION_EX") or name.startswith(("STORE_", "POP_", "RETURN_")):
            return seen and name == "CALL_FUNCTION_EX"
        depth += _effect(each)
    return seen


def _effect(each: dis.Instruction) -> int:
    try:
        return dis.stack_effect(each.opcode, each.arg if each.opcode >= dis.HAVE_ARGUMENT else None, jump=False)
    except ValueError:  # newer bytecode has arguments that older does not
        return 0


def _handed_to_collector(code: list[dis.Instruction], here: int) -> bool:
    for each in reversed(code[max(0, here - 30) : here]):
        name = each.opname
        if name.startswith("STORE_") or name in ("POP_TOP", "RESUME", "RETURN_VALUE"):
            return False
        if name in _LOOKUPS and each.argval in _COLLECTORS:
            return True
    return False


def _containers(code: list[dis.Instruction], here: int, gathers: bool) -> set[str]:
    """Return the names of what gathers values in this code."""
    found: set[str] = set()
    for i, each in enumerate(code):
        if i and each.opname in ("LOAD_METHOD", "LOAD_ATTR") and each.argval in _COLLECTORS:
            found.update(_names(code[i - 1])[-1:])
        elif each.opname == "BINARY_OP" and each.argrepr == _INPLACE_ADD and i + 1 < len(code):
            found.update(_stored(code, i + 1))
    return found | set(_use(code, here).names) if gathers else found


def _returned(code: list[dis.Instruction], names: set[str]) -> bool:
    wanted = tuple(names)
    for i, each in enumerate(code):
        if each.opname == "RETURN_VALUE":
            for before in reversed(code[max(0, i - 8) : i]):
                if _loads(before, wanted):
                    return True
                if not before.opname.startswith(("LOAD_", "BUILD_", "PUSH_NULL", "PRECALL", "CALL")):
                    break
    return False


def _receiver(code: list[dis.Instruction], here: int) -> Any:
    """Return the name of what the value is got from, None when it cannot be told."""
    for i in range(here, max(0, here - 16), -1):
        if _is_lookup(code[i], _GETS):
            value: Any = code[i - 1].argval
            return value[-1] if isinstance(value, tuple) else value
    return None


def _call_after(code: list[dis.Instruction], i: int) -> int:
    for n in range(i, min(len(code), i + 16)):
        if code[n].opname in ("CALL", "CALL_KW", "CALL_FUNCTION_EX"):
            return n
    return i
