"""Waits until the state says of instances what the stream said: who asks after a deployment must not read older news.

The agent writes the rows of instances a moment after it has told of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from deploy_code.model import Phase

if TYPE_CHECKING:
    from deploy_code.orchestrator.parts import Parts

MIRROR_SECONDS = 1.0  # an instance that changes all the time must not hold up the end of a deployment
LOOK_SECONDS = 0.1  # where the folder of the state cannot be watched


async def mirrored(parts: Parts) -> None:
    """Return when state and stream agree on every phase, or after a second."""
    from deploy_code.state.watch import StateWatch

    with StateWatch(parts.identity.directories.state) as watch:
        try:
            async with asyncio.timeout(MIRROR_SECONDS):
                while not await _agree(parts):
                    await watch.changed(LOOK_SECONDS)
        except TimeoutError:
            return


async def _agree(parts: Parts) -> bool:
    told = {each.uuid: str(each.phase) for each in await parts.platform.observe()}
    rows = {row["uuid"]: row.get("phase", str(Phase.STARTING)) for row in parts.store.instance_data()}
    return told == rows
