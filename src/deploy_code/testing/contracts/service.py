"""What a custom service type promises: bounded, remembered in a few words of text, stopped by whoever remembers it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from deploy_code.errors import DriverError
from deploy_code.services.handler import InstanceConfig, Service
from deploy_code.services.held import Held
from deploy_code.services.status import ServiceStatus
from deploy_code.testing.contracts.calls import bounded
from deploy_code.testing.contracts.loops import in_a_loop

LOOK_SECONDS = 0.05
ENDED = (ServiceStatus.STOPPED, ServiceStatus.FAILED)


class ServiceContract:
    """Subclass it, and set ``service``: the class, or whatever you give to ``register_type``.

    Override ``instance`` where it needs options, env or a command. ``ready_seconds``: how soon it has to be RUNNING;
    ``bound_seconds``: how long one call of a method may take. Objects are made and called by the code that does so in
    the agent.
    """

    service: Callable[..., Service]
    ready_seconds: float = 10.0
    bound_seconds: float = 10.0

    def instance(self, folder: Path, index: int = 0) -> InstanceConfig:
        """What one instance is told about itself: a folder and a port of its own."""
        return InstanceConfig(
            service="api",
            service_type="custom",
            revision=1,
            index=index,
            uuid=f"api-{index}",
            working_dir=str(folder),
            ports={"port": _free_port()},
            log_path=str(folder / f"api.{index}.log"),
        )

    # ------------------------------------------------------------------------------------------------------- start

    @in_a_loop
    async def test_started_it_is_running_in_time(self, tmp_path: Path) -> None:
        async with self.started(self.instance(tmp_path)) as (it, _):
            await self.until_running(it)

    @in_a_loop
    async def test_asking_how_it_is_changes_nothing(self, tmp_path: Path) -> None:
        async with self.started(self.instance(tmp_path)) as (it, _):
            await self.until_running(it)
            answers = [await self.health(it) for _ in range(3)]
            assert answers == [ServiceStatus.RUNNING] * 3, f"three questions in a row: {answers}"

    @in_a_loop
    async def test_two_instances_do_not_get_into_each_other_s_way(self, tmp_path: Path) -> None:
        one, other = self.instance(tmp_path, 0), self.instance(tmp_path, 1)
        async with self.started(one) as (first, _), self.started(other) as (second, _):
            await self.until_running(first)
            await self.until_running(second)
            await self.stop(first)
            after = await self.health(second)
            assert after is ServiceStatus.RUNNING, f"instance 0 was stopped, and instance 1 is {after}"

    # ------------------------------------------------------------------------------------------------------ memory

    @in_a_loop
    async def test_an_object_made_anew_sees_it_running(self, tmp_path: Path) -> None:
        config = self.instance(tmp_path)
        async with self.started(config) as (it, memory):
            await self.until_running(it)
            answer = await self.health(await self.made_anew(config, memory))
            assert answer is ServiceStatus.RUNNING, (
                f"after a restart of the agent an object that has only its memory says {answer}: "
                "start() must give back all it takes to find it again"
            )

    @in_a_loop
    async def test_an_object_made_anew_can_stop_it(self, tmp_path: Path) -> None:
        config = self.instance(tmp_path)
        async with self.started(config) as (it, memory):
            await self.until_running(it)
            await self.stop(await self.made_anew(config, memory))
            await self.assert_not_running(
                await self.made_anew(config, memory), "was stopped by an object that had only its memory"
            )

    # -------------------------------------------------------------------------------------------------------- stop

    @in_a_loop
    async def test_stopped_it_is_not_running(self, tmp_path: Path) -> None:
        async with self.started(self.instance(tmp_path)) as (it, _):
            await self.until_running(it)
            await self.stop(it)
            await self.assert_not_running(it, "was stopped")

    @in_a_loop
    async def test_stopping_twice_is_no_error(self, tmp_path: Path) -> None:
        async with self.started(self.instance(tmp_path)) as (it, _):
            await self.stop(it)
            await self.stop(it)

    @in_a_loop
    async def test_stopping_what_never_started_is_no_error(self, tmp_path: Path) -> None:
        await self.stop(await self.made_anew(self.instance(tmp_path), {}))

    @in_a_loop
    async def test_what_never_started_is_not_running(self, tmp_path: Path) -> None:
        await self.assert_not_running(await self.made_anew(self.instance(tmp_path), {}), "was never started")

    @in_a_loop
    async def test_stopped_it_can_be_started_again(self, tmp_path: Path) -> None:
        config = self.instance(tmp_path)
        async with self.started(config) as (it, _):
            await self.until_running(it)
            await self.stop(it)
            async with self.started(config) as (again, _):
                await self.until_running(again)

    # ------------------------------------------------------------------------------------------------------ pieces

    @asynccontextmanager
    async def started(self, config: InstanceConfig) -> AsyncIterator[tuple[Held, Mapping[str, str]]]:
        """One that was started, and what it remembers; stopped at the end, if the test did not."""
        it = self._held(config)
        try:
            async with self._calls("start()"):
                memory = await it.start()
            yield it, memory
        finally:
            with suppress(AssertionError, DriverError):  # the test has its say; this only clears up after it
                await self.stop(it)

    async def made_anew(self, config: InstanceConfig, memory: Mapping[str, str]) -> Held:
        """As after a restart of the agent: an object that knows what it is, and what it remembered as text."""
        it = self._held(config)
        async with self._calls("its constructor"):
            await it.resume(json.loads(json.dumps(dict(memory))))
        return it

    def _held(self, config: InstanceConfig) -> Held:
        return _Strictly(config, type(self).service, "as its contract suite makes it")

    async def stop(self, it: Held) -> None:
        async with self._calls("stop()"):
            in_time = await it.stop(self.bound_seconds)
        assert in_time, f"stop() did not return within {self.bound_seconds:g} s; bound what it waits for"

    async def health(self, it: Held) -> ServiceStatus:
        if not it.is_checked:
            pytest.skip("health_check() is not overridden: endpoint, ports and command of the file decide")
        async with self._calls("health_check()"):
            return await it.health(self.bound_seconds)

    @asynccontextmanager
    async def _calls(self, what: str) -> AsyncIterator[None]:
        try:
            async with bounded(what, self.bound_seconds + 1.0):
                yield
        except DriverError as exc:
            raise AssertionError(exc.text) from exc

    async def until_running(self, it: Held) -> None:
        """Asked now and then it says RUNNING in time; what it raises until then is a probe that failed."""
        deadline, answer = time.monotonic() + self.ready_seconds, "it was not asked"
        while time.monotonic() < deadline:
            try:
                status = await self.health(it)
            except AssertionError as exc:
                answer = str(exc)
            else:
                if status is ServiceStatus.RUNNING:
                    return
                assert status not in ENDED, f"it was started, and says that it has ended: {status}"
                answer = str(status)
            await asyncio.sleep(LOOK_SECONDS)
        raise AssertionError(f"not RUNNING {self.ready_seconds:g} s after start(); the last answer: {answer}")

    async def assert_not_running(self, it: Held, what: str) -> None:
        try:
            answer = await self.health(it)
        except AssertionError:
            return  # it cannot be asked: a failed probe, too
        assert answer is not ServiceStatus.RUNNING, f"it {what}, and health_check() says RUNNING"


class _Strictly(Held):
    """The agent forgives a stop() that raises, where the object says that it has ended all the same; this does not."""

    async def _has_ended(self) -> bool:
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number
