"""Puts the agent together, answers its socket, and ends when nothing is left to do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any, NamedTuple

from deploy_code._version import __version__
from deploy_code.drivers.custom import CustomDriver
from deploy_code.drivers.groups import Groups
from deploy_code.drivers.process import ProcessDriver
from deploy_code.drivers.proctree import boot_id
from deploy_code.drivers.reaper import become_subreaper, ignore_no_signals
from deploy_code.errors import AgentError
from deploy_code.logs.index import LogIndex
from deploy_code.model import Drifts
from deploy_code.state.connection import Connection as Database
from deploy_code.state.migrate import bring_up_to_date
from deploy_code.wire import DATABASE, PROTOCOL, AgentInfo, Hello, Inspection

from . import drift
from .adoption import take_over
from .boot import Booted, notify
from .breakers import agent_breakers
from .custom_site import CustomSite
from .drivers import Containers, Drivers
from .hosts import Hosts
from .housekeeping import Housekeeping
from .inspection import inspect, memory_bytes
from .journal import Journal
from .keeper import Keeper
from .launch import Folders, Launcher
from .orphans import remove_orphans
from .prober import raise_open_files_limit
from .records import Records, statements
from .recovery import Recovery
from .serve import Connection, Server, want_of
from .share import Share

log = logging.getLogger("deploy_code.agent")

LINGER_SECONDS = 5.0  # a new agent waits so long for whoever had it started
TIDY_SECONDS = 10.0
IDLE_SECONDS = 0.2  # an old one goes so soon after the last instance and the last connection


class Replacement(NamedTuple):
    """Another version asked for this agent: what takes its place."""

    python: str
    path: str
    version: str


class Agent:
    """One project's agent, from its first connection to its last."""

    def __init__(
        self,
        booted: Booted,
        project: str,
        *,
        keeper: Keeper,
        records: Records,
        journal: Journal,
        housekeeping: Housekeeping,
        hosts: Hosts,
        custom: CustomSite,
    ) -> None:
        self.replacement: Replacement | None = None
        self._booted = booted
        self._project = project
        self._keeper = keeper
        self._records = records
        self._journal = journal
        self._hosts = hosts
        self._custom = custom
        self._started_at = time.time()
        self._was_used = False
        self._done = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._server = Server(self._operations(), self._connection_closed)
        self._recovery = Recovery(booted.options.state, records.running_deployment, journal)
        self._housekeeping = housekeeping
        keeper.watchers.add(self._server.tell)
        keeper.on_change = self._consider_ending
        self._recovery.on_end = self._consider_ending

    async def run(self) -> None:
        """Serve until there is nothing to do, a signal, or a request to end. Instances stay."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._done.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        await self._server.open(self._booted.listener.dup())  # ours is for whoever replaces us
        self._keeper.breakers.limit(await self._records.breaker())
        await take_over(self._keeper, await self._records.load())
        self._look_for_orphans()
        await self._custom.look_at_all()
        self._server.admitted.set()
        notify("READY=1\nSTATUS=keeping what is wanted")
        gc.freeze()  # what lives as long as we do need not be looked at again
        gc.set_threshold(20_000, 20, 20)  # thousands of small values come at once when a deployment begins
        self._recovery.look()
        self._housekeeping.begin()
        self._consider_ending()
        await self._done.wait()
        await self._close()

    async def _close(self) -> None:
        notify("STOPPING=1")
        self._hosts.close()
        await self._recovery.close()
        await self._housekeeping.close()
        await self._server.close()
        await self._end_chores()
        await self._keeper.let_go()
        self._server.close_hosts()
        await self._records.close()

    async def _end_chores(self) -> None:
        for chore in self._chores:
            chore.cancel()
        if self._chores:
            await asyncio.wait(self._chores)
        if self._keeper.is_idle:
            await self._tidy()

    async def _tidy(self) -> None:
        """Networks of ours go with the last container; what cannot be removed now is found by the next agent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIDY_SECONDS):
                await self._keeper.drivers.containers.tidy()

    def _look_for_orphans(self) -> None:
        """Now, and whenever an engine is back; not before all that is known was taken over."""
        containers = self._keeper.drivers.containers
        containers.on_return = self._engine_returned
        if any(containers):
            self._engine_returned()

    def _engine_returned(self) -> None:
        """What could not be asked about can be; and something may run there that nobody wants any more."""
        self._keeper.engine_returned()
        self._recovery.hurry()
        self._do(remove_orphans(self._keeper), "remove orphans")

    def _do(self, chore: Coroutine[Any, Any, None], name: str) -> None:
        """Beside everything else, for as long as we live."""
        task = asyncio.get_running_loop().create_task(chore, name=name)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # -- operations

    def _operations(self) -> dict[str, Any]:
        names = ("hello", "want", "settle", "watch", "inspect", "probe", "drift", "clear", "info", "shutdown", "offer")
        return {name: getattr(self, f"_op_{name}") for name in names}

    async def _op_hello(self, _: Connection, request: dict[str, Any]) -> Hello:
        self._hosts.look_in(str(request.get("python_path", "")))
        version = str(request.get("version", __version__))
        upgrading = version not in (__version__, self._booted.options.replaced_for)
        if upgrading:
            self.replacement = Replacement(request.get("python") or sys.executable, request.get("path", ""), version)
            asyncio.get_running_loop().call_soon(self._done.set)
        return Hello(
            protocol=PROTOCOL,
            version=__version__,
            pid=os.getpid(),
            project=self._project,
            upgrading=upgrading,
        )

    async def _op_want(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        want = want_of(request)
        if want.deployment != self._journal.deployment:
            self._keeper.breakers.limit(await self._records.breaker())
        self._hosts.try_now()
        await self._keeper.want(want)
        return {}

    async def _op_settle(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        await self._keeper.settle(int(request["deployment"]))
        self._do(self._keeper.drivers.containers.tidy(), "tidy networks")  # those that the last containers have left
        return {}

    async def _op_watch(self, connection: Connection, _: dict[str, Any]) -> dict[str, Any]:
        connection.watch(self._keeper.instances())
        self._was_used = True
        return {}

    async def _op_inspect(self, _: Connection, request: dict[str, Any]) -> Inspection:
        supervisor = self._keeper.supervisor(str(request.get("instance")))
        if supervisor is None:
            return Inspection()
        return await inspect(self._keeper.drivers.of(supervisor.entry.wanted.content), supervisor.running)

    async def _op_offer(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        link = self._hosts.offered(connection, request.get("offer"))
        if link is not None and link.offer.types:
            await self._custom.handlers_came(link.offer.types)
        return {}

    async def _op_probe(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        self._keeper.probe_now(list(request.get("services", ())))
        return {}

    async def _op_drift(self, _: Connection, __: dict[str, Any]) -> Drifts:
        return await drift.look(self._keeper)

    async def _op_clear(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        await drift.clear(self._keeper, list(request.get("instances", ())))
        return {}

    async def _op_info(self, _: Connection, __: dict[str, Any]) -> AgentInfo:
        stats = self._keeper.prober.stats()
        return AgentInfo(
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            instances=len(self._keeper.instances()),
            deployment=self._journal.deployment,
            probes_per_second=stats.probes_per_second,
            lag_seconds=stats.lag_seconds,
            lag_max_seconds=stats.lag_max_seconds,
            memory_bytes=memory_bytes(os.getpid()),
            loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
            details={"project": self._project},
        )

    async def _op_shutdown(self, _: Connection, __: dict[str, Any]) -> dict[str, Any]:
        asyncio.get_running_loop().call_soon(self._done.set)
        return {}

    # -- when to end

    def _connection_closed(self, connection: Connection) -> None:
        if self._done.is_set():
            return
        if connection.is_host:
            self._hosts.gone(connection)
        else:
            self._recovery.look()  # it may have been an engine that died
        self._consider_ending()

    def _consider_ending(self) -> None:
        """End soon, unless there is something to do by then. Under systemd stay: it would only start us again."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._has_work():
            return
        wait = IDLE_SECONDS if self._was_used else LINGER_SECONDS
        self._idle = asyncio.get_running_loop().call_later(wait, self._end_if_idle)

    def _has_work(self) -> bool:
        clients = any(not each.is_host for each in self._server.connections)
        return not self._keeper.is_idle or clients or self._recovery.is_busy

    def _end_if_idle(self) -> None:
        if self._has_work():
            return
        self._keeper.addresses.give_back()
        if "NOTIFY_SOCKET" not in os.environ:
            self._done.set()


# --------------------------------------------------------------------------- from a booted process to a running agent


def serve(booted: Booted) -> int:
    """Run the agent in an event loop of its own; the exit code. Does not return when it is replaced."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    ignore_no_signals()
    limit = raise_open_files_limit()
    try:
        become_subreaper()
    except OSError as exc:
        log.warning("orphans of services go to init: %s", exc)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        replacement = runner.run(_run(booted, limit))
    if replacement is not None:
        _replace(booted, replacement)
    return 0


def _loop_factory() -> Any:
    with contextlib.suppress(ImportError):  # the extra "fast" is not installed: the standard loop does it too
        import uvloop

        return uvloop.new_event_loop
    return None


async def _run(booted: Booted, open_files: int) -> Replacement | None:
    state = booted.options.state
    bring_up_to_date(os.path.join(state, DATABASE))
    database = Database(os.path.join(state, DATABASE), statements())
    row = database.one("project")
    if row is None:
        raise AgentError(f"the state in {state} names no project", remedy="Deploy again")
    project, log_dir = row
    records = Records(database, lambda exc: log.warning("%s", exc))
    journal = Journal(records.add_event)
    driver, index = ProcessDriver(Groups(state)), LogIndex()
    share = Share(state, project)
    breakers = agent_breakers(records, journal)
    hosts = Hosts(state, breakers, open_files)
    keeper = Keeper(
        drivers=Drivers(driver, CustomDriver(hosts), Containers(state, breakers, journal.trouble)),
        records=records,
        journal=journal,
        breakers=breakers,
        launcher=lambda where_is: Launcher(
            Folders(state=state, logs=log_dir, project=project), index, where_is, share.gpu_env
        ),
        boot_id=boot_id(),
        project=project,
        open_files=open_files,
        share=share,
    )
    driver.groups.on_out_of_memory = keeper.out_of_memory
    housekeeping = Housekeeping(
        state=state, index=index, journal=journal, instances=keeper.instances, reap=driver.reap_strangers
    )
    hosts.site = custom = CustomSite(keeper)
    agent = Agent(
        booted,
        project,
        keeper=keeper,
        records=records,
        journal=journal,
        housekeeping=housekeeping,
        hosts=hosts,
        custom=custom,
    )
    await agent.run()
    return agent.replacement


def _replace(booted: Booted, new: Replacement) -> None:
    """Become another version of ourselves: same process, same children, same lock, same socket."""
    lock, listener = booted.lock, booted.listener.fileno()
    for fd in (lock, listener):
        os.set_inheritable(fd, True)
    if new.path:
        os.environ["PYTHONPATH"] = new.path
    log.info("replaced by version %s", new.version)
    arguments = [
        booted.options.state,
        f"--lock-fd={lock}",
        f"--listen-fd={listener}",
        f"--replaced-for={new.version}",
    ]
    os.execv(new.python, [new.python, "-P", "-m", "deploy_code.agent", *arguments])
