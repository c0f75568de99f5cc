"""Services as plain processes: nothing but Python and Linux needed.

Each instance leads a session of its own and writes its log itself, so the agent's death harms none of them,
and the next agent takes them under watch again (pid, start time and boot id tell the very one).

Whether a process belongs to an instance is asked in one place, ``_members``: its process tree and, where it has
limits, its control group, which no process leaves by forking.
"""

from __future__ import annotations

import asyncio
import os
import signal as signals
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from deploy_code.drivers.base import Running, StartOrder
from deploy_code.drivers.group import Group
from deploy_code.drivers.groups import Groups
from deploy_code.drivers.made import MADE, differences
from deploy_code.drivers.oneshot import read_status
from deploy_code.drivers.pidfd import Watch
from deploy_code.drivers.proctree import Claim, Ident, Proc, Stranger, Table, boot_id, look_up, strangers
from deploy_code.drivers.reaper import Orphans
from deploy_code.drivers.scans import SharedScan
from deploy_code.drivers.spawn import spawn
from deploy_code.errors import DriverError
from deploy_code.model import Exit

_EXITS_KEPT = 10_000  # ends remembered for whoever asks late
_TRUST_SECONDS = 60.0  # so long after its end a session's number is not taken to be in other hands
_CENSUS_SECONDS = 10.0  # how often it is noted who descends from whom
_EXEC_SECONDS = 0.05  # longer than an exec takes: while one is under way the environment reads as empty
_SWEEP_SECONDS = 10.0  # a process that has not gone so long after SIGKILL hangs in the kernel


