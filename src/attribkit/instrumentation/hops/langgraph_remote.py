"""LangGraph over HTTP: a run that is asked of an own service says in its config metadata who it is for.

`RemoteGraph` and the clients of langgraph_sdk ask for runs in the same few methods. The fields go into the body only
when the service is one of the peers named in the settings; the signed carrier in its headers is the peers' patch's to
add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attribkit import faults
from attribkit.attribution import Attribution
from attribkit.context import in_force
from attribkit.instrumentation.hops.runnables import made_here
from attribkit.instrumentation.patching import Patch

if TYPE_CHECKING:
    from attribkit.instrumentation.hops.peers import Peers

__all__ = ["patches"]

_ASKING = ("stream", "create", "wait")


def _told(config: Any, attribution: Attribution) -> dict[str, Any]:
    """Return a run's config with the fields in its metadata, beside the app's own keys, which stay as they are."""
    given = config if isinstance(config, Mapping) else {}
    metadata = given.get("metadata")
    own = metadata if isinstance(metadata, Mapping) else {}
    return {**given, "metadata": {**attribution.as_dict(), **own}}


class _Remote:
    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def _attribution(self, client: Any) -> Attribution | None:
        """Return what is in force, None when there is nothing or `client` does not ask a peer."""
        attribution = in_force().attribution
        if not attribution or self._peers.audience(str(client.http.client.base_url)) is None:
            return None
        return attribution

    def asked(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            attribution = self._attribution(instance)
            if attribution is not None:
                kwargs = {**kwargs, "config": _told(kwargs.get("config"), attribution)}
        except Exception as fault:
            faults.note("langgraph_sdk.config", fault)
        return made_here(wrapped, instance, args, kwargs)

    def asked_many(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            attribution = self._attribution(instance)
            if attribution is not None and args:
                each = [{**payload, "config": _told(payload.get("config"), attribution)} for payload in args[0]]
                args = (each, *args[1:])
        except Exception as fault:
            faults.note("langgraph_sdk.config", fault)
        return made_here(wrapped, instance, args, kwargs)


def patches(own: Peers) -> tuple[Patch, ...]:
    """Return the rows for runs that are asked of peers."""
    remote = _Remote(own)

    def row(path: str, wrapper: Any) -> Patch:
        return Patch("langgraph_sdk.client", path, wrapper, "langgraph", "langgraph-sdk")

    return (
        *(row(f"{kind}RunsClient.{name}", remote.asked) for kind in ("", "Sync") for name in _ASKING),
        *(row(f"{kind}RunsClient.create_batch", remote.asked_many) for kind in ("", "Sync")),
        *(
            row(f"{kind}CronClient.{name}", remote.asked)
            for kind in ("", "Sync")
            for name in ("create", "create_for_thread")
        ),
    )
