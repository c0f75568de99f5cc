"""One short coroutine per kind of step: changes the wanted set, then waits for the states that come back.

Nothing here decides what is to be done, and nothing here starts a process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deploy_code.drivers.engine.order import ENGINE
from deploy_code.errors import CATALOGUE, DeploymentError
from deploy_code.model import OWN_TYPES, Gate, Instance, Phase, Wanted
from deploy_code.plan.plan import Clear, Goal, Remove, Run, Settle, Step, Update, WaitReady, Want
from deploy_code.platforms.base import Platform

DEAD = (Phase.EXITED, Phase.FAILED, Phase.BACKOFF)
SWEEP_SECONDS = 30.0  # what the agent may take on top of a stop time-out to kill and sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every operation may look at. ``timeout``: of one gate, in seconds.

    ``again``: this deployment has walked before (its rollback, a recovery), so that the agent takes what is wanted for
    a repetition and leaves alone what is dead. ``forced``: services whose gate stayed shut and was passed by force.
    """

    platform: Platform
    deployment: int
    goals: Mapping[str, Goal]  # what is to be
    old: Mapping[str, Goal]  # what was
    present: Mapping[str, Collection[int]]  # revisions found at the beginning
    timeout: float
    again: bool = False
    force: bool = False
    forced: set[str] = field(default_factory=set)
    stop_timeout: float | None = None
    port_range: tuple[int, int] = (30000, 40000)
    forget: bool = False  # what cannot be stopped is not kept any more
    warn: Callable[..., None] = field(default=lambda *_args, **_kw: None)


class NotReadyError(DeploymentError):
    """A gate did not open. ``instance`` is the one that kept it shut, as last seen."""

    def __init__(self, message: str, *, service: str, code: str, instance: Instance | None = None) -> None:
        super().__init__(message, service=service, code=code)
        self.instance = instance


async def perform(context: Context, step: Step) -> None:
    """Do one step. Raises DeploymentError (E005, E006, E008) or AgentError."""
    await _OPERATIONS[type(step)](context, step)


async def want(context: Context, step: Want) -> None:
    if step.replicas == 0:
        await _take_away(context, step.service, {step.revision})
        return
    wanted = _wanted_of(context, step)
    if context.again:
        await _clear_dead(context, wanted)
    await _want(context, wanted)
    await _without_surplus(context, step)


async def wait_ready(context: Context, step: WaitReady) -> None:
    if not step.gated:
        context.warn(
            f"{step.service} r{step.revision} was not healthy before: restored, not waited for",
            service=step.service,
        )
        return
    try:
        await _until_ready(context, step)
    except NotReadyError as exc:
        if not context.force or exc.code != "E006":
            raise
        context.forced.add(step.service)
        context.warn(f"{exc} (forced: its dependents start all the same)", service=step.service)


async def run(context: Context, step: Run) -> None:
    wanted = _wanted(context.goals[step.service])
    await _want(context, wanted, rerun=(step.service,) if step.again else ())
    try:
        async with asyncio.timeout(context.timeout):
            await _until_completed(context, step)
    except TimeoutError as exc:
        raise NotReadyError(
            f"one-shot {step.service} did not end within {context.timeout:g} s",
            service=step.service,
            code="E008",
            instance=_latest(context, step.service, step.revision),
        ) from exc


async def update(context: Context, step: Update) -> None:
    await _want(context, _wanted(context.goals[step.service]))


async def remove(context: Context, step: Remove) -> None:
    seen = {each.revision for each in context.platform.instances(step.service)}
    await _take_away(context, step.service, seen | set(context.present.get(step.service, ())))


async def clear(context: Context, step: Clear) -> None:
    await context.platform.clear(step.instances)


async def settle(context: Context, step: Settle) -> None:
    """Nothing to do: that the steps before it are done is all it says."""


_OPERATIONS: dict[type[Step], Any] = {
    Want: want,
    WaitReady: wait_ready,
    Run: run,
    Update: update,
    Remove: remove,
    Clear: clear,
    Settle: settle,
}


