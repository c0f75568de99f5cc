"""When plugins hear of a service's rollout: before the first step that touches it, and once it is proven."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from deploy_code.plan.plan import Plan, Run, Step, WaitReady

if TYPE_CHECKING:
    from deploy_code.orchestrator.plugin_host import PluginHost

ROLLED_OUT = frozenset({"create", "replace", "start", "restart", "scale", "run"})


class RolloutHooks:
    """The hooks around the rollouts of one deployment, each once for each service."""

    def __init__(self, plugins: PluginHost, plan: Plan) -> None:
        self._plugins = plugins
        self._plan = plan
        self._before: dict[str, asyncio.Task[None]] = {}
        self._after: set[str] = set()

    async def before(self, step: Step) -> None:
        """Nothing of the service has been touched yet. Raises DeploymentError (E005) when a plugin refuses."""
        revision = self._revision(step)
        if revision is None or not self._plugins.has("before_service_rollout"):
            return
        task = self._before.get(step.service)
        if task is None or task.cancelled():
            call = self._plugins.before_rollout(step.service, revision)
            task = self._before[step.service] = asyncio.create_task(call, name=f"plugins before {step.service}")
        await task

    async def after(self, step: Step) -> None:
        """Its gate has opened: the last one, where there are several."""
        revision = self._revision(step)
        if revision is None or step.service in self._after or not self._is_last(step, revision):
            return
        self._after.add(step.service)
        await self._plugins.call("after_service_rollout", step.service, revision)

    def _revision(self, step: Step) -> int | None:
        """The one that is rolled out, None where none is."""
        goal = self._plan.after.get(step.service)
        is_rollout = self._plan.actions.get(step.service) in ROLLED_OUT
        return goal.revision if goal is not None and is_rollout else None

    def _is_last(self, step: Step, revision: int) -> bool:
        if isinstance(step, WaitReady):
            return step.revision == revision and step.replicas == self._plan.after[step.service].replicas
        return isinstance(step, Run)
