"""Whether one running instance is ready, and what follows: its gate, its phase, and its replacement when it is not.

Start-up, readiness and liveness are separate signals (DESIGN §6). The prober judges; here it is turned into what
everyone sees, and, by policy, into the end of an instance that stays unready.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable

from deploy_code.drivers.base import Running
from deploy_code.drivers.custom import CHECKED, HandlerProbe
from deploy_code.drivers.proctree import look_up
from deploy_code.errors import DeployCodeError
from deploy_code.health.build import RunInside
from deploy_code.health.probes import AllProbes, Probe, port_asked
from deploy_code.model import Gate, Phase, ProbeResult

from . import endings
from .card import Card
from .inside import ProbeInside
from .journal import label
from .launch import Launch
from .prober import Judgement

UNSEEN_SECONDS = 1.0
STOP_FAILED_SECONDS = 60.0  # that one which is not ready cannot be stopped is told so often


class Readiness:
    """Watches what runs of one instance. ``begin`` with each start, ``end`` when it has ended."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._running: Running | None = None
        self._check = card.policy.health
        self._replacing: asyncio.Task[bool] | None = None
        self._quiet_until = 0.0

    # -- watching

    def begin(self, running: Running, launch: Launch | None = None) -> None:
        """Probe ``running`` from now on; what is watched already is watched anew."""
        card = self._card
        self._running = running
        self._check = card.policy.health
        try:
            launch = launch or card.site.launcher.launch(card.entry.wanted, card.instance)
            probe = self._probe(launch, running)
        except DeployCodeError as exc:
            card.set(gate=self._failed_gate(), note=card.clean(str(exc)))
            return
        card.site.prober.watch(
            card.instance.uuid,
            probe,
            launch.check,
            born_at=card.instance.started_at,
            min_ready=self._min_ready(running),
            open_gate=card.instance.phase in (Phase.READY, Phase.UNREADY),
            owner_check=self._owner_check(probe),
        )

    def again(self) -> None:
        """Watch anew what is watched."""
        if self._running is not None:
            self.begin(self._running)

    def adjust(self) -> None:
        """The policy may have changed: another health check holds from now on."""
        if self._card.policy.health != self._check:
            self.again()

    async def end(self) -> str:
        """It has ended. Why we ended it ourselves; empty when it ended by itself."""
        self.forget()
        if self._replacing is None:
            return ""
        await asyncio.wait([self._replacing])
        self._replacing = None
        return "restarted because it was not ready"

    def forget(self) -> None:
        """Probe it no longer."""
        self._running = None
        self._card.site.prober.forget(self._card.instance.uuid)

    async def let_go(self) -> None:
        """Leave everything as it is."""
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait([self._replacing])

    def _probe(self, launch: Launch, running: Running) -> Probe:
        """The ordinary one; an object that says itself how it is is asked first, and what the file names after it."""
        ordinary = launch.probe(self._card.instance, lambda: self._lives(running), self._inside(launch, running))
        if CHECKED not in running.handler or not self._card.is_custom:
            return ordinary
        check = launch.check
        asked = HandlerProbe(
            self._card.site.drivers.custom,
            running,
            launch.content.service_type,
            timeout=check.timeout_seconds,
        )
        return AllProbes([asked, ordinary]) if check.endpoint or check.command else asked

    def _min_ready(self, running: Running) -> float:
        """What cannot be seen to live is given the time that its runtime may take to tell of its end."""
        own = self._card.policy.min_ready_seconds
        return max(own, UNSEEN_SECONDS) if self._card.is_container and not running.pid else own

    def _lives(self, running: Running) -> bool:
        """A runtime may tell of an end a while after it; the kernel knows at once."""
        if self._running is None:
            return False
        proc = look_up(running.pid) if running.pid else None
        return not running.pid or (proc is not None and proc.alive and proc.start_time == running.start_time)

    def _inside(self, launch: Launch, running: Running) -> RunInside | None:
        """Makes the probe of a command that runs in the container."""
        if not launch.content.is_container:
            return None
        driver = self._card.site.drivers.containers.of(launch.content.container)
        return lambda argv, timeout: ProbeInside(driver.probe_command(running, argv, timeout=timeout), self._is_proven)

    def _is_proven(self) -> bool:
        return self._card.instance.gate is Gate.OPEN

    def _owner_check(self, probe: Probe) -> Callable[[], Awaitable[bool | None]] | None:
        """Asks whether the port that is probed is listened on by this very instance."""
        if self._card.entry.wanted.content.has_own_network:
            return None  # nobody else is at its address
        if self._card.is_custom:
            return None  # whose process listens is its handler's business: it may be no process of ours at all
        port = port_asked(probe)
        own = self._card.instance.ports.values()
        if port is None or (own and port not in own):
            return None
        return functools.partial(self._owns, port)

    async def _owns(self, port: int) -> bool | None:
        running = self._running
        if running is None:
            return None
        site = self._card.site
        if site.prober.listeners.owns(port, (running.pid,)):
            return True  # the usual case, without a look at every process
        return site.prober.listeners.owns(port, await self._card.driver.pids(running))

    # -- judging

    def judged(self, judgement: Judgement) -> None:
        """The prober has something to say."""
        if self._running is None or self._replacing is not None:
            return
        probe = self._card.clean_probe(judgement.result)
        if judgement.steady:
            self._card.mirror(probe=probe)
            return
        match judgement.verdict:
            case "ready":
                self._became_ready(probe)
            case "unready":
                self._became_unready(probe)
            case "gate_failed":
                self._gate_failed(probe)
            case _:
                self._card.set(probe=probe)

    def _became_ready(self, probe: ProbeResult | None) -> None:
        card = self._card
        if card.instance.phase is Phase.READY:
            card.set(probe=probe)
            return
        now = time.time()
        card.set(phase=Phase.READY, gate=Gate.OPEN, ready_at=now, probe=probe, note="")
        card.happened("InstanceReady", f"ready {now - card.instance.started_at:.2f} s after its start")

    def _became_unready(self, probe: ProbeResult | None) -> None:
        card = self._card
        if card.instance.phase is Phase.READY:
            card.set(phase=Phase.UNREADY, ready_at=0.0, probe=probe, note="fails its health check")
            card.happened("InstanceUnready", endings.probe_note(probe))
        else:
            card.set(probe=probe)
        self.consider_replacing()

    def _gate_failed(self, probe: ProbeResult | None) -> None:
        card = self._card
        if card.instance.gate is Gate.WAITING:
            card.happened("GateFailed", endings.probe_note(probe))
        card.set(gate=self._failed_gate(), probe=probe, note="did not become ready")
        self.consider_replacing()

    def _failed_gate(self) -> Gate:
        """A gate that was open once stays so: it says whether the instance was ever proven."""
        return Gate.OPEN if self._card.instance.gate is Gate.OPEN else Gate.FAILED

    # -- replacing

    def consider_replacing(self) -> None:
        """Restart what is not ready, by policy; but not while something it needs is itself not ready."""
        running, card = self._running, self._card
        if running is None or self._replacing is not None or not self._may_be_replaced():
            return
        if cause := card.site.dependencies.unready(card.policy):
            card.set(note=f"fails its health check; not restarted, because {cause} is not ready either")
            return
        self._replacing = asyncio.get_running_loop().create_task(
            card.driver.stop(running, card.policy.stop_signal, card.policy.stop_timeout_seconds),
            name=f"replace {label(card.instance)}",
        )
        self._replacing.add_done_callback(self._replaced)

    def _replaced(self, stopping: asyncio.Task[bool]) -> None:
        """What could not be stopped is said, and tried again when it is still not ready."""
        if stopping.cancelled() or (error := stopping.exception()) is None:
            return
        self._replacing = None
        note = self._card.clean(f"{endings.NOT_STOPPED}: {error}")
        self._card.set(note=note)
        if time.monotonic() >= self._quiet_until:  # it is tried after every probe
            self._quiet_until = time.monotonic() + STOP_FAILED_SECONDS
            self._card.happened("StopFailed", note)

    def _may_be_replaced(self) -> bool:
        """Before its gate has opened an instance is left as evidence, until the deployment is over."""
        card = self._card
        proven = card.instance.gate is Gate.OPEN or card.entry.settled
        return proven and card.policy.restart.policy != "never"
