"""Starts, asks and ends the agent of a project, without asyncio: start-up time is a feature.

Starting is one ``posix_spawn``: the agent detaches itself and says through a pipe when it listens, so nobody polls, and
its end never leaves a zombie with whoever started it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from deploy_code.errors import AgentError
from deploy_code.wire import AGENT_ENV, AGENT_LOCK, AGENT_LOG, DATABASE, LIMIT, AgentInfo, connect

if TYPE_CHECKING:
    from deploy_code.model import Drifts

START_SECONDS = 20.0  # from the spawn until it listens, on a loaded machine
ANSWER_SECONDS = 5.0
COMPARE_SECONDS = 30.0  # containers are asked one by one
_READY_FD = 10
_RETRY_SECONDS = 0.02


class Starting:
    """An agent that was spawned and has not said yet that it listens. ``fd`` becomes readable when it does."""

    def __init__(self, pid: int, fd: int, state: str, hold: int = -1) -> None:
        self._pid = pid
        self.fd = fd
        self._state = state
        self._hold = hold

    @property
    def is_held(self) -> bool:
        """It is warm and waits to be let go; without that it ends with us."""
        return self._hold >= 0

    def release(self) -> None:
        """The state is there now: go. Does nothing for one that was not held."""
        if self.is_held:
            os.write(self._hold, b"\n")
            self._drop_hold()

    def _drop_hold(self) -> None:
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1

    def finish(self) -> None:
        """Read what it says; blocks until then. Raises AgentError when it could not start."""
        try:
            line = _read_line(self.fd)
        finally:
            self.close()
        if not line:
            raise start_failed(self._state, "it ended before it listened")
        said = json.loads(line)
        if "error" in said:
            raise start_failed(self._state, str(said["error"]))

    def close(self) -> None:
        """Let go; the agent goes on, one that is still held ends."""
        self._drop_hold()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            os.waitpid(self._pid, 0)  # the first of its two processes: it ended before the other one could speak


def agent_is_alive(state_dir: str) -> bool:
    """Does somebody hold the agent's flock? Asks without keeping it."""
    try:
        fd = os.open(os.path.join(state_dir, AGENT_LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def can_start(state_dir: str) -> bool:
    """An agent needs a state, and none where nothing was ever deployed."""
    return os.path.exists(os.path.join(state_dir, DATABASE))


def spawn_agent(state_dir: str, *, hold: bool = False) -> Starting:
    """Start an agent; returns at once. One that is not needed ends by itself. Raises AgentError.

    ``hold``: it only warms up, and touches nothing, until ``release``; for a project that has no state yet.
    """
    receive, send = os.pipe()
    go, held = os.pipe() if hold else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
    command = [sys.executable, "-P", "-m", "deploy_code.agent", state_dir, "--detach", f"--ready-fd={_READY_FD}"]
    command += ["--hold"] if hold else []
    log = os.devnull if hold else os.path.join(state_dir, AGENT_LOG)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        pid = os.posix_spawn(
            sys.executable,
            command,
            _env(),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, go, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, send, _READY_FD),
            ],
            setsigmask=(),
        )
    except OSError as exc:
        for fd in (receive, held):
            if fd >= 0:
                os.close(fd)
        raise start_failed(state_dir, exc.strerror or str(exc)) from exc
    finally:
        os.close(send)
        os.close(go)
    return Starting(pid, receive, state_dir, held)


def package_folder() -> str:
    """The folder to put on PYTHONPATH so that this very package is found; empty where an installation finds it."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return "" if os.path.basename(folder).endswith("-packages") else folder


def search_path() -> str:
    """Where this process's user has Python look for modules: what hosts of custom services are told too."""
    return os.environ.get("PYTHONPATH", "")


# --------------------------------------------------------------------------- for the command line