class ProcessDriver:
    """``drivers.base.Driver`` for processes of this machine. To be used from one event loop at a time.

    ``groups``: keeps the limits of CPU and memory.
    """

    name = "process"

    def __init__(self, groups: Groups | None = None) -> None:
        self.groups = groups or Groups()
        self._watches: dict[Ident, Watch] = {}
        self._exits: OrderedDict[Ident, tuple[Exit, float]] = OrderedDict()  # and when it was noticed
        self._known: dict[Ident, frozenset[Ident]] = {}  # members by leader, as last seen
        self._next_census = 0.0
        self._stops: dict[Ident, set[asyncio.Future[None]]] = {}
        self._scans = SharedScan()
        self._orphans = Orphans()

    # ----------------------------------------------------------------------- start and find

    async def start(self, order: StartOrder) -> Running:
        """Start one instance. Raises DriverError: E003 no such command, E004 no room for its log, S005 no
        log folder, E005 anything else that keeps it from starting."""
        group = await self._make_group(order)
        try:
            ident = self._watch_child(spawn(order, group))
        except DriverError:
            if group is not None:
                self.groups.discard(group)
            raise
        if group is not None:
            self.groups.keep(ident, order.uuid, group)
        return Running(
            uuid=order.uuid,
            pid=ident.pid,
            start_time=ident.start_time,
            boot_id=boot_id(),
            status_path=order.status_path if order.one_shot else "",
            handler={**(group.memory if group is not None else {}), **({MADE: order.made} if order.made else {})},
        )

    async def _make_group(self, order: StartOrder) -> Group | None:
        """An empty group: what an earlier start of this instance left in it, unseen by anybody, goes first."""
        group = self.groups.make(order)
        deadline = time.monotonic() + _SWEEP_SECONDS
        while group is not None and (left := group.processes()):
            if time.monotonic() > deadline:
                raise _cannot_kill(left.values())
            await self._signal_all(left.values(), signals.SIGKILL, deadline - time.monotonic())
        return group

    async def find(self, running: Running) -> bool:
        """Is this very one still alive? Takes it under watch if it was not."""
        proc = look_up(running.pid) if running.boot_id == boot_id() else None
        if proc is None or proc.start_time != running.start_time:
            return False
        if self._watch(proc.ident) is None or not proc.alive:
            return False
        self.groups.know(running, alive=True)
        return True

    async def find_spawned(self, uuids: Sequence[str]) -> dict[str, Running]:
        """Those of ``uuids`` that run although nobody could record it; one look at /proc for all.

        ``status_path`` of a one-shot is for the caller to fill in: no process shows it.
        """
        found = (await self._scans.fresh(since=0)).leaders(uuids)
        if len(found) < len(uuids):
            await asyncio.sleep(_EXEC_SECONDS)
            found |= (await self._scans.fresh(since=0)).leaders(uuids)
        return {
            uuid: Running(
                uuid=uuid,
                pid=proc.pid,
                start_time=proc.start_time,
                boot_id=boot_id(),
                handler=group.memory if (group := Group.around(proc.pid, uuid)) else {},
            )
            for uuid, proc in found.items()
        }

    def _watch_child(self, pid: int) -> Ident:
        """Watch a process just started; one that cannot be watched must not live on unseen."""
        proc = look_up(pid)
        try:
            if proc is None or self._watch(proc.ident) is None:
                raise DriverError(f"process {pid} was reaped by another part of this program")
        except DriverError:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signals.SIGKILL)
                os.waitpid(pid, 0)
            raise
        return proc.ident

    def _watch(self, ident: Ident) -> Watch | None:
        watch = self._watches.get(ident)
        if watch is None:
            watch = _open_watch(ident, self._ended)
            if watch is not None:
                self._watches[ident] = watch
                self._next_census = 0.0
        return watch

    def _watch_of(self, running: Running) -> Watch | None:
        return self._watch(_ident(running)) if running.boot_id == boot_id() else None

    def _ended(self, watch: Watch) -> None:
        del self._watches[watch.ident]
        if watch.exit is not None:
            exit_ = _out_of_memory(watch.exit) if self.groups.ended(watch.ident) else watch.exit
            self._exits[watch.ident] = (exit_, time.monotonic())
        if len(self._exits) > _EXITS_KEPT:
            self._known.pop(self._exits.popitem(last=False)[0], None)

    # ----------------------------------------------------------------------- wait

    async def wait(self, running: Running) -> Exit:
        """Wait until it has ended, and how: unknown if it was not our child and left no status file."""
        if _ident(running) not in self._exits:
            watch = self._watch_of(running)
            if watch is not None:
                await watch.ended()
        noticed, _ = self._exits.get(_ident(running), (None, 0.0))
        exit_ = _recorded_exit(running) or noticed or Exit(at=time.time())
        return _out_of_memory(exit_) if self._ran_out_of_memory(running, noticed) else exit_

    def _ran_out_of_memory(self, running: Running, noticed: Exit | None) -> bool:
        if noticed is not None:
            return noticed.out_of_memory
        if running.boot_id != boot_id():
            return False
        self.groups.know(running)
        return self.groups.ended(_ident(running))

    # ----------------------------------------------------------------------- stop and sweep

    async def stop(self, running: Running, signal: str, timeout: float) -> bool:
        """Ask the leader with ``signal`` (a name such as SIGTERM), then whatever outlives it, together for
        ``timeout`` seconds; kill what is left. True when nothing had to be killed. Raises DriverError when
        something cannot be killed, or when ``signal`` is none."""
        if running.boot_id != boot_id():
            return True
        number = _signal_number(signal)
        with self._stopping(_ident(running)):
            return await self._stop(running, number, timeout)

    async def _stop(self, running: Running, number: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        claim = self._claim(running)
        # What carries the uuid carries it afterwards too: while the leader lives, relations are enough.
        watch = self._watch_of(running)
        before = await self._members(claim._replace(uuid="") if watch else claim)
        claim = _knowing(claim, before.values())
        if watch is not None and running.pid in before:
            _signal(before[running.pid], watch, number)
            await watch.ended(timeout)
        left = await self._members(claim)
        if left and running.pid not in left:
            claim = _knowing(claim, left.values())
            await self._signal_all(left.values(), number, deadline - time.monotonic())
            left = await self._members(claim)
        return await self._kill_all(claim, left) == 0

    @contextmanager
    def _stopping(self, ident: Ident) -> Iterator[None]:
        """While this holds, a sweep waits: what outlives the leader is still being asked."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stops.setdefault(ident, set()).add(done)
        try:
            yield
        finally:
            done.set_result(None)
            self._stops[ident].discard(done)
            if not self._stops[ident]:
                del self._stops[ident]

    async def sweep(self, running: Running) -> int:
        """Kill what an ended instance left behind; how many processes that were. Waits for a stop under way.

        Raises DriverError when the instance itself still runs, or when something cannot be killed.
        """
        if running.boot_id != boot_id():
            return 0
        if stops := self._stops.get(_ident(running)):
            await asyncio.wait(set(stops))
        claim = self._claim(running)
        left = await self._members(claim)
        if running.pid in left:
            raise DriverError(f"process {running.pid} still runs and cannot be swept", remedy="Stop it first")
        return await self._kill_all(claim, left)

    async def pids(self, running: Running) -> tuple[int, ...]:
        """All living processes of this instance, its own first; without its own the command detached."""
        if running.boot_id != boot_id():
            return ()
        members = await self._members(self._claim(running))
        return tuple(sorted(members, key=lambda pid: (pid != running.pid, pid)))

    # ----------------------------------------------------------------------- drift

    async def differences(self, running: Running, order: StartOrder) -> tuple[str, ...]:
        """In words, led by what it is about: what of this one is not as ``order``, which is what ``made.said``."""
        is_watched = running.boot_id == boot_id() and _ident(running) in self._watches
        return tuple(differences(running, order)) if is_watched else ()

    async def orphans(self, known: Collection[str]) -> list[Running]:
        """What was started for this project as an instance that is none of ``known``."""
        found = strangers(self.groups.state, known, {leader.pid for leader in self._watches})
        return [_orphan(each) for each in found]

    def reap_strangers(self) -> int:
        """Reap ended orphans that were handed to us (``become_subreaper``). Call it about once a second.

        Now and then it also notes what descends from each instance: after a crash nothing else may tell.
        (PostgreSQL's backends lead sessions of their own and write their titles over their environment.)
        """
        if time.monotonic() >= self._next_census:
            self._next_census = time.monotonic() + _CENSUS_SECONDS
            self._take_census()
            self.groups.tidy()
        return self._orphans.reap()

    def _take_census(self) -> None:
        table = Table.scan()
        for leader in self._watches:
            members = table.members(Claim("", leader, watched=True))
            self._known[leader] = frozenset(proc.ident for proc in members.values())

    def close(self) -> None:
        """Forget everything that is watched; kills nothing. Those who wait are cancelled."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        self.groups.close()

    def _claim(self, running: Running) -> Claim:
        ident = _ident(running)
        self.groups.know(running)
        _, noticed = self._exits.get(ident, (None, -_TRUST_SECONDS))
        recent = time.monotonic() - noticed < _TRUST_SECONDS
        known = self._known.get(ident, frozenset())
        return Claim(running.uuid, ident, known, watched=recent or ident in self._watches)

    async def _members(self, claim: Claim) -> dict[int, Proc]:
        """Everything that belongs to the instance, as of now."""
        table = await self._scans.fresh(since=claim.leader.start_time)
        group = self.groups.of(claim.leader)
        if group is None:
            return table.members(claim)
        inside = group.processes()  # looked at later than the table: what was born in between is here
        return table.members(_knowing(claim, inside.values())) | inside

    async def _signal_all(self, procs: Iterable[Proc], number: int, timeout: float) -> None:
        """Signal each of these and wait until all have ended, at most ``timeout`` seconds."""
        with ExitStack() as stack:
            watches = {proc: watch for proc in procs if (watch := self._borrow(proc.ident, stack))}
            for proc, watch in watches.items():
                _signal(proc, watch, number)
            await _all_ended(watches.values(), timeout)

    async def _kill_all(self, claim: Claim, left: Mapping[int, Proc]) -> int:
        """Kill and look again until nothing is left: a tree that forks meanwhile needs several rounds."""
        killed: set[Ident] = set()
        deadline = time.monotonic() + _SWEEP_SECONDS
        group = self.groups.of(claim.leader)
        while left:
            if time.monotonic() > deadline:
                raise _cannot_kill(left.values())
            killed.update(proc.ident for proc in left.values())
            claim = _knowing(claim, left.values())
            if group is not None:
                group.kill()
            await self._signal_all(left.values(), signals.SIGKILL, deadline - time.monotonic())
            left = await self._members(claim)
        self._known.pop(claim.leader, None)
        await self.groups.remove(claim.leader)
        return len(killed)

    def _borrow(self, ident: Ident, stack: ExitStack) -> Watch | None:
        """The watch of a leader, or one that lasts as long as ``stack``."""
        watch = self._watches.get(ident)
        if watch is None:
            watch = _open_watch(ident)
            if watch is not None:
                stack.callback(watch.close)
        return watch


def _orphan(stranger: Stranger) -> Running:
    pid, start_time = stranger.leader.ident
    group = Group.around(pid, stranger.uuid)
    more = f" and {stranger.processes - 1} more" if stranger.processes > 1 else ""
    said = {"service": stranger.service, "name": f"pid {pid}{more}"}
    return Running(
        uuid=stranger.uuid,
        pid=pid,
        start_time=start_time,
        boot_id=boot_id(),
        handler={**said, **(group.memory if group else {})},
    )


def _ident(running: Running) -> Ident:
    return Ident(running.pid, running.start_time)


def _open_watch(ident: Ident, on_end: Callable[[Watch], None] | None = None) -> Watch | None:
    try:
        return Watch.open(ident, on_end)
    except OSError as exc:
        raise DriverError(
            f"process {ident.pid} cannot be watched: {exc.strerror}",
            remedy="Raise the limit of open files (`ulimit -n`) of the agent",
            retryable=True,
        ) from exc


def _signal(proc: Proc, watch: Watch, number: int) -> None:
    try:
        watch.send(number)
        if proc.state == "T":
            watch.send(signals.SIGCONT)  # a stopped process hears nothing but SIGKILL
    except PermissionError as exc:
        raise DriverError(
            f"process {proc.pid} may not be signalled by uid {os.geteuid()}",
            meaning="It changed its user",
            remedy="Run deploy-code as root, or end that process yourself",
        ) from exc


async def _all_ended(watches: Iterable[Watch], timeout: float) -> None:
    """Wait for the end of all; whoever outlives ``timeout`` is found by the next look."""
    ends_at = time.monotonic() + timeout
    for watch in watches:
        await watch.ended(ends_at - time.monotonic())


def _knowing(claim: Claim, procs: Iterable[Proc]) -> Claim:
    return claim._replace(known=claim.known | {proc.ident for proc in procs})


def _recorded_exit(running: Running) -> Exit | None:
    if not running.status_path:
        return None
    status = read_status(running.status_path, running.uuid)
    return Exit(at=status[0], code=status[1], signal=status[2]) if status else None


def _out_of_memory(exit_: Exit) -> Exit:
    """The same end with its cause, unless it is a good one. Unknown ends are known by that: the kernel kills."""
    if exit_.ok:
        return exit_
    unknown = exit_.code is None and exit_.signal is None
    return replace(exit_, out_of_memory=True, signal=signals.SIGKILL.value if unknown else exit_.signal)


def _signal_number(name: str) -> int:
    try:
        return signals.Signals[name]
    except KeyError as exc:
        raise DriverError(f'"{name}" is no signal', remedy='Use a name such as SIGTERM in "stop_signal"') from exc


def _cannot_kill(procs: Iterable[Proc]) -> DriverError:
    names = ", ".join(f"{proc.pid} (state {proc.state})" for proc in procs)
    return DriverError(
        f"these processes are still there {_SWEEP_SECONDS:.0f} s after SIGKILL: {names}",
        meaning="State D hangs in the kernel, most often on a disk or network file system",
        remedy="Mend that, then try again",
        retryable=True,
    )
