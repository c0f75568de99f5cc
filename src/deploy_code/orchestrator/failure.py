"""Turns an error into a failure report, before the rollback wipes the evidence (DESIGN §1.5)."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from deploy_code.codec import from_data, to_data
from deploy_code.errors import DeployCodeError, title
from deploy_code.model import Instance, Phase
from deploy_code.orchestrator.operations import NotReadyError
from deploy_code.orchestrator.report import FailureReport

if TYPE_CHECKING:
    from deploy_code.orchestrator.executor import Outcome
    from deploy_code.orchestrator.parts import Parts
    from deploy_code.plan.plan import Plan
    from deploy_code.platforms.base import Platform
    from deploy_code.security.redact import Redactor

LOG_LINES = 20

E = TypeVar("E", bound=DeployCodeError)


def scrub(error: E, redactor: Redactor) -> E:
    """The same error without secrets, whatever it quotes."""
    for name in ("message", "meaning", "remedy"):
        setattr(error, name, redactor.clean(getattr(error, name)))
    for problem in getattr(error, "problems", ()):
        problem.message, problem.remedy = redactor.clean(problem.message), redactor.clean(problem.remedy)
    return error


@contextmanager
def scrubbed(redactor: Callable[[], Redactor]) -> Iterator[None]:
    """Whatever is raised in this block has no secrets in it."""
    try:
        yield
    except DeployCodeError as exc:
        scrub(exc, redactor())
        raise


def out_of_time(platform: Platform, plan: Plan, outcome: Outcome) -> Iterator[tuple[str, DeployCodeError]]:
    """Who was under way when the time of the whole deployment ran out, as (service, error)."""
    for name in sorted(outcome.started - outcome.done - outcome.failures.keys()):
        if name:
            goal = plan.after.get(name)
            found = [each for each in platform.instances(name) if goal is None or each.revision == goal.revision]
            waiting = [each for each in found if each.phase not in (Phase.READY, Phase.COMPLETED)]
            first = next(iter(waiting), None)
            said = f": {first.note}" if first is not None and first.note else ""
            message = f"{name} was still under way when the time of the whole deployment ran out{said}"
            yield name, NotReadyError(message, service=name, code="E008", instance=first)


async def evidence(
    parts: Parts, plan: Plan, failures: Mapping[str, DeployCodeError], outcome: Outcome
) -> AsyncIterator[FailureReport]:
    """A report of each failed service, in the order in which they failed."""
    for service, error in failures.items():
        skipped = [name for name, root in outcome.skipped.items() if root == service and _needs(plan, name, root)]
        yield await explain(parts, service, error, tuple(sorted(skipped)))


def skip_error(plan: Plan, name: str, root: str) -> str:
    """Why ``name`` was left alone, led by E007."""
    if plan.kind == "stop":
        return f"{title('E007')}: {name} was not stopped: {root}, which has to go first, is still there"
    if _needs(plan, name, root):
        return f"{title('E007')}: {name} was not started: {root}, which it needs, failed"
    return f"{title('E007')}: {name} was not touched: {root or 'the strategy'} failed before its turn came"


def _needs(plan: Plan, name: str, root: str) -> bool:
    """Does it depend on ``root``, directly or not?"""
    seen, todo = {name}, [name]
    while todo:
        goal = plan.after.get(todo.pop())
        for each in goal.spec.policy.dependencies if goal else ():
            if each.service == root:
                return True
            if each.service not in seen:
                seen.add(each.service)
                todo.append(each.service)
    return False


async def explain(parts: Parts, service: str, error: DeployCodeError, skipped: tuple[str, ...]) -> FailureReport:
    """Root cause and evidence of one failed service. Never raises for evidence that cannot be had."""
    instance = error.instance if isinstance(error, NotReadyError) else None
    report = FailureReport(
        service=service,
        code=error.code,
        message=error.text,
        skipped=skipped,
        remedies=tuple(_remedies(parts, service, error, instance)),
    )
    if instance is None:
        return _redacted(parts, report)
    listening = await _listening(parts, instance)
    report = FailureReport(
        service=service,
        code=error.code,
        message=error.text,
        instance=f"{service} r{instance.revision} #{instance.index}",
        exit=instance.exit,
        probe=instance.probe,
        log_lines=_log_lines(parts, instance),
        log_path=instance.log_path,
        listening=listening,
        skipped=skipped,
        remedies=tuple(_remedies(parts, service, error, instance, listening)),
    )
    return _redacted(parts, report)


def _redacted(parts: Parts, report: FailureReport) -> FailureReport:
    return from_data(FailureReport, parts.redactor.clean_data(to_data(report)))


async def _listening(parts: Parts, instance: Instance) -> tuple[str, ...]:
    try:
        found = await parts.platform.inspect(instance)
    except DeployCodeError as exc:
        parts.warn(f"what {instance.service} listens on could not be found out: {exc}", service=instance.service)
        return ()
    return tuple(found.get("listening", ()))


def _log_lines(parts: Parts, instance: Instance) -> tuple[str, ...]:
    from deploy_code.logs.read import read_from

    if not instance.log_path:
        return ()
    try:
        return tuple(read_from(instance.log_path, instance.log_offset, LOG_LINES))
    except (OSError, ValueError) as exc:
        parts.warn(f"the log of {instance.service} could not be read: {exc}", service=instance.service)
        return ()


def _remedies(
    parts: Parts, service: str, error: DeployCodeError, instance: Instance | None, listening: tuple[str, ...] = ()
) -> list[str]:
    found = [error.remedy] if error.remedy else []
    if error.code == "E006" and instance is not None:
        found.extend(_about_ports(service, instance, listening))
    if instance is not None and instance.exit is not None and instance.exit.out_of_memory:
        found.append(f"Raise services.{service}.resources.memory_mb, or let {service} need less memory")
    if error.code == "E005" and instance is not None and instance.exit is not None and instance.exit.code == 0:
        found.append(f"If {service} is meant to run to its end: write services.{service}.one_shot: true")
    if instance is not None:
        found.append(f"See more of its log: {_command(parts, 'logs', service)}")
    return found


def _about_ports(service: str, instance: Instance, listening: tuple[str, ...]) -> Iterator[str]:
    """Where it listens, if nobody can find it there. A container binds what its image makes it bind."""
    is_inside = bool(instance.address)
    ports = {str(number) for number in instance.ports.values()}
    if ports and listening and not any(each.rpartition(":")[2] in ports for each in listening):
        remedy = "correct `ports`" if is_inside else "let it take its port from ${PORT}, or correct `ports`"
        where = f"{', '.join(listening)}, but is expected on port {', '.join(sorted(ports))}"
        yield f"{service} listens on {where}: {remedy}"
    elif is_inside and listening and all(map(_is_loopback, listening)):
        yield f"{service} listens on the loopback of its container only, where nobody reaches it: have it bind 0.0.0.0"


def _is_loopback(listening: str) -> bool:
    return listening.partition(" ")[2].startswith(("127.", "[::1]"))


def _command(parts: Parts, *words: str) -> str:
    """A command for people to copy: the same files as this run, as seen from here."""
    files = [os.path.relpath(each) for each in parts.identity.files if not each.endswith("/")]
    named = [word for each in files for word in ("-c", shlex.quote(each))] or ["--project", parts.identity.name]
    if files == ["deploy-code.yaml"]:
        named = []
    return " ".join(("deploy-code", *named, *words))