def start_agent(state_dir: str) -> AgentInfo:
    """Make sure that an agent serves this project. Raises AgentError (E013)."""
    if not can_start(state_dir):
        raise AgentError(f"nothing was ever deployed from {state_dir}", remedy="Run `deploy-code deploy`")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (info := agent_status(state_dir)) is not None:
            return info
        spawn_agent(state_dir).finish()
        time.sleep(_RETRY_SECONDS)  # somebody else's agent may be about to listen, or to end
    raise start_failed(state_dir, f"it does not answer within {START_SECONDS:g} s")


def agent_status(state_dir: str, timeout: float = ANSWER_SECONDS) -> AgentInfo | None:
    """What the agent says of itself; None when none serves. Raises AgentError when it does not answer in time."""
    from deploy_code.codec import from_data

    try:
        sock = connect(state_dir)
    except OSError:
        return None
    with sock:
        answer = _ask(sock, "info", timeout)
    return None if answer is None else from_data(AgentInfo, answer)


def agent_drift(state_dir: str, timeout: float = COMPARE_SECONDS) -> Drifts | None:
    """What the agent finds to be not as it should; None when none serves. Raises AgentError as ``agent_status``."""
    from deploy_code.codec import from_data
    from deploy_code.model import Drifts

    try:
        sock = connect(state_dir)
    except OSError:
        return None
    with sock:
        answer = _ask(sock, "drift", timeout)
    return None if answer is None else from_data(Drifts, answer)


def stop_agent(state_dir: str, timeout: float = ANSWER_SECONDS) -> bool:
    """End the agent; instances stay, and nothing restarts or probes them. False when none was running.

    Raises AgentError when it does not end in time.
    """
    try:
        sock = connect(state_dir)
    except OSError:
        return False
    with sock:
        _ask(sock, "shutdown", timeout)
        deadline = time.monotonic() + timeout
        while _readable(sock.fileno(), deadline - time.monotonic()) and sock.recv(4096):
            pass
    while agent_is_alive(state_dir):  # its connections are closed; what is left is to write the last rows
        if time.monotonic() > deadline:
            raise AgentError(f"the agent does not end within {timeout:g} s", remedy="End its process")
        time.sleep(_RETRY_SECONDS)
    return True


def _ask(sock: socket.socket, operation: str, timeout: float) -> dict[str, Any] | None:
    """The answer to one request; None when the agent ended instead."""
    sock.settimeout(timeout)
    try:
        sock.sendall(json.dumps({"id": 1, "op": operation}).encode() + b"\n")
        line = _read_answer(sock)
    except TimeoutError as exc:
        raise AgentError(
            f"the agent does not answer within {timeout:g} s",
            meaning="It hangs, or the machine is overloaded",
            remedy="See agent.log in the project's state folder",
        ) from exc
    except OSError:
        return None
    if not line:
        return None
    message: dict[str, Any] = json.loads(line)
    if "error" in message:
        raise remote_error(message["error"])
    answer: dict[str, Any] = message["ok"]
    return answer


def remote_error(error: dict[str, str]) -> AgentError:
    """An error as the agent sent it; its code tells what it is."""
    return AgentError(
        error["message"], code=error["code"], meaning=error.get("meaning", ""), remedy=error.get("remedy", "")
    )


def start_failed(state_dir: str, reason: str) -> AgentError:
    log = os.path.join(state_dir, AGENT_LOG)
    return AgentError(
        f"the agent could not be started: {reason}",
        meaning="Nothing can be started, stopped or probed without it",
        remedy=f"See {log}",
    )


def _read_line(fd: int) -> bytes:
    data = b""
    while not data.endswith(b"\n") and (part := os.read(fd, 4096)):
        data += part
    return data


def _read_answer(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < LIMIT and (part := sock.recv(65536)):
        data += part
    return data


def _readable(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def _env() -> dict[str, str]:
    """Of ours what a program without a user needs, and the way to this package: no secret of the caller goes along."""
    env = {name: os.environ[name] for name in AGENT_ENV if name in os.environ}
    env.pop("PYTHONPATH", None)
    env.pop("NOTIFY_SOCKET", None)
    folder = package_folder()
    return env | {"PYTHONPATH": folder} if folder else env
