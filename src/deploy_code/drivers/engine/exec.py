"""Health commands inside a container. What a command leaves behind when its time is over is killed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress

from deploy_code.drivers.engine.client import EngineClient, EngineGoneError
from deploy_code.drivers.pidfd import kill_all
from deploy_code.drivers.proctree import Claim, Table, look_up
from deploy_code.errors import CircuitOpenError, DeployCodeError
from deploy_code.model import ProbeResult

_DETAIL_LIMIT = 2048  # characters (model.ProbeResult)
_KILL_SECONDS = 5.0


class ExecProbe:
    """Ready when the program ends with 0 in time (``health.probes.Probe``)."""

    kind = "command"

    def __init__(
        self,
        client: EngineClient,
        container: str,
        argv: Sequence[str],
        *,
        timeout: float,
        is_local: bool,
    ) -> None:
        self._client = client
        self._container = container
        self._argv = list(argv)
        self._timeout = timeout
        self._is_local = is_local
        self._text = " ".join(argv)
        self.was_lost = False  # the last one: nobody could be asked, so it says nothing of the container

    async def __call__(self) -> ProbeResult:
        at, began = time.time(), time.perf_counter()
        output = bytearray()
        status: int | None = None
        self.was_lost = False
        try:
            async with asyncio.timeout(self._timeout):
                status = await self._run(output)
            detail = _printable(output)
            if status != 0:
                detail = _joined(f"exit code {status}", detail)
        except TimeoutError:
            detail = _joined(f"no end within {self._timeout:g} s, killed", _printable(output))
        except DeployCodeError as exc:
            self.was_lost = isinstance(exc, EngineGoneError | CircuitOpenError)
            detail = exc.text
        return ProbeResult(
            ok=status == 0,
            kind=self.kind,
            target=self._text,
            at=at,
            duration=time.perf_counter() - began,
            status=status,
            detail=detail[:_DETAIL_LIMIT],
        )

    async def _run(self, output: bytearray) -> int | None:
        client = self._client
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": self._argv}
        made = await client.call("POST", f"/containers/{self._container}/exec", body=body)
        over = False
        try:
            start = {"Detach": False, "Tty": False}
            async with client.frames("POST", f"/exec/{made['Id']}/start", body=start) as frames:
                async for _, part in frames:
                    if len(output) < 4 * _DETAIL_LIMIT:
                        output += part
            found = await client.call("GET", f"/exec/{made['Id']}/json")
            over = True
        finally:
            if not over:
                await self._end(client, made["Id"])
        code = found.get("ExitCode")
        return int(code) if code is not None else None

    async def _end(self, client: EngineClient, exec_id: str) -> None:
        """Kill it with all that descends from it. The API knows no such call: on this machine the kernel does."""
        with suppress(DeployCodeError, TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                found = await client.call("GET", f"/exec/{exec_id}/json")
                pid = found.get("Pid") or 0
                if pid and found.get("Running") and self._is_local:
                    await self._kill(client, pid)

    async def _kill(self, client: EngineClient, pid: int) -> None:
        proc = look_up(pid)
        if proc is None or not _is_inside(pid, self._container):
            return
        members = Table.scan().members(Claim("", proc.ident))
        await kill_all([each.ident for each in members.values()], _KILL_SECONDS)
        if os.geteuid() != 0 and (inner := _inner_pid(pid)):  # it may be another user's: the engine may end it
            body = {"Cmd": ["kill", "-9", str(inner)], "User": "0"}
            made = await client.call("POST", f"/containers/{self._container}/exec", body=body)
            await client.call("POST", f"/exec/{made['Id']}/start", body={"Detach": True})


def _is_inside(pid: int, container: str) -> bool:
    """A number of the engine's machine is one of ours only where the engine runs on this machine."""
    with suppress(OSError), open(f"/proc/{pid}/cgroup") as file:
        return container in file.read()
    return False


def _inner_pid(pid: int) -> int:
    """Its number as the container has it."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _printable(data: bytes | bytearray) -> str:
    text = data.decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _joined(head: str, rest: str) -> str:
    return f"{head}: {rest}" if rest else head
