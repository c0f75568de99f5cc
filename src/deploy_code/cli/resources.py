"""``deploy-code resources``: what this machine has, what of it is promised to whom, and what is in use now."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from deploy_code.cli.options import Options, command
from deploy_code.cli.output import emit, has_color
from deploy_code.errors import ConfigError

if TYPE_CHECKING:
    from deploy_code.resources.capacity import Capacity
    from deploy_code.resources.gpus import Gpu
    from deploy_code.resources.ledger import Promise

Data = dict[str, Any]


@command("resources", data=True)
@click.pass_obj
def resources(options: Options) -> None:
    """Show what this machine has, what is promised, what is used.

    Works from any folder, and without a project: then the disk is that of the default data_dir.
    """
    data = read(_data_dir(options))
    emit(data, options, lambda: resources_text(data, color=has_color(sys.stdout, options)))


def _data_dir(options: Options) -> str:
    """Whose disk: that of the project here, or the usual one."""
    from deploy_code.state.places import default_data_dir

    try:
        return os.path.dirname(os.path.realpath(options.app().identity.directories.state))
    except ConfigError:
        if options.config or options.project:
            raise
        return default_data_dir(os.environ)


def read(data_dir: str) -> Data:
    """Cores, MB of 2^20 bytes and GB of 2^30 bytes; GPUs as lists of indices. ``free`` knows no overcommit."""
    from deploy_code.resources.capacity import read_capacity, read_use
    from deploy_code.resources.gpus import gpus
    from deploy_code.resources.ledger import Ledger
    from deploy_code.resources.place import machine_dir, path_of
    from deploy_code.resources.written import here, written_gb

    promises: list[Promise] = []
    ports: dict[str, int] = {}
    home = machine_dir(data_dir)
    ledger = Ledger.reader(home)
    if ledger is not None:
        with ledger:
            promises, ports = ledger.promises(), ledger.leases()
    there, used = read_capacity(data_dir), read_use(data_dir)
    promised = _promised(here(promises, data_dir))
    return {
        "data_dir": data_dir,
        "ledger": path_of(home),
        "machine": _amounts(there),
        "promised": promised,
        "free": _free(there, promised, written_gb(here(promises, data_dir), data_dir)),
        "used": {"cpu_cores": used.cpu_cores, "memory_mb": used.memory_mb, "storage_gb": used.storage_gb},
        "gpus": [_gpu(each, promises) for each in gpus()],
        "promises": [_promise(each) for each in promises],
        "ports": ports,
    }


def _amounts(there: Capacity) -> Data:
    return {
        "cpu_cores": there.cpu_cores,
        "memory_mb": there.memory_mb,
        "storage_gb": there.storage_gb,
        "gpus": list(there.gpus),
    }


def _promised(promises: Sequence[Promise]) -> Data:
    from deploy_code.resources.amounts import total

    amount = total(each.resources for each in promises)
    return {
        "cpu_cores": amount.cpu_cores,
        "memory_mb": amount.memory_mb,
        "storage_gb": amount.storage_gb,
        "gpus": sorted(gpu for each in promises for gpu in each.gpus),
    }


def _free(there: Capacity, promised: Data, written: int) -> Data:
    return {
        "cpu_cores": max(0.0, round(there.cpu_cores - promised["cpu_cores"], 3)),
        "memory_mb": max(0, there.memory_mb - promised["memory_mb"]),
        "storage_gb": max(0, there.storage_gb + written - promised["storage_gb"]),
        "gpus": [gpu for gpu in there.gpus if gpu not in promised["gpus"]],
    }


def _gpu(gpu: Gpu, promises: Sequence[Promise]) -> Data:
    holder = next((each.label for each in promises if gpu.index in each.gpus), "")
    return {
        "index": gpu.index,
        "name": gpu.name,
        "memory_mb": gpu.memory_mb,
        "used_mb": gpu.used_mb,
        "used_percent": gpu.used_percent,
        "promised_to": holder,
    }


def _promise(promise: Promise) -> Data:
    from deploy_code.cli.times import iso

    amount = promise.resources
    return {
        "owner": promise.owner.name,
        "service": promise.service,
        "cpu_cores": amount.cpu_cores,
        "memory_mb": amount.memory_mb,
        "storage_gb": amount.storage_gb,
        "gpus": list(promise.gpus),
        "by_name": promise.is_allocated,
        "since": iso(promise.since),
    }


# --------------------------------------------------------------------------- as text


def resources_text(data: Data, *, color: bool) -> str:
    """The sums first, then who holds what."""
    from deploy_code.cli.tables import table

    machine, used = data["machine"], data["used"]
    rows = [
        ("machine", *_row(machine)),
        ("promised", *_row(data["promised"])),
        ("free", *_row(data["free"])),
        ("in use", f"{used['cpu_cores']:g}", f"{used['memory_mb']} MB", f"{used['storage_gb']} GB", _busy(data)),
    ]
    parts = [table(("", "CORES", "MEMORY", "DISK", "GPUS"), rows, color=color)]
    if data["promises"]:
        heads = ("PROJECT", "SERVICE", "CORES", "MEMORY", "DISK", "GPUS")
        listed = [(each["owner"], each["service"], *_row(each)) for each in data["promises"]]
        parts.append(table(heads, listed, color=color))
    else:
        parts.append("Nothing is promised.")
    return "\n\n".join(parts)


def _row(amounts: Data) -> tuple[str, str, str, str]:
    gpus = ", ".join(map(str, amounts["gpus"]))
    return f"{amounts['cpu_cores']:g}", f"{amounts['memory_mb']} MB", f"{amounts['storage_gb']} GB", gpus or "none"


def _busy(data: Data) -> str:
    return ", ".join(f"{gpu['index']}: {gpu['used_percent']} %" for gpu in data["gpus"]) or "none"
