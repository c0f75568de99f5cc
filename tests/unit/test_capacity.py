"""What there is: control groups of both versions above us, memory, disk, GPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy_code.resources.capacity import cores, read_capacity, read_use
from deploy_code.resources.cgroups import cpu_limit, memory_limit
from deploy_code.resources.gpus import Gpu, gpus, visible

V2 = "30 24 0:26 {base} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "3{n} 31 0:3{n} {base} /sys/fs/cgroup/{name} rw,relatime shared:9 - cgroup cgroup rw,{name}"


class Machine:
    """A tree of files as /proc and /sys show them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write(
            "proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  6291456 kB\nHugePages_Total: 0\n"
        )
        self.write("proc/stat", "cpu  100 0 50 1000 20 0 5 0 0 0\ncpu0 1 1 1 1 1 1 1 1\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.rstrip("\n") + "\n")

    def in_group(self, *memberships: str, mounts: list[str]) -> None:
        self.write("proc/self/cgroup", "\n".join(memberships))
        self.write("proc/self/mountinfo", "\n".join(["22 1 8:1 / / rw - ext4 /dev/vda rw", *mounts]))

    def v2(self, path: str, *, base: str = "/") -> None:
        self.in_group(f"0::{path}", mounts=[V2.format(base=base)])

    def v1(self, path: str, *, base: str = "/") -> None:
        mounts = [V1.format(n=n, base=base, name=name) for n, name in enumerate(("memory", "cpu"))]
        self.in_group(f"4:memory:{path}", f"1:cpu:{path}", "0::/", mounts=mounts)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_control_groups_the_whole_machine_is_there(machine: Machine):
    root = str(machine.root)
    assert cpu_limit(root) is None
    assert memory_limit(root) is None
    assert cores(root) == len(os.sched_getaffinity(0))
    assert read_capacity(root, root=root).memory_mb == 8192


def test_a_quota_of_version_2_bounds_the_cores(machine: Machine):
    machine.v2("/user.slice/app")
    machine.write("sys/fs/cgroup/user.slice/app/cpu.max", "50000 100000")
    assert cores(str(machine.root)) == 0.5


def test_the_smallest_limit_on_the_way_up_counts(machine: Machine):
    machine.v2("/a/b/c")
    machine.write("sys/fs/cgroup/a/b/c/memory.max", str(4 << 30))
    machine.write("sys/fs/cgroup/a/b/memory.max", "max")
    machine.write("sys/fs/cgroup/a/memory.max", str(1 << 30))
    machine.write("sys/fs/cgroup/a/cpu.max", "150000 100000")
    machine.write("sys/fs/cgroup/a/b/c/cpu.max", "max 100000")
    assert read_capacity("/", root=str(machine.root)).memory_mb == 1024
    assert cpu_limit(str(machine.root)) == 1.5


def test_limits_of_version_1_are_found_by_controller(machine: Machine):
    machine.v1("/slice/app")
    machine.write("sys/fs/cgroup/memory/slice/app/memory.limit_in_bytes", str(512 << 20))
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    machine.write("sys/fs/cgroup/cpu/slice/cpu.cfs_quota_us", "25000")
    machine.write("sys/fs/cgroup/cpu/slice/cpu.cfs_period_us", "100000")
    machine.write("sys/fs/cgroup/cpu/slice/app/cpu.cfs_quota_us", "-1")
    assert read_capacity("/", root=str(machine.root)).memory_mb == 512
    assert cores(str(machine.root)) == 0.25


def test_a_container_sees_its_own_group_at_the_mount_point(machine: Machine):
    machine.v1("/docker/4711", base="/docker/4711")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", str(256 << 20))
    assert read_capacity("/", root=str(machine.root)).memory_mb == 256


def test_a_group_outside_of_what_is_mounted_falls_back_to_the_mount_point(machine: Machine):
    machine.v2("/../../other", base="/")
    machine.write("sys/fs/cgroup/memory.max", str(128 << 20))
    assert read_capacity("/", root=str(machine.root)).memory_mb == 128


def test_mount_points_with_blanks_are_understood(machine: Machine):
    machine.in_group("0::/", mounts=["30 24 0:26 / /sys/my\\040groups rw - cgroup2 cgroup2 rw"])
    machine.write("sys/my groups/memory.max", str(64 << 20))
    assert read_capacity("/", root=str(machine.root)).memory_mb == 64


def test_use_is_that_of_the_machine_or_of_the_group_whose_limit_binds(machine: Machine):
    assert read_use("/", root=str(machine.root)).memory_mb == 2048
    machine.v2("/app")
    machine.write("sys/fs/cgroup/app/memory.max", str(1 << 30))
    machine.write("sys/fs/cgroup/app/memory.current", str(300 << 20))
    machine.write("sys/fs/cgroup/app/memory.stat", f"anon 1\ninactive_file {100 << 20}")
    assert read_use("/", root=str(machine.root)).memory_mb == 200


def test_this_very_machine_can_be_read(tmp_path: Path):
    found = read_capacity(str(tmp_path / "not" / "there" / "yet"))
    assert 0 < found.cpu_cores <= len(os.sched_getaffinity(0))
    assert found.memory_mb > 0 and found.storage_gb >= 0
    assert read_use(str(tmp_path)).memory_mb > 0


# --------------------------------------------------------------------------- GPUs: none here, so NVML alone is faked


def nvml(*names: str, driver: bool = True) -> SimpleNamespace:
    """What we use of pynvml."""

    class NVMLError(Exception):
        pass

    def init() -> None:
        if not driver:
            raise NVMLError("NVML Shared Library Not Found")

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: names[handle],
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=16 << 30, used=1 << 30),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=40 + handle),
    )


def test_gpus_are_told_by_index_name_and_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml("T4", "L4"))
    assert gpus() == (
        Gpu(index=0, name="T4", memory_mb=16384, used_mb=1024, used_percent=40),
        Gpu(index=1, name="L4", memory_mb=16384, used_mb=1024, used_percent=41),
    )
    assert read_capacity("/").gpus == (0, 1)


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml("T4", driver=False))
    assert gpus() == ()


def test_without_the_extra_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus() == ()


def test_the_binding_of_nvidia_itself_says_no_on_a_machine_without_a_driver():
    pynvml = pytest.importorskip("pynvml", reason="the extra gpu is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert gpus() == ()
    else:
        pytest.skip("this machine has an NVIDIA driver")


def test_devices_are_shown_in_the_order_that_nvml_counts_in():
    assert visible((1, 3)) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,3"}
    assert visible(())["CUDA_VISIBLE_DEVICES"] == ""
