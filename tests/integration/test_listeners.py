"""Who listens where: real sockets of real processes, by netlink and by /proc."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from deploy_code.health import listeners, sockdiag
from deploy_code.health.listeners import Listeners

LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stranger():
    """Another process that listens: (pid, port)."""
    process = subprocess.Popen([sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process.pid, int(process.stdout.readline())
        process.stdin.close()


@pytest.fixture
def mine():
    """A listener of this very process: its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(params=["netlink", "proc"])
def source(request, monkeypatch):
    """Both ways to ask: the second is what is left where sock_diag is not to be had."""
    if request.param == "proc":

        def refused(*args):
            raise OSError("no sock_diag here")

        monkeypatch.setattr(sockdiag, "_ask_kernel", refused)
    return request.param


def test_a_listener_of_the_process_is_its_own(source, mine):
    assert listeners.owns(mine, [os.getpid()]) is True


def test_a_listener_of_a_child_counts_when_the_child_is_named(source, stranger):
    pid, port = stranger
    assert listeners.owns(port, [os.getpid(), pid]) is True


def test_a_listener_of_somebody_else_is_proven_foreign(source, stranger):
    _, port = stranger
    assert listeners.owns(port, [os.getpid()]) is False


def test_a_port_without_a_listener_cannot_be_told(source, mine):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listeners.owns(bound.getsockname()[1], [os.getpid()]) is None


def test_a_process_that_is_gone_proves_nothing(source, stranger):
    _, port = stranger
    child = subprocess.Popen(["true"])
    child.wait()
    assert listeners.owns(port, [child.pid]) is None
    assert listeners.owns(port, []) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_process_that_may_not_be_looked_into_proves_nothing(stranger):
    pid, port = stranger
    code = f"from deploy_code.health.listeners import owns; print(owns({port}, [{pid}]))"
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os, sys; sys.path[:] = {sys.path!r}\n{_IMPORTS}; os.setuid(65534); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "None"


_IMPORTS = "import deploy_code.health.listeners"


def test_the_stranger_is_named(source, stranger):
    pid, port = stranger
    assert Listeners().stranger(port).startswith(f"port {port} is answered by pid {pid} (")
    assert Listeners().stranger(port).endswith("), not by this service")
    assert listeners.holder(port).startswith(f"pid {pid} (")


def test_a_port_nobody_holds_any_more_is_still_worded():
    assert "another process" in Listeners().stranger(1)
    assert listeners.holder(1) == ""


def test_listeners_are_listed_with_protocol_and_address(source):
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        found = listeners.listening_ports([os.getpid()])
        assert f"tcp 127.0.0.1:{four.getsockname()[1]}" in found
        assert f"tcp [::1]:{six.getsockname()[1]}" in found
        assert f"udp 127.0.0.1:{udp.getsockname()[1]}" in found
        assert list(found) == sorted(found, key=lambda text: (text[:3], int(text.rpartition(":")[2])))


def test_a_process_without_sockets_listens_nowhere(source):
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert listeners.listening_ports([child.pid]) == ()
    finally:
        child.kill()
        child.wait()


def test_connections_are_not_taken_for_listeners(source, mine):
    with socket.create_connection(("127.0.0.1", mine)) as client:
        local = client.getsockname()[1]
        assert listeners.owns(local, [os.getpid()]) is None
        assert f"tcp 127.0.0.1:{local}" not in listeners.listening_ports([os.getpid()])


def test_netlink_and_proc_tell_the_same(mine):
    with socket.create_server(("::", 0), family=socket.AF_INET6) as six:
        ports = {mine, six.getsockname()[1]}
        by_netlink = {entry for entry in sockdiag._ask_kernel("tcp", None) if entry.port in ports}
        by_proc = {entry for entry in sockdiag._read_proc("tcp") if entry.port in ports}
        assert by_netlink == by_proc
        assert len(by_netlink) == 2
        assert set(sockdiag.tcp_listeners(mine)) == {entry for entry in by_proc if entry.port == mine}
        assert {entry.inode for entry in by_proc} <= set(listeners.listening_inodes())


def test_a_port_shared_with_a_stranger_is_owned_all_the_same():
    with socket.socket() as one, socket.socket() as two:
        for sock in (one, two):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 0))
        two.bind(one.getsockname())
        one.listen()
        two.listen()
        port = one.getsockname()[1]
        assert len(sockdiag.tcp_listeners(port)) == 2
        assert listeners.owns(port, [os.getpid()]) is True


def test_what_is_remembered_proves_only_while_the_process_holds_it(mine):
    known = Listeners()
    assert known.owns(mine, [os.getpid()]) is True
    assert known.owns(mine, [os.getpid()]) is True
    first = socket.create_server(("127.0.0.1", 0))
    port = first.getsockname()[1]
    assert known.owns(port, [os.getpid()]) is True
    first.close()
    assert known.owns(port, [os.getpid()]) is None


async def test_a_kernel_without_the_module_falls_back_to_proc(monkeypatch, mine):
    monkeypatch.setattr(sockdiag, "_NETLINK_SOCK_DIAG", 31)  # a protocol that no kernel has
    assert await asyncio.to_thread(listeners.owns, mine, [os.getpid()]) is True
