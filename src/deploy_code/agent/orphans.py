"""Containers that are ours by their labels and wanted by nobody: what an agent finds that its records know nothing of.

That comes of an engine that went away in the middle of a start which nobody waits for any more, of one that was
forgotten by force, or of a state that was restored from a backup. So they are looked for whenever an engine is back.
"""

from __future__ import annotations

from deploy_code.errors import DeployCodeError

from .keeper import Keeper

STOP_SECONDS = 10.0


async def remove_orphans(keeper: Keeper) -> None:
    """Stop and remove them; what cannot be is told."""
    for driver in keeper.drivers.containers:
        try:
            found = await driver.orphans({each.uuid for each in keeper.instances()})
            for running in found:
                if keeper.supervisor(running.uuid) is None:  # not one that has come meanwhile
                    await driver.stop(running, "SIGTERM", STOP_SECONDS)
                    keeper.journal.trouble(f"removed a container that nobody wants: instance {running.uuid}")
        except DeployCodeError as exc:
            keeper.journal.trouble(f"containers that nobody wants could not be looked for: {exc}")