# ------------------------------------------------------------------------------------------------------------- pieces


def _wanted_of(context: Context, step: Want) -> Wanted:
    """As the step says; a rollout that keeps old ones beside the new wants a number of the old revision, too."""
    old = context.old.get(step.service)
    goal = context.goals.get(step.service) or old
    if old is not None and old.revision == step.revision and (goal is None or goal.revision != step.revision):
        goal = old
    if goal is None:
        raise DeploymentError(f"nothing is known of {step.service} r{step.revision}", service=step.service)
    return replace(_wanted(goal), replicas=step.replicas)


def _wanted(goal: Goal) -> Wanted:
    return Wanted(
        service=goal.spec.name,
        revision=goal.revision,
        replicas=goal.replicas,
        content=goal.spec.content,
        policy=goal.spec.policy,
        secrets=goal.spec.secrets,
    )


async def _want(context: Context, *wanted: Wanted, rerun: tuple[str, ...] = ()) -> None:
    await context.platform.want(
        context.deployment,
        wanted,
        stop_timeout=context.stop_timeout,
        rerun=rerun,
        port_range=context.port_range,
        forget=context.forget,
        start_timeout=context.timeout,
    )


async def _take_away(context: Context, service: str, revisions: set[int]) -> None:
    """No instance of these revisions any more, nor anything one of them left behind."""
    if not revisions:
        return
    await _want(context, *(Wanted(service=service, revision=each, replicas=0) for each in sorted(revisions)))
    await _until_left(context, service, lambda found: not any(each.revision in revisions for each in found))


async def _clear_dead(context: Context, wanted: Wanted) -> None:
    """Take away what cannot get ready any more, so that it is started afresh."""
    found = _of_revision(context, wanted.service, wanted.revision)
    if not any(_is_hopeless(each) for each in found):
        return
    ready = {each.uuid for each in found if each.phase is Phase.READY}
    await _want(context, replace(wanted, replicas=min(len(ready), wanted.replicas)))
    going = {each.uuid for each in found} - ready
    await _until_left(context, wanted.service, lambda now: going.isdisjoint(each.uuid for each in now))


async def _without_surplus(context: Context, step: Want) -> None:
    """Scaling down is done when the surplus is gone; its end must not be taken for that of an instance that stays."""

    def fits(found: tuple[Instance, ...]) -> bool:
        return sum(1 for each in found if each.revision == step.revision) <= step.replicas

    await _until_left(context, step.service, fits)


async def _until_left(context: Context, service: str, enough: Callable[[tuple[Instance, ...]], bool]) -> None:
    """Wait until what must go is gone. Raises DeploymentError E008; E014 for what nobody can stop."""
    bound = _stop_bound(context, service)
    try:
        async with asyncio.timeout(bound):
            while not enough(found := context.platform.instances(service)):
                if not context.forget:
                    _raise_if_unreachable(service, found)
                await context.platform.changed(service)
    except TimeoutError as exc:
        notes = [each.note for each in context.platform.instances(service) if each.note]
        raise DeploymentError(
            f"{service} is still there {bound:g} s after it was told to stop" + (f": {notes[0]}" if notes else ""),
            service=service,
            code="E008",
            remedy=f"See it with `deploy-code status --detailed`, then run `deploy-code stop --services {service}`; "
            "with --force, what cannot be stopped is forgotten",
        ) from exc


def _raise_if_unreachable(service: str, instances: tuple[Instance, ...]) -> None:
    """What nobody can ask, a custom type or a runtime that is away: it is told to stop as soon as somebody can, which
    nobody waits for."""
    for each in instances:
        code, note = _split_code(each.note)
        if each.phase is Phase.UNKNOWN and code:
            is_container = ENGINE in each.handler
            who = "Start the container runtime" if is_container else "Run the program that registers the type"
            raise DeploymentError(
                f"{service} r{each.revision} #{each.index}: {note}",
                service=service,
                code=code,
                remedy=f"{who}, and it is stopped; or forget it: `deploy-code stop --services {service} --force`",
            )


