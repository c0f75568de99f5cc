"""A real agent over a real state, driven as the engine drives it but without the engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deploy_code.codec import to_data
from deploy_code.model import (
    Content,
    Directories,
    HealthCheck,
    Identity,
    Instance,
    Phase,
    Policy,
    Port,
    Restart,
    ServiceSpec,
    Wanted,
)
from deploy_code.platforms.local import LocalPlatform
from deploy_code.platforms.spawn import agent_status
from deploy_code.state.lock import DeployLock
from deploy_code.state.rows import NewDeployment
from deploy_code.state.store import Store
from support.leftovers import AGENT, kill, leftovers
from support.wait import wait_until

QUICK = HealthCheck(interval_seconds=0.2, timeout_seconds=1.0, retries=2)


def sleeper(**fields: object) -> Content:
    """A service that does nothing, for a long time."""
    return Content(command="/bin/sleep", args=("1000",), **fields)  # type: ignore[arg-type]


def shell(script: str, **fields: object) -> Content:
    return Content(command="/bin/sh", args=("-c", script), **fields)  # type: ignore[arg-type]


def web(port: int, **fields: object) -> Content:
    """busybox httpd on a fixed port."""
    args = ("httpd", "-f", "-p", f"127.0.0.1:{port}")
    return Content(command="busybox", args=args, ports=(Port(container_port=port),), **fields)  # type: ignore[arg-type]


def python(script: str, **fields: object) -> Content:
    return Content(command=sys.executable, args=("-u", "-c", script), **fields)  # type: ignore[arg-type]


class House:
    """One project: its state, and a platform to its agent. ``deployment`` is the one in progress."""

    def __init__(self, folder: Path, name: str = "shop") -> None:
        self.state = folder / "state"
        self.logs = folder / "logs"
        directories = Directories(state=str(self.state), logs=str(self.logs))
        self.store = Store.create(
            self.state,
            name=name,
            file=str(folder / "deploy-code.yaml"),
            environment="development",
            log_dir=str(self.logs),
        )
        self.platform = LocalPlatform(Identity(name=name, directories=directories))
        self.lock = DeployLock(self.state)
        self.lock.acquire("deploy-code deploy")
        self.deployment = self.begin()

    def begin(self) -> int:
        """A new deployment in progress."""
        return self.store.begin_deployment(NewDeployment(kind="deploy", who="test", before={}, after={}, services=()))

    def end(self, status: str = "completed") -> None:
        """The deployment in progress is over."""
        self.store.finish_deployment(self.deployment, status=status, good=True, report={})

    def wanted(self, name: str, content: Content, *, replicas: int = 1, revision: int = 1, **policy: object) -> Wanted:
        """Records the revision as the engine does, and says what is wanted."""
        policy.setdefault("health", QUICK)
        policy.setdefault("stop_timeout_seconds", 5.0)
        value = Policy(replicas=replicas, **policy)  # type: ignore[arg-type]
        spec = ServiceSpec(name=name, content=content, policy=value)
        self.store.put_revisions([(revision, spec)])
        return Wanted(service=name, revision=revision, replicas=replicas, content=content, policy=value)

    async def want(self, *wanted: Wanted, **options: object) -> None:
        await self.platform.want(self.deployment, wanted, **options)  # type: ignore[arg-type]

    async def stop(self, *wanted: Wanted) -> None:
        nothing = [Wanted(service=each.service, revision=each.revision, replicas=0) for each in wanted]
        await self.want(*nothing)
        for each in wanted:
            await self.until(each.service, lambda found: not found)

    async def settle(self) -> None:
        await self.platform.settle(self.deployment)

    async def until(
        self, service: str, condition: Callable[[tuple[Instance, ...]], object], timeout: float = 15.0
    ) -> tuple[Instance, ...]:
        """The instances of ``service`` once they are as ``condition`` says."""
        try:
            async with asyncio.timeout(timeout):
                while not condition(found := self.platform.instances(service)):
                    await self.platform.changed(service)
        except TimeoutError:
            raise AssertionError(f"{service} after {timeout} s: {self.platform.instances(service)}") from None
        return found

    async def phase(self, service: str, *phases: Phase, count: int = 1, timeout: float = 15.0) -> Instance:
        """The first instance once ``count`` are in one of ``phases``."""
        found = await self.until(service, lambda all_: sum(each.phase in phases for each in all_) >= count, timeout)
        return next(each for each in found if each.phase in phases)

    async def ready(self, service: str, count: int = 1, timeout: float = 15.0) -> Instance:
        return await self.phase(service, Phase.READY, count=count, timeout=timeout)

    async def eventually(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """``wait_until`` that lets the loop go on."""
        await asyncio.to_thread(wait_until, condition, timeout)

    async def mirrored(self) -> None:
        """What the stream says is in the rows too; they follow within some milliseconds."""

        def same() -> bool:
            rows = {row.uuid: row for row in self.store.instances()}
            return rows == {each.uuid: each for each in self.platform._mirror.all()}

        await self.eventually(same)

    async def end_agent(self) -> None:
        """Kill the agent with nobody there to start it again."""
        await self.mirrored()
        await self.platform.close()
        self.kill_agent()

    def agent_pid(self) -> int:
        info = agent_status(str(self.state))
        assert info is not None, "no agent serves"
        return info.pid

    def kill_agent(self) -> int:
        """SIGKILL; returns once the kernel has freed its lock."""
        pid = self.agent_pid()
        fd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        import select

        select.select([fd], [], [], 10)
        os.close(fd)
        return pid

    def events(self) -> list[str]:
        return [row.name for row in self.store.events() if row.source == "agent"]

    def rewrite(self, instance: Instance) -> None:
        """Change a row behind the agent's back, as a crash in the middle would leave it."""
        import json
        import sqlite3

        with sqlite3.connect(self.state / "state.db") as db:
            db.execute(
                "INSERT OR REPLACE INTO instances (uuid, service, revision, state) VALUES (?, ?, ?, ?)",
                (instance.uuid, instance.service, instance.revision, json.dumps(to_data(instance))),
            )
        db.close()

    async def close(self) -> None:
        """End what is left of instances and agent."""
        await self.platform.close()
        self.lock.release()
        self.store.close()
        folder = self.state.parent
        kill([each for each in leftovers(folder) if AGENT in each.command])  # first: it would restart the others
        kill(leftovers(folder))


FAST_RESTART = Restart(backoff_seconds=0.05, backoff_max_seconds=0.2, reset_after_seconds=5.0)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def since(began: float) -> float:
    return time.monotonic() - began
