"""Many processes ask at once: no core, GPU or port is promised twice, and nobody is turned away without need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy_code.resources import Capacity, ResourceManager
from deploy_code.resources.ledger import Ledger
from support.ledgers import LedgerProject

PROCESSES = 12

ALLOCATE = """
import asyncio, json, sys
from deploy_code.errors import PreflightError
from deploy_code.model import Resources
from deploy_code.resources import Capacity, ResourceManager

manager = ResourceManager(sys.argv[1], capacity=Capacity(cpu_cores=4.0, memory_mb=4000, storage_gb=50, gpus=(0, 1, 2)))
print("ready", flush=True)
sys.stdin.readline()

async def main():
    made = []
    for n in range(3):
        try:
            made.append(await manager.allocate(f"a{n}", Resources(cpu_cores=0.5, memory_mb=100, gpu_count=n % 2)))
        except PreflightError as error:
            assert error.code == "E004", error
    return made

made = asyncio.run(main())
print(json.dumps([[each.cpu_cores, list(each.gpus)] for each in made]), flush=True)
sys.stdin.readline()
"""

LEASE = """
import json, sys
from deploy_code.agent.share import Share

share = Share(sys.argv[1], "")
print("ready", flush=True)
sys.stdin.readline()
mine = set()
for n in range(4):
    mine |= set(share.lease(range(30000, 30000 + 2000), ()))
print(json.dumps(sorted(mine)), flush=True)
sys.stdin.readline()
"""


class Crowd:
    """So many processes of one program, let go at the same moment, and alive until the end."""

    def __init__(self, program: str, arguments: Sequence[Path]) -> None:
        command = [sys.executable, "-c", program]
        self.processes = [
            subprocess.Popen([*command, each], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for each in arguments
        ]

    def __enter__(self) -> Crowd:
        for each in self.processes:
            assert each.stdout and each.stdout.readline() == "ready\n"
        return self

    def go(self) -> list[list]:
        self._line()
        return [json.loads(each.stdout.readline()) for each in self.processes if each.stdout]

    def _line(self) -> None:
        for each in self.processes:
            assert each.stdin
            each.stdin.write("\n")
            each.stdin.flush()

    def __exit__(self, *exc_info: object) -> None:
        for each in self.processes:
            each.communicate()


def test_processes_that_allocate_at_once_share_what_there_is_and_no_more(tmp_path: Path):
    with Crowd(ALLOCATE, [tmp_path] * PROCESSES) as crowd:
        made = [each for one in crowd.go() for each in one]
        gpus = [gpu for _, held in made for gpu in held]
        assert sum(cpu for cpu, _ in made) == 4.0, "all of it, and no more"
        assert len(gpus) == len(set(gpus)) and set(gpus) <= {0, 1, 2}
        manager = ResourceManager(tmp_path, capacity=Capacity(cpu_cores=4.0, memory_mb=4000, gpus=(0, 1, 2)))
        assert len(manager.allocations(everyone=True)) == len(made)
    assert manager.available().cpu_cores == 4.0, "they have all ended"


def test_agents_that_lease_ports_at_once_get_different_ones(tmp_path: Path):
    projects = [LedgerProject(tmp_path, f"p{n}") for n in range(PROCESSES // 2)]
    with Crowd(LEASE, [each.folder for each in projects]) as crowd:
        leased = [set(each) for each in crowd.go()]
    assert all(leased)
    assert sum(map(len, leased)) == len(set().union(*leased)), "no port twice"
    with Ledger.open(str(tmp_path)) as ledger:
        assert sum(ledger.leases().values()) == sum(map(len, leased))
