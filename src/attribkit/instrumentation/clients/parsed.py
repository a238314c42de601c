"""What a parsed reply says, whichever SDK parsed it: usage, model, tier and id of pydantic models and plain JSON."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from attribkit.calls import Reply
from attribkit.late import Late

if TYPE_CHECKING:
    from attribkit.usage import models
    from attribkit.usage.dialects import openai as usages
else:
    models, usages = Late("attribkit.usage.models"), Late("attribkit.usage.dialects.openai")

__all__ = ["KINDS", "kind_of", "of_parsed", "of_raw", "said_of"]

_UNKNOWN = Reply()[4:]
_SAID = ("usage", "model", "service_tier", "id")
_said = itemgetter(*_SAID)
_new = tuple.__new__
_KINDS_KEPT = 512
_CONTAINERS_KEPT = 4096
_containers: dict[str, None] = {}
KINDS: dict[type, str] = {}
"""What `kind_of` has said of each type of result."""


def kind_of(result: Any) -> str:
    """Return "later" for a result that is still to be read, "raw" for one that is read but not parsed."""
    found = KINDS.get(type(result))
    if found is None:
        # A stranger's proxy around a stream has a type of its own, and says that it is of the stream's class.
        names = {cls.__name__ for kind in (type(result), result.__class__) for cls in kind.__mro__}
        if names & {"Stream", "AsyncStream", "BaseAPIResponse"}:
            found = "later"
        else:
            found = "raw" if "LegacyAPIResponse" in names else "parsed"
        if len(KINDS) < _KINDS_KEPT:
            KINDS[type(result)] = found
    return found


def said_of(result: Any, raw: bool) -> tuple[Any, str, str | None, str] | None:
    """Return the usage, model, service tier and id that an ordinary chat reply states; None for any other reply."""
    try:
        if raw:
            result = result.parse()  # the SDK keeps its result: the caller's parse is then free
        said = _said(result.__dict__)
    except Exception:
        return None
    usage, model, tier, response_id = said
    if usage is None or type(model) is not str or type(response_id) is not str:
        return None
    return said if tier is None or type(tier) is str else None


def of_raw(result: Any) -> Reply:
    """Read a raw response through the SDK's own parse."""
    try:
        parsed = result.parse()
    except Exception:
        return Reply(http_status=result.status_code, problem="the reply could not be parsed")
    return of_parsed(parsed)


def of_parsed(result: Any) -> Reply:
    """Return the facts of a parsed reply, whatever type it has."""
    facts = result if type(result) is dict else getattr(result, "__dict__", None)
    if facts is None:
        return Reply(problem="the reply is not JSON" if isinstance(result, str) else None)
    try:
        said = _said(facts)
    except KeyError:
        said = tuple(map(facts.get, _SAID))
    usage, model, tier, response_id = said
    if usage is not None and facts.get("output"):
        usage = _with_tools(models.plain(usage), facts["output"], facts.get("tools"))
    if type(model) is not str or type(tier) is not str or type(response_id) is not str:
        model, tier, response_id = (each if type(each) is str else None for each in said[1:])
    return _new(Reply, (usage, model, tier, response_id, *_UNKNOWN))


def _with_tools(usage: Any, output: Any, tools: Any) -> Any:
    """Return a Responses usage with the tools in its output that are billed by the call. A code interpreter's container
    is billed once: to the call in which this process first sees it."""
    if type(output) is not list or type(usage) is not dict or "server_side_tool_usage_details" in usage:
        return usage
    calls = usages.tool_calls(output, tools)
    if not calls:
        return usage
    new = [one for one in calls.pop("code_containers", ()) if one not in _containers]
    if new:
        if len(_containers) >= _CONTAINERS_KEPT:
            _containers.clear()
        _containers.update(dict.fromkeys(new))
        calls["code_sessions"] = len(new)
    return {**usage, "server_side_tool_usage_details": calls}
