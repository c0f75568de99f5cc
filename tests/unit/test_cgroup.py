"""Where control groups can be made, told from what /proc says and what folders allow.

The trees here are ordinary folders laid out as the kernel lays out its own: the words that are read and written are the
kernel's, but nothing enforces them. What is really enforced is tested in integration/test_limits.py, in whichever
version the machine has.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy_code.drivers.cgroup import CONTROLLERS, Found, Hierarchy, find, found_in, limited
from deploy_code.drivers.group import Group
from deploy_code.drivers.groups import domain
from deploy_code.model import Resources
from support.groups import as_nobody

ALL = frozenset(CONTROLLERS)
LIMITS = Resources(cpu_cores=1.5, memory_mb=64)
UUID = "0123456789abcdef"


def group(path: Path, **files: str) -> Path:
    """A folder like one of the kernel's; keywords name files, ``__`` for the dot."""
    path.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup__procs": "", **files}.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def tree(root: Path, *, offered: str = "cpuset cpu io memory pids", given: str = "") -> Path:
    """The root of version 2: processes of its own do not matter there."""
    return group(root, cgroup__procs="1\n2\n", cgroup__controllers=offered, cgroup__subtree_control=given)


def inner(path: Path, *, offered: str = "cpu memory pids", given: str = "", procs: str = "") -> Path:
    files = {"cgroup__controllers": offered, "cgroup__subtree_control": given, "cgroup__procs": procs}
    return group(path, cgroup__type="domain\n", **files)


def mount(point: Path | str, fstype: str = "cgroup2", options: str = "rw", root: str = "/") -> str:
    return f"35 24 0:30 {root} {point} rw,nosuid shared:9 - {fstype} {fstype} {options}\n"


# --------------------------------------------------------------------------- version 2


def test_the_top_of_the_tree_is_taken_where_it_may_be_written(tmp_path: Path):
    tree(tmp_path)
    inner(tmp_path / "system.slice" / "ssh.service", procs="77\n")
    found = found_in(mount(tmp_path), "0::/system.slice/ssh.service\n")
    assert found == Found((Hierarchy(str(tmp_path), True, ALL),))
    assert found.unenforced(LIMITS) == ""


def test_the_agent_in_its_part_of_a_unit_takes_the_rest_of_the_unit(tmp_path: Path):
    tree(tmp_path)
    unit = inner(tmp_path / "system.slice" / "deploy-code-shop.service")
    inner(unit / "agent", procs="77\n")
    found = found_in(mount(tmp_path), "0::/system.slice/deploy-code-shop.service/agent\n")
    assert found.hierarchies == (Hierarchy(str(unit), True, ALL),)


def test_a_container_whose_group_is_in_use_cannot_divide_it(tmp_path: Path):
    inner(tmp_path, procs="1\n")
    found = found_in(mount(tmp_path), "0::/\n")
    assert found.hierarchies == ()
    assert found.unenforced(LIMITS) == "CPU and memory"
    assert "containers" in found.reason


def test_a_container_whose_group_is_divided_already_can_be_used(tmp_path: Path):
    inner(tmp_path, procs="1\n", given="cpu memory pids")
    assert found_in(mount(tmp_path), "0::/init\n").hierarchies == (Hierarchy(str(tmp_path), True, ALL),)


def test_only_what_was_handed_down_can_be_limited(tmp_path: Path):
    tree(tmp_path, offered="memory pids")
    found = found_in(mount(tmp_path), "0::/\n")
    assert found.unenforced(LIMITS) == "CPU"
    assert found.unenforced(Resources(memory_mb=1, pids=9)) == ""


def test_a_group_outside_of_what_is_mounted_is_no_path(tmp_path: Path):
    tree(tmp_path)
    for place in ("/../../elsewhere", "/other"):
        found = found_in(mount(tmp_path, root="/mine"), f"0::{place}\n")
        assert [each.folder for each in found.hierarchies] == [str(tmp_path)]


def test_mount_points_with_spaces_are_understood(tmp_path: Path):
    point = tmp_path / "control groups"
    tree(point)
    found = found_in(mount(str(point).replace(" ", r"\040")), "0::/\n")
    assert [each.folder for each in found.hierarchies] == [str(point)]


# --------------------------------------------------------------------------- version 1, and both


def hybrid(folder: Path) -> tuple[str, str]:
    """CPU and memory in version 1, and a version 2 that only knows members: texts of mountinfo and cgroup."""
    for name in ("cpu,cpuacct", "memory", "pids"):
        group(folder / name)
    tree(folder / "unified", offered="")
    mounts = "".join(mount(folder / name, "cgroup", f"rw,{name}") for name in ("cpu,cpuacct", "memory", "pids"))
    return mounts + mount(folder / "unified"), "4:memory:/\n3:cpu,cpuacct:/\n2:pids:/\n1:name=systemd:/\n0::/\n"


def test_version_1_is_used_where_it_has_the_controllers_and_version_2_tells_the_members(tmp_path: Path):
    found = found_in(*hybrid(tmp_path))
    assert found.hierarchies == (
        Hierarchy(str(tmp_path / "unified"), True, frozenset()),
        Hierarchy(str(tmp_path / "cpu,cpuacct"), False, frozenset({"cpu"})),
        Hierarchy(str(tmp_path / "memory"), False, frozenset({"memory"})),
        Hierarchy(str(tmp_path / "pids"), False, frozenset({"pids"})),
    )


def test_members_alone_are_no_limits(tmp_path: Path):
    tree(tmp_path, offered="")
    assert found_in(mount(tmp_path), "0::/\n").hierarchies == ()


