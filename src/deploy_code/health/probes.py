"""One attempt to find out whether an instance is well. What an attempt finds is a value, never an exception.

The only exception that leaves a probe is ProbeNotMadeError: this machine could not even ask.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from deploy_code.health.child import Child
from deploy_code.health.dial import Resolver, connect, in_words, refuse_if_ours
from deploy_code.health.http import ExchangeError, HttpClient, Response, encode_request
from deploy_code.health.target import Target
from deploy_code.model import ProbeResult

DETAIL_LIMIT = 2048  # characters (model.ProbeResult)
_KILL_GRACE = 5.0  # seconds until a killed command is given up waiting for (it hangs in the kernel)


class Probe(Protocol):
    """What the prober calls. One instance's probe is never called while a call of it is under way."""

    async def __call__(self) -> ProbeResult: ...


class _Stopwatch:
    """When a probe began, by both clocks, and its result."""

    __slots__ = ("_at", "_began", "_kind", "_target")

    def __init__(self, kind: str, target: str) -> None:
        self._kind, self._target = kind, target
        self._at, self._began = time.time(), time.perf_counter()

    def result(self, ok: bool, detail: str = "", status: int | None = None) -> ProbeResult:
        return ProbeResult(
            ok=ok,
            kind=self._kind,
            target=self._target,
            at=self._at,
            duration=time.perf_counter() - self._began,
            status=status,
            detail=detail[:DETAIL_LIMIT],
        )


class HttpProbe:
    """GET; ready at any status from 200 to 399 (as ``curl -f``). Redirects are not followed."""

    kind = "http"

    def __init__(self, target: Target, *, timeout: float, interval: float = 30.0) -> None:
        self.target = target
        self.port = target.port
        self._timeout = timeout
        self._text = str(target)
        self._request = encode_request(target)
        self._client = HttpClient(target, lookup_seconds=interval)

    async def __call__(self) -> ProbeResult:
        watch = _Stopwatch(self.kind, self._text)
        try:
            answer = await self._client.exchange(self._request, timeout=self._timeout)
        except ExchangeError as error:
            return watch.result(False, str(error))
        ok = 200 <= answer.status < 400
        return watch.result(ok, _answer_in_words(answer, with_body=not ok), answer.status)


class TcpProbe:
    """Ready when a connection is accepted; nothing is sent."""

    kind = "tcp"

    def __init__(self, target: Target, *, timeout: float, interval: float = 30.0) -> None:
        self.target = target
        self.port = target.port
        self._timeout = timeout
        self._text = f"{target.authority} at {target.dial}" if target.dial else target.authority
        self._resolver = Resolver(target.dial or target.host, target.port, max_age=interval)

    async def __call__(self) -> ProbeResult:
        from asyncio import timeout

        watch = _Stopwatch(self.kind, self._text)
        try:
            async with timeout(self._timeout):
                (await connect(await self._resolver.addresses())).close()
        except TimeoutError:
            return watch.result(False, f"no connection within {self._timeout:g} s")
        except OSError as error:
            return watch.result(False, in_words(error))
        return watch.result(True, "connected")


class CommandProbe:
    """Ready when the program ends with 0 in time. No shell; its whole group is killed at the end."""

    kind = "command"

    def __init__(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str],
        working_dir: str = "",
        user: str = "",
    ) -> None:
        self._argv = tuple(argv)
        self._timeout = timeout
        self._env = env
        self._cwd = working_dir or None
        self._user = user
        self._text = " ".join(argv)

    async def __call__(self) -> ProbeResult:
        watch = _Stopwatch(self.kind, self._text)
        try:
            child = Child(self._argv, env=self._env, cwd=self._cwd, user=self._user)
        except (OSError, KeyError) as error:
            return watch.result(False, self._why_not_started(error))
        try:
            in_time = await child.wait(self._timeout)
        finally:
            child.kill()
            await child.wait(_KILL_GRACE)
        output = printable(child.output)
        if not in_time:
            return watch.result(False, _joined(f"no end within {self._timeout:g} s, killed", output))
        if child.returncode == 0:
            return watch.result(True, output, 0)
        return watch.result(False, _joined(_ending(child.returncode), output), child.returncode)

    def _why_not_started(self, error: OSError | KeyError) -> str:
        if isinstance(error, KeyError):
            return f"cannot be run as {self._user!r}: no such user or group"
        refuse_if_ours(error, errno.EAGAIN)
        if error.errno == errno.ENOENT and error.filename == self._cwd:
            return f"its working directory {self._cwd} does not exist"
        if error.errno == errno.ENOENT:
            return f"no such program: {self._argv[0]}"
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"not permitted to run {self._argv[0]}" + (f" as {self._user}" if self._user else "")
        return f"{self._argv[0]} cannot be run: {in_words(error)}"


class AliveProbe:
    """Ready while the process lives: where there is neither a check nor a port."""

    kind = "alive"

    def __init__(self, alive: Callable[[], bool]) -> None:
        self._alive = alive

    async def __call__(self) -> ProbeResult:
        watch = _Stopwatch(self.kind, "process")
        if self._alive():
            return watch.result(True, "running")
        return watch.result(False, "the process is gone")


class AllProbes:
    """Every part must pass; they run one after the other, and the first failure is the result."""

    kind = "all"

    def __init__(self, parts: Sequence[Probe]) -> None:
        self.parts = tuple(parts)

    async def __call__(self) -> ProbeResult:
        for part in self.parts:
            result = await part()
            if not result.ok:
                break
        return result


def starts_a_process(probe: Probe) -> bool:
    """Does each call of it spawn a program, here or in a container?"""
    if isinstance(probe, AllProbes):
        return any(starts_a_process(part) for part in probe.parts)
    return getattr(probe, "kind", "") == CommandProbe.kind


def only_looks_alive(probe: Probe) -> bool:
    """Does it ask only whether the process lives? Then readiness is a matter of time (CONTRACTS §2)."""
    return isinstance(probe, AliveProbe)


def port_asked(probe: Probe) -> int | None:
    """The port of this machine that it asks; None where it asks none."""
    if isinstance(probe, AllProbes):
        return next((port for port in map(port_asked, probe.parts) if port), None)
    if isinstance(probe, (HttpProbe, TcpProbe)) and probe.target.is_this_machine:
        return probe.port
    return None


def printable(data: bytes) -> str:
    """Bytes from outside as text for a terminal: no control characters but line breaks and tabs."""
    text = data.decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _answer_in_words(answer: Response, *, with_body: bool) -> str:
    head = f"HTTP {answer.status}"
    body = printable(answer.body[:DETAIL_LIMIT]) if with_body else ""
    return _joined(head, body or answer.reason)


def _joined(head: str, rest: str) -> str:
    return f"{head}: {rest}" if rest else head


def _ending(code: int | None) -> str:
    if code is None:
        return "killed, but it does not end"
    if code < 0:
        import signal

        return f"killed by {signal.Signals(-code).name}" if -code < signal.NSIG else f"killed by signal {-code}"
    return f"exit code {code}"
