"""The kernel's table of listening sockets: netlink sock_diag, else /proc/net.

Formats: linux/inet_diag.h, linux/netlink.h, Documentation/networking/proc_net_tcp.rst of the Linux source.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TCP_CLOSE, _TCP_LISTEN = 7, 10  # a bound, unconnected UDP socket is in state 7
_INET_DIAG_REQ_BYTECODE = 1
_BC_S_GE, _BC_S_LE = 2, 3
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48x")  # family, protocol, extensions, pad, states; an empty socket id
_MESSAGE = struct.Struct("=BBBB2s2s16s16s8I")  # struct inet_diag_msg
_BYTECODE_OP = struct.Struct("=BBH")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_PROTOCOLS = {"tcp": (socket.IPPROTO_TCP, _TCP_LISTEN), "udp": (socket.IPPROTO_UDP, _TCP_CLOSE)}


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening TCP or bound UDP socket."""

    protocol: str  # tcp | udp
    address: str
    port: int
    inode: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.protocol} {host}:{self.port}"


def tcp_listeners(port: int) -> list[Listener]:
    """Those that listen on TCP ``port``; the kernel sorts out the others."""
    try:
        return list(_ask_kernel("tcp", port))
    except OSError:  # no sock_diag (module missing, sandbox)
        return [entry for entry in _read_proc("tcp") if entry.port == port]


def listeners() -> list[Listener]:
    """All listening TCP and bound UDP sockets, of both families."""
    return [entry for protocol in _PROTOCOLS for entry in _all(protocol)]


def listeners_in_network_of(pid: int) -> list[Listener]:
    """The same in the network that process ``pid`` lives in; none for one that has gone."""
    try:
        return [entry for protocol in _PROTOCOLS for entry in _read_proc(protocol, f"/proc/{pid}/net")]
    except OSError:
        return []


def _all(protocol: str) -> list[Listener]:
    try:
        return list(_ask_kernel(protocol, None))
    except OSError:
        return list(_read_proc(protocol))


# --------------------------------------------------------------------------- netlink


def _ask_kernel(protocol: str, port: int | None) -> Iterator[Listener]:
    number, state = _PROTOCOLS[protocol]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        for family in _FAMILIES:
            netlink.send(_dump_request(family, number, 1 << state, port))
            for body in _answers(netlink):
                yield _parse(protocol, body)


def _dump_request(family: int, protocol: int, states: int, port: int | None) -> bytes:
    body = _REQUEST.pack(family, protocol, 0, 0, states) + (b"" if port is None else _only_port(port))
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body


def _only_port(port: int) -> bytes:
    """A filter for the kernel: source port ≥ port and ≤ port. Each op carries its jumps (yes, no) and, in a
    second
    op's ``no``, the port; a jump past the end by 4 rejects."""
    ops = _condition(_BC_S_GE, port, reject=20) + _condition(_BC_S_LE, port, reject=12)
    return struct.pack("=HH", 4 + len(ops), _INET_DIAG_REQ_BYTECODE) + ops


def _condition(code: int, port: int, *, reject: int) -> bytes:
    return _BYTECODE_OP.pack(code, 8, reject) + _BYTECODE_OP.pack(0, 0, port)


def _answers(netlink: socket.socket) -> Iterator[memoryview]:
    while True:
        data = memoryview(netlink.recv(1 << 18))
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError(-struct.unpack_from("=i", data, _HEADER.size)[0], "sock_diag refused")
            yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _parse(protocol: str, body: memoryview) -> Listener:
    family, _, _, _, port, _, source, *_, inode = _MESSAGE.unpack_from(body)
    address = source if family == socket.AF_INET6 else source[:4]
    return Listener(protocol, socket.inet_ntop(family, address), int.from_bytes(port, "big"), inode)


# --------------------------------------------------------------------------- /proc/net


def _read_proc(protocol: str, folder: str = "/proc/net") -> Iterator[Listener]:
    state = f"{_PROTOCOLS[protocol][1]:02X}"
    for family, suffix in zip(_FAMILIES, ("", "6"), strict=True):
        try:
            with open(f"{folder}/{protocol}{suffix}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state:
                yield _parse_line(protocol, family, fields)


def _parse_line(protocol: str, family: int, fields: list[str]) -> Listener:
    address, port = fields[1].split(":")
    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    return Listener(protocol, socket.inet_ntop(family, raw), int(port, 16), int(fields[9]))