def test_a_hierarchy_that_wants_cpus_assigned_first_is_left_alone(tmp_path: Path):
    group(tmp_path)
    found = found_in(mount(tmp_path, "cgroup", "rw,cpuset,cpu"), "3:cpuset,cpu:/\n")
    assert found.unenforced(LIMITS) == "CPU and memory"


# --------------------------------------------------------------------------- whoever asks


def test_a_machine_without_control_groups_says_so():
    assert found_in("24 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "0::/\n").reason == "no control groups are mounted"


def test_looking_never_fails_and_creates_nothing(tmp_path: Path):
    tree(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found_in(mount(tmp_path), "0::/\n")
    assert sorted(tmp_path.rglob("*")) == before
    assert "cannot be read" in find(2**22 + 1).reason, "there is no such process"
    found_in("", "")
    found_in("nonsense - cgroup2\n", "nonsense\n0:\n")


def test_an_ordinary_user_without_a_part_of_the_tree_is_told_what_to_do():
    with as_nobody():
        found = find()
        missing = found.unenforced(LIMITS)
    assert missing == "CPU and memory"
    assert "uid 65534" in found.reason and "Delegate=yes" in found.reason


def test_only_what_is_above_zero_is_a_limit():
    assert limited(Resources(storage_gb=5, gpu_count=1)) == frozenset()
    assert limited(Resources(cpu_cores=0.1)) == {"cpu"}
    assert limited(Resources(pids=1)) == {"pids"}


def test_what_cannot_be_limited_reads_as_a_list():
    everything = Resources(cpu_cores=1, memory_mb=64, pids=9)
    assert Found().unenforced(everything) == "CPU, memory and process"
    assert Found().unenforced(Resources(pids=9)) == "process"


# --------------------------------------------------------------------------- what is written


def ready_made(hierarchy: Hierarchy, *files: str) -> Path:
    """The instance's folder with the files that the kernel would put there."""
    folder = Path(hierarchy.folder, "deploy-code", "shop")
    for each in (folder.parent, folder):
        group(each, cgroup__subtree_control="")
    return group(folder / UUID, **dict.fromkeys((name.replace(".", "__") for name in files), ""))


def test_limits_of_version_2_in_the_kernels_words(tmp_path: Path):
    """On folders: the texts are right, that the kernel obeys them is not shown here."""
    tree(tmp_path, given="io")
    hierarchy = Hierarchy(str(tmp_path), True, ALL)
    folder = ready_made(hierarchy, "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max")
    made = Group.make(Found((hierarchy,)), "shop", UUID, replace(LIMITS, pids=9))
    assert made is not None
    texts = {name: (folder / name).read_text() for name in ("memory.max", "memory.swap.max", "cpu.max")}
    assert texts == {"memory.max": str(64 * 1024 * 1024), "memory.swap.max": "0", "cpu.max": "150000 100000"}
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "pids.max").read_text() == "9"
    for parent in (tmp_path, folder.parent.parent, folder.parent):
        assert (parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_what_was_killed_for_want_of_memory_is_read_in_both_versions(tmp_path: Path):
    new = group(tmp_path / "new", memory__events="low 0\nhigh 4\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n")
    old = group(tmp_path / "old", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert Group.remembered({"cgroup": f"v2 {new}"}).oom_kills() == 2  # type: ignore[union-attr]
    assert Group.remembered({"cgroup": f"v2 {tmp_path}\nv1 {old}"}).oom_kills() == 5  # type: ignore[union-attr]
    assert Group.remembered({"cgroup": f"v2 {tmp_path / 'gone'}"}).oom_kills() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("cores", "written"),
    [
        (0.5, "50000 100000"),
        (2, "200000 100000"),
        (0.01, "1000 100000"),
        (0.005, "5000 1000000"),
        (1e-5, "1000 1000000"),
    ],
)
def test_a_small_share_of_a_core_is_still_one_that_the_kernel_takes(tmp_path: Path, cores: float, written: str):
    tree(tmp_path, given="cpu memory")
    hierarchy = Hierarchy(str(tmp_path), True, ALL)
    folder = ready_made(hierarchy, "cpu.max")
    Group.make(Found((hierarchy,)), "shop", UUID, Resources(cpu_cores=cores))
    assert (folder / "cpu.max").read_text() == written


def test_swap_is_no_way_around_the_limit_in_version_1(tmp_path: Path):
    for counted in (True, False):
        hierarchy = Hierarchy(str(group(tmp_path / str(counted))), False, frozenset({"memory"}))
        swap = "memory.memsw.limit_in_bytes" if counted else "memory.swappiness"
        folder = ready_made(hierarchy, "memory.limit_in_bytes", swap)
        Group.make(Found((hierarchy,)), "shop", UUID, LIMITS)
        size = str(64 * 1024 * 1024)
        assert (folder / "memory.limit_in_bytes").read_text() == size
        assert (folder / swap).read_text() == (size if counted else "0")


def test_what_is_remembered_finds_the_group_again(tmp_path: Path):
    hierarchies = found_in(*hybrid(tmp_path)).hierarchies
    for each in hierarchies:
        ready_made(each, "cpu.cfs_period_us", "cpu.cfs_quota_us", "memory.limit_in_bytes")
    made = Group.make(Found(hierarchies), "shop", UUID, LIMITS)
    assert made is not None
    again = Group.remembered(made.memory)
    assert again is not None and again.folders == made.folders
    assert Group.remembered({"stop_signal": "SIGTERM"}) is None


def test_two_projects_of_the_same_name_never_share_a_group():
    one, other = domain("/var/lib/deploy-code/shop"), domain("/home/ada/state/shop")
    assert one != other and one.startswith("shop-") and other.startswith("shop-")
    assert "/" not in domain("/var/lib/deploy-code/my shop/..") and " " not in domain("/srv/my shop")
