"""Says in the plan which limits of CPU, memory and processes will not be enforced on this machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploy_code.model import OWN_TYPES

if TYPE_CHECKING:
    from deploy_code.drivers.cgroup import Found
    from deploy_code.model import ServiceSpec
    from deploy_code.plan.plan import Plan

_STARTS = frozenset({"create", "replace", "start", "restart", "run", "scale"})
_NAMES_SHOWN = 8
_ANSWER_SECONDS = 1.0


def unenforced(plan: Plan, state: str = "") -> Iterator[str]:
    """Notes for the plan; none where control groups can be written.

    It is the agent that makes them, and under systemd it may make more than we could: so where we cannot, the agent
    that serves the project's folder ``state`` is looked at. Nothing is created.
    """
    specs = {name: each for name, each in _started(plan).items() if _has_limits(each)}
    yield from _of_custom_types(specs)
    asked = {name: each.content.resources for name, each in specs.items() if each.content.service_type == "process"}
    if not asked:
        return
    from deploy_code.drivers.cgroup import find

    found = find()
    if any(map(found.unenforced, asked.values())):
        found = _of_agent(state) or found
    missing: dict[str, list[str]] = defaultdict(list)
    for name, resources in sorted(asked.items()):
        if kinds := found.unenforced(resources):
            missing[kinds].append(name)
    for kinds, names in missing.items():
        word = "limits" if " and " in kinds else "limit"
        yield f"the {kinds} {word} of {_listed(names)} will not be enforced: {found.reason}"


def _of_custom_types(specs: dict[str, ServiceSpec]) -> Iterator[str]:
    """They start what they like, where they like: only they can keep it below the numbers."""
    names = [name for name, each in sorted(specs.items()) if each.content.service_type not in OWN_TYPES]
    if names:
        yield f"CPU and memory of {_listed(names)} are set aside, but not limited: that is for their service types"


def _started(plan: Plan) -> dict[str, ServiceSpec]:
    """What this plan starts, by service."""
    names = [name for name, action in plan.actions.items() if action in _STARTS and name in plan.after]
    return {name: plan.after[name].spec for name in names if not plan.after[name].stopped}


def _has_limits(spec: ServiceSpec) -> bool:
    resources = spec.content.resources
    return bool(resources.cpu_cores or resources.memory_mb or resources.pids)


def _of_agent(state: str) -> Found | None:
    """What the agent of this project may do; None while none serves."""
    from deploy_code.drivers.cgroup import find
    from deploy_code.errors import DeployCodeError
    from deploy_code.platforms.spawn import agent_status

    try:
        agent = agent_status(state, _ANSWER_SECONDS) if state else None
    except DeployCodeError:  # it hangs; what we may do ourselves is the best guess
        return None
    return find(agent.pid) if agent else None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
