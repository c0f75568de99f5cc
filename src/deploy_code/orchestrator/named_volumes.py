"""The volumes that a project's file names: nothing removes them but ``stop --volumes``, which asks first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deploy_code.orchestrator import engine_leavings
from deploy_code.orchestrator.leavings import Leaving, Leavings
from deploy_code.orchestrator.prune import endpoints_of, engines
from deploy_code.state.lock import DeployLock
from deploy_code.state.store import Store

if TYPE_CHECKING:
    from deploy_code.drivers.engine.client import EngineClient
    from deploy_code.model import Identity


class NamedVolumes:
    """Of one project that was deployed."""

    def __init__(self, identity: Identity, *, environ: Mapping[str, str], origin: str = "python") -> None:
        self._state = identity.directories.state
        self._environ = environ
        self._origin = origin

    async def look(self) -> Leavings:
        """All of them, used or not. Raises EngineGoneError E014 where an engine cannot be asked."""
        with Store.open(self._state, read_only=True) as store:
            contents = [content for content, _ in store.contents(store.revisions()).values()]
        items = list[Leaving]()
        async with engines(self._environ) as known:
            for endpoint in endpoints_of(contents):
                items += await self._on(known.client(endpoint))
        return Leavings(items=tuple(sorted(items, key=lambda item: item.name)))

    async def _on(self, client: EngineClient) -> list[Leaving]:
        found = await engine_leavings.ours(client, "volumes", self._state)
        named = [str(each["Name"]) for each in found if engine_leavings.VOLUME in (each.get("Labels") or {})]
        return [
            Leaving(kind="volume", key=name, name=name, why="named in the file", engine=client.endpoint)
            for name in named
        ]

    async def remove(self, shown: Leavings, *, wait: bool = False) -> Leavings:
        """Remove those, once everything is stopped; what went, and in ``warnings`` what is still used.

        Raises LockedError E011 while somebody deploys; ``wait``: queue instead.
        """
        removed, warnings = list[Leaving](), list[str]()
        with DeployLock(self._state) as lock:
            await lock.acquire_async(self._origin, wait=wait)
            async with engines(self._environ) as known:
                for item in shown.items:
                    client = known.client(item.engine) if item.engine is not None else None
                    why = await engine_leavings.remove(client, item) if client is not None else ""
                    warnings += [why] if why else []
                    removed += [] if why else [item]
        return Leavings(items=tuple(removed), warnings=tuple(warnings))
