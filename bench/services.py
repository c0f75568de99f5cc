"""Many independent services: deploy against a bare loop and other supervisors, stop, status, the agent."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bare import BareLoop
from fleet import Fleet, fleet
from measure import Figure, median, say, spread, take_turns
from peers import Honcho, Supervisord, install
from product import Product, web_services

TITLE = "Many independent services"
COMMAND = "python bench/run.py services"
HOW = "`busybox httpd` each, http health check, Parallel, `max_parallel: 50`, no agent running"
ROUNDS = 5
ROUNDS_OF_MANY = 3
WATCHED_SECONDS = 30


def measure() -> list[Figure]:
    install()
    return [*_two_hundred(), *_a_thousand()]


def _two_hundred() -> list[Figure]:
    with fleet(200) as web:
        product, bare = _contenders(web)
        again: list[float] = []
        status: list[float] = []
        stops: list[float] = []
        bare_stops: list[float] = []

        def ours() -> float:
            product.forget()
            seconds = product.deploy()
            again.append(product.deploy())
            status.append(product.status())
            stops.append(product.stop())
            return seconds

        def loop() -> float:
            seconds = bare.start()
            bare_stops.append(bare.stop())
            return seconds

        contenders = {
            "bare loop": loop,
            "deploy-code": ours,
            "honcho": Honcho(web).time_start,
            "supervisord": Supervisord(web).time_start,
        }
        say(f"200 services, {ROUNDS} rounds of {', '.join(contenders)}")
        times = take_turns(contenders, ROUNDS)
        return [
            *_starts(200, times, factor=3.0),
            *_against_peers(times),
            _stop(stops, bare_stops),
            _under("second `deploy`, nothing changed", again, 0.6),
            _under("`status`", status, 0.3),
            *_agent(web, product),
        ]


def _a_thousand() -> list[Figure]:
    with fleet(1000) as web:
        product, bare = _contenders(web)

        def ours() -> float:
            product.forget()
            seconds = product.deploy()
            product.stop()
            return seconds

        def loop() -> float:
            seconds = bare.start()
            bare.stop()
            return seconds

        say(f"1,000 services, {ROUNDS_OF_MANY} rounds")
        times = take_turns({"bare loop": loop, "deploy-code": ours}, ROUNDS_OF_MANY)
        product.forget()
        return _starts(1000, times, factor=3.5)


def _contenders(web: Fleet) -> tuple[Product, BareLoop]:
    product = Product(web.folder)
    product.write(web_services(web))
    return product, BareLoop(web)


# --------------------------------------------------------------------------- figures


def _starts(size: int, times: dict[str, list[float]], *, factor: float) -> list[Figure]:
    bare, ours = median(times["bare loop"]), median(times["deploy-code"])
    limit = factor * bare + 0.7
    return [
        Figure(name=f"bare loop, {size:,} services up", value=spread(times["bare loop"])),
        Figure(
            name=f"`deploy`, {size:,} services healthy",
            value=f"{spread(times['deploy-code'])} = {ours / bare:.1f} × bare",
            target=f"≤ {factor:g} × bare + 0.7 s = {limit:.2f} s",
            met=ours <= limit,
            note=HOW,
            command=COMMAND,
        ),
    ]


def _against_peers(times: dict[str, list[float]]) -> list[Figure]:
    return [_faster_than("supervisord", times, 4.0), _faster_than("honcho", times, 1.0)]


def _faster_than(peer: str, times: dict[str, list[float]], factor: float) -> Figure:
    ratio = median(times[peer]) / median(times["deploy-code"])
    return Figure(
        name=f"{peer}, the same 200",
        value=f"{spread(times[peer])} = {ratio:.1f} × deploy-code",
        target=f"≥ {factor:g} ×" if factor > 1 else "> 1 ×",
        met=ratio >= factor if factor > 1 else ratio > 1,
        note="checks no health: timed until the ports accept",
        command=COMMAND,
    )


def _stop(ours: list[float], bare: list[float]) -> Figure:
    ratio = median(ours) / median(bare)
    return Figure(
        name="`stop` of 200",
        value=f"{spread(ours)} = {ratio:.1f} × bare ({median(bare):.2f} s)",
        target="≤ 2 × a loop that signals and reaps",
        met=ratio <= 2,
        command=COMMAND,
    )


def _under(name: str, times: list[float], limit: float) -> Figure:
    return Figure(
        name=f"{name}, 200 services",
        value=spread(times),
        target=f"< {limit:g} s",
        met=median(times) < limit,
        command=COMMAND,
    )


def _agent(web: Fleet, product: Product) -> list[Figure]:
    """Memory and processor of the agent while it watches 200 services."""
    say(f"the agent with 200 services, {WATCHED_SECONDS} s")
    product.forget()
    product.write(web_services(web, interval=10))
    product.deploy()
    pid = product.agent_pid()
    if pid is None:
        raise RuntimeError("the agent does not run although 200 services are deployed")
    time.sleep(5)  # past the probes of the start
    before = _cpu_seconds(pid)
    time.sleep(WATCHED_SECONDS)
    cpu = 100 * (_cpu_seconds(pid) - before) / WATCHED_SECONDS
    memory = _resident_mb(pid)
    product.stop()
    product.forget()
    how = "200 services, health checks every 10 s"
    return [
        Figure(
            name="agent, resident memory",
            value=f"{memory:.1f} MB",
            target="< 35 MB",
            met=memory < 35,
            note=how,
        ),
        Figure(name="agent, processor", value=f"{cpu:.2f} % of a core", target="< 2 %", met=cpu < 2, note=how),
    ]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
