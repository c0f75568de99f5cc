"""Removes what no rollback returns to any more: old revisions, their code and images, and what containers left behind.

Looked at first without the lock, so that it can be shown; removed under the lock is only what was shown and still may
be removed then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from deploy_code.drivers.engine.endpoint import Endpoint
from deploy_code.errors import DeployCodeError
from deploy_code.model import Content
from deploy_code.orchestrator import engine_leavings
from deploy_code.orchestrator.engine_leavings import Needed
from deploy_code.orchestrator.engines import Engines
from deploy_code.orchestrator.leavings import Leaving, Leavings, total
from deploy_code.orchestrator.retention import Pair, retained
from deploy_code.state.lock import DeployLock
from deploy_code.state.store import Store

if TYPE_CHECKING:
    from deploy_code.model import Identity

RELEASES = "releases"
Contents = Mapping[Pair, Content]


class Pruning:
    """For one project that was deployed. ``origin``: the command, for whoever waits for the lock.

    ``keep``: so many revisions of each service stay; None: as the last deployment's settings say.
    """

    def __init__(
        self, identity: Identity, *, environ: Mapping[str, str], origin: str = "python", keep: int | None = None
    ) -> None:
        self._keep = keep
        self._state = identity.directories.state
        self._environ = environ
        self._origin = origin

    async def look(self) -> Leavings:
        """What may be removed now. An engine that cannot be reached is a warning: what lies there stays."""
        with Store.open(self._state, read_only=True) as store:
            return await self._look(store)

    async def remove(self, shown: Leavings, *, wait: bool = False) -> Leavings:
        """Remove what was ``shown`` and still may go; what went, and in ``warnings`` what stays and why.

        Raises LockedError E011 while somebody deploys; ``wait``: queue instead.
        """
        with DeployLock(self._state) as lock:
            await lock.acquire_async(self._origin, wait=wait)
            with Store.open(self._state) as store:
                found = (await self._look(store)).only(shown)
                return await self._remove(store, found)

    # ------------------------------------------------------------------------------------------------------ looking

    async def _look(self, store: Store) -> Leavings:
        kept = retained(store, self._keep)
        contents = {pair: content for pair, (content, _) in store.contents(store.revisions()).items()}
        gone = {pair: content for pair, content in contents.items() if pair not in kept}
        staying = {pair: content for pair, content in contents.items() if pair in kept}
        revisions = Leavings(items=tuple(map(_revision, sorted(gone))))
        releases = Leavings(items=tuple(self._releases(staying)))
        return total([revisions, releases, *[each async for each in self._engines(store, contents, staying)]])

    def _releases(self, staying: Contents) -> Iterator[Leaving]:
        """Copies of code that no revision names, and copies that were never finished."""
        named = {content.release.digest for content in staying.values() if content.release is not None}
        folder = os.path.join(self._state, RELEASES)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name not in named:
                size = _size(os.path.join(folder, name))
                why = "a copy that was broken off" if name.startswith(".") else "code of no revision that is kept"
                yield Leaving(kind="release", key=name, name=name[:12], why=why, size=size)

    async def _engines(self, store: Store, contents: Contents, staying: Contents) -> AsyncIterator[Leavings]:
        endpoints = endpoints_of(contents.values())
        if not endpoints:
            return
        needed = self._needed(store, contents, staying)
        if needed.images is None:
            yield Leavings(warnings=("a project beside this one cannot be read: all images stay, some may be its own",))
        async with engines(self._environ) as known:
            for endpoint in endpoints:
                try:
                    yield await engine_leavings.look(known.client(endpoint), needed)
                except DeployCodeError as error:
                    yield Leavings(warnings=(f"{endpoint} was not looked at, what lies there stays: {error.message}",))

    def _needed(self, store: Store, contents: Contents, staying: Contents) -> Needed:
        named = {content.container.image_id for content in staying.values()}
        past = {content.container.image_id for content in contents.values()} | store.image_ids()
        builds = {content.container.build.digest for content in staying.values() if content.container.build}
        others = _named_by_others(self._state)
        return Needed(
            state=self._state,
            images=None if others is None else frozenset(named | others),
            builds=frozenset(builds),
            past=frozenset(past),
        )

    # ------------------------------------------------------------------------------------------------------ removing

    async def _remove(self, store: Store, found: Leavings) -> Leavings:
        """The record goes last: what was cut short is found again by the next prune."""
        removed, warnings = list[Leaving](), list(found.warnings)
        async with engines(self._environ) as known:
            for item in found.items:
                if item.engine is not None:
                    why = await engine_leavings.remove(known.client(item.engine), item)
                    warnings += [why] if why else []
                    removed += [] if why else [item]
        for item in found.items:
            if item.kind == "release":
                shutil.rmtree(os.path.join(self._state, RELEASES, item.key), ignore_errors=True)
                removed.append(item)
        revisions = [item for item in found.items if item.kind == "revision"]
        store.forget_revisions(_pair(item) for item in revisions)
        store.forget_images(item.key for item in removed if item.kind == "image")
        return Leavings(items=(*revisions, *removed), warnings=tuple(warnings))


@asynccontextmanager
async def engines(environ: Mapping[str, str]) -> AsyncIterator[Engines]:
    known = Engines(environ)
    try:
        yield known
    finally:
        await known.close()


def endpoints_of(contents: Iterable[Content]) -> list[Endpoint]:
    """The engines that revisions were made for."""
    found = {
        Endpoint(url=content.container.engine, tls=content.container.engine_tls)
        for content in contents
        if content.container.engine
    }
    return sorted(found, key=str)


def _revision(pair: Pair) -> Leaving:
    service, number = pair
    name = f"{service} r{number}"
    return Leaving(kind="revision", key=f"{number} {service}", name=name, why="older than what is kept")


def _pair(item: Leaving) -> Pair:
    number, _, service = item.key.partition(" ")
    return service, int(number)


def _size(path: str) -> int:
    """Bytes of all files in a folder."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def _named_by_others(state: str) -> set[str] | None:
    """Images that other projects beside this one name; None where one of them cannot be read."""
    named, home = set[str](), os.path.dirname(state)
    for name in sorted(os.listdir(home)):
        other = os.path.join(home, name)
        if other == state or not os.path.isdir(other):
            continue
        try:
            if Store.exists(other):
                with Store.open(other, read_only=True) as store:
                    contents = store.contents(store.revisions()).values()
                    named |= {content.container.image_id for content, _ in contents}
        except DeployCodeError:
            return None
    return named