def _stop_bound(context: Context, service: str) -> float:
    goal = context.old.get(service) or context.goals.get(service)
    own = goal.spec.policy.stop_timeout_seconds if goal else 30.0
    return (own if context.stop_timeout is None else context.stop_timeout) + SWEEP_SECONDS


async def _until_ready(context: Context, step: WaitReady) -> bool:
    """The gate; whether it had to be waited for.

    Its deadline is reset only by a new maximum of ready instances (DESIGN §6).
    """
    best, waited, loop = 0, False, asyncio.get_running_loop()
    deadline = loop.time() + context.timeout
    while True:
        instances = _of_revision(context, step.service, step.revision)
        raise_if_hopeless(step.service, instances)
        ready = sum(1 for each in instances if each.phase is Phase.READY)
        if ready >= step.replicas:
            return waited
        waited = True
        if ready > best:
            best, deadline = ready, loop.time() + context.timeout
        try:
            async with asyncio.timeout_at(deadline):
                await context.platform.changed(step.service)
        except TimeoutError as exc:
            raise _too_late(context, step, ready) from exc


def _too_late(context: Context, step: WaitReady, ready: int) -> NotReadyError:
    waiting = [each for each in _of_revision(context, step.service, step.revision) if each.phase is not Phase.READY]
    away = _runtime_away(context.platform.instances(step.service))
    return NotReadyError(
        f"{step.service} r{step.revision} is not ready after {context.timeout:g} s ({ready} of {step.replicas} ready)"
        + (f": {away}" if away else _stuck(context, waiting)),
        service=step.service,
        code="E014" if away else "E006",
        instance=waiting[0] if waiting else None,
    )


def _runtime_away(instances: tuple[Instance, ...]) -> str:
    """What any of them says of a runtime that does not answer: the one that is to go holds up the one to come."""
    notes = (_split_code(each.note) for each in instances if each.phase is not Phase.READY)
    return next((note for code, note in notes if code == "E014"), "")


def _stuck(context: Context, waiting: list[Instance]) -> str:
    """Where the first one hangs, and in whose code; of what is probed the last answer is in the report."""
    first = waiting[0] if waiting else None
    if first is None or first.probe is not None or not first.note:
        return ""
    goal = context.goals.get(first.service)
    content = goal.spec.content if goal else None
    if content is None or content.service_type in OWN_TYPES:
        return f": {first.note}"
    return f': {first.note}; service_type "{content.service_type}" ({content.handler or "registered in code"})'


def raise_if_hopeless(service: str, instances: tuple[Instance, ...]) -> None:
    """A dead instance or a gate that the agent has given up on ends the wait at once."""
    for each in instances:
        if each.phase in DEAD:
            raise _died(service, each)
    for each in instances:
        if each.phase is Phase.UNKNOWN:
            code, note = _split_code(each.note)
            raise NotReadyError(
                f"{service} r{each.revision} #{each.index} cannot be asked: {note}",
                service=service,
                code=code or "E014",
                instance=each,
            )
    for each in instances:
        if each.gate is Gate.FAILED:
            raise NotReadyError(
                f"{service} r{each.revision} #{each.index} did not become ready: {_probe_said(each)}",
                service=service,
                code="E006",
                instance=each,
            )


def _is_hopeless(instance: Instance) -> bool:
    return instance.phase in DEAD or instance.gate is Gate.FAILED


def _probe_said(instance: Instance) -> str:
    """The last answer in a few words; all of it is in the report."""
    if instance.probe is None:
        return instance.note or "its health check kept failing"
    detail = instance.probe.detail.splitlines()[0] if instance.probe.detail else "failed"
    return f"{instance.probe.target}: {detail[:120]}"


def _died(service: str, instance: Instance) -> NotReadyError:
    code, note = _split_code(instance.note)
    end = f" ({instance.exit})" if instance.exit is not None else ""
    if instance.exit is not None:
        note = note.removeprefix(str(instance.exit)).lstrip("; ")  # said already
    said = f": {note}" if note else ""
    verb = "ended before it was ready" if instance.exit is not None else "could not be started"
    return NotReadyError(
        f"{service} r{instance.revision} #{instance.index} {verb}{end}{said}",
        service=service,
        code=code or "E005",
        instance=instance,
    )


def _split_code(note: str) -> tuple[str, str]:
    """``"E003 no such command"`` → ``("E003", "no such command")``; the agent leads a note by its code, if any."""
    head, _, rest = note.partition(" ")
    head = head.rstrip(":")
    if head not in CATALOGUE:
        return "", note
    name, colon, tail = rest.partition(": ")
    return head, tail if colon and name == CATALOGUE[head].name else rest


async def _until_completed(context: Context, step: Run) -> None:
    while True:
        for each in _of_revision(context, step.service, step.revision):
            if each.phase is Phase.COMPLETED:
                return
            if each.phase in DEAD:
                raise _one_shot_failed(step, each)
        await context.platform.changed(step.service)


def _one_shot_failed(step: Run, instance: Instance) -> NotReadyError:
    code, note = _split_code(instance.note)
    end = f" ({instance.exit})" if instance.exit is not None else ""
    if instance.exit is not None:
        note = note.removeprefix(str(instance.exit)).lstrip("; ")  # said already
    said = f": {note}" if note else ""
    return NotReadyError(
        f"one-shot {step.service} r{step.revision} did not complete{end}{said}",
        service=step.service,
        code=code or "E005",
        instance=instance,
    )


def _of_revision(context: Context, service: str, revision: int) -> tuple[Instance, ...]:
    return tuple(each for each in context.platform.instances(service) if each.revision == revision)


def _latest(context: Context, service: str, revision: int) -> Instance | None:
    found = _of_revision(context, service, revision)
    return found[-1] if found else None


async def ready_together(context: Context, services: Collection[str]) -> None:
    """Phase "health": all of these have been ready, together, for their ``min_ready_seconds``."""
    waited = True
    while waited:  # whoever was looked at first must still be ready when the last one is
        waited = False
        for service in sorted(services):
            waited |= await _proven(context, context.goals[service])


async def are_ready(context: Context, services: Collection[str]) -> bool:
    """Whether all of these are ready now, and stay so for their ``min_ready_seconds``; nothing else is waited for."""
    while all(_is_ready_now(context, context.goals[name]) for name in services):
        left = max((_still_to_prove(context, context.goals[name]) for name in services), default=0.0)
        if left <= 0:
            return True
        await _changed_or(context, services, left)
    return False


def _is_ready_now(context: Context, goal: Goal) -> bool:
    found = _of_revision(context, goal.spec.name, goal.revision)
    return sum(1 for each in found if each.phase is Phase.READY) >= goal.replicas


async def _changed_or(context: Context, services: Collection[str], seconds: float) -> None:
    """Until any of these has changed, at most for so long."""
    changes = [asyncio.ensure_future(context.platform.changed(name)) for name in services]
    try:
        await asyncio.wait(changes, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in changes:
            each.cancel()
        await asyncio.wait(changes)


async def _proven(context: Context, goal: Goal) -> bool:
    """Wait until one service has been ready for long enough; whether that took any time."""
    service, waited = goal.spec.name, False
    step = WaitReady(id="", service=service, revision=goal.revision, replicas=goal.replicas)
    while True:
        waited |= await _until_ready(context, step)
        left = _still_to_prove(context, goal)
        if left <= 0:
            return waited
        waited = True
        try:
            async with asyncio.timeout(left):
                await context.platform.changed(service)
        except TimeoutError:
            continue  # nothing changed for as long as was left to prove: look again, and find it proven


def _still_to_prove(context: Context, goal: Goal) -> float:
    since = [
        each.ready_at for each in _of_revision(context, goal.spec.name, goal.revision) if each.phase is Phase.READY
    ]
    newest = max(since, default=time.time())
    return newest + goal.spec.policy.min_ready_seconds - time.time()
