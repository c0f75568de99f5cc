"""Cores, memory, disk, GPUs and ports of one machine, shared by projects that know nothing of each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy_code.resources.capacity import cores, read_capacity
from deploy_code.resources.place import FOLDER, path_of
from support.ledgers import holders, promises
from support.ports import free_port, free_range
from support.project import ProjectFolder
from support.scenarios import (
    agent_pid,
    env_of,
    instances,
    kill_hard,
    one_shot,
    pid_of,
    pids,
    program,
    sleeper,
    until,
    until_gone,
    write_program,
)

CORES = cores()
QUICK = {"stop_timeout_seconds": 2, "min_ready_seconds": 0.05}

# The devices that a machine with GPUs has; there are none here. All the rest is real.
NVML = """
from types import SimpleNamespace
class NVMLError(Exception): pass
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 3
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return f"GPU {handle}"
def nvmlDeviceGetMemoryInfo(handle): return SimpleNamespace(total=16 << 30, used=1 << 30)
def nvmlDeviceGetUtilizationRates(handle): return SimpleNamespace(gpu=7)
"""


def holding(**resources: float) -> dict[str, Any]:
    """A service that runs and holds these."""
    return sleeper(resources=resources, **QUICK)


@pytest.fixture
def shop(make_project: Callable[..., ProjectFolder]) -> ProjectFolder:
    return make_project("shop")


@pytest.fixture
def blog(make_project: Callable[..., ProjectFolder]) -> ProjectFolder:
    """Another project of the same machine, with a data_dir of its own."""
    return make_project("blog")


# --------------------------------------------------------------------------- refused, before anything was changed


def test_a_deployment_that_asks_for_more_than_there_is_is_refused(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES + 1, memory_mb=10**9)})
    said = shop.cli("deploy").exits(1).stderr
    assert "E004 INSUFFICIENT_RESOURCES" in said
    assert f"cpu: {CORES + 1:g} cores are needed (web {CORES + 1:g}), {CORES:g} of {CORES:g} cores are free" in said
    assert f"memory: {10**9} MB are needed" in said, "all that is short is said at once"
    assert "--force" in said and "overcommit" in said
    assert shop.cli("history", "--format", "json").json() == []
    assert promises(shop.machine_dir) == {}


def test_a_dry_run_says_the_same_and_creates_nothing(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES + 1)})
    assert "E004" in shop.cli("plan").exits(1).stderr
    assert "E004" in shop.cli("--dry-run", "deploy").exits(1).stderr
    shop.write({"web": holding(cpu_cores=CORES)})
    shop.cli("plan").ok()
    assert not shop.data_dir.exists()


def test_replicas_are_counted(shop: ProjectFolder):
    shop.write({"web": sleeper(resources={"cpu_cores": CORES}, replicas=2)})
    assert f"{2 * CORES:g} cores are needed" in shop.cli("deploy").exits(1).stderr


def test_what_another_project_holds_is_not_free_until_it_stops(shop: ProjectFolder, blog: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES)})
    shop.cli("deploy").ok()
    blog.write({"api": holding(cpu_cores=0.5)})
    said = blog.cli("deploy").exits(1).stderr
    assert f"cpu: 0.5 cores are needed (api 0.5), 0 of {CORES:g} cores are free (0.5 cores short)" in said
    assert f"shop/web holds {CORES:g} core" in said
    shop.cli("stop").ok()
    blog.cli("deploy").ok()
    assert promises(shop.machine_dir)["blog/api"].cpu_cores == 0.5


def test_more_of_the_same_is_refused_and_what_runs_goes_on(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES)})
    shop.cli("deploy").ok()
    before = pid_of(shop, "web")
    assert "E004" in shop.cli("scale", "web=2").exits(1).stderr
    assert pid_of(shop, "web") == before
    assert promises(shop.machine_dir)["shop/web"].cpu_cores == CORES


def test_a_dry_run_of_more_of_the_same_says_so_too(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES)})
    shop.cli("deploy").ok()
    assert "E004" in shop.cli("--dry-run", "scale", "web=2").exits(1).stderr
    shop.cli("--dry-run", "--force", "scale", "web=2").ok()
    shop.cli("--dry-run", "stop").ok()


def test_a_service_may_use_what_the_one_shot_before_it_has_used(shop: ProjectFolder):
    job = one_shot("pass") | {"resources": {"cpu_cores": CORES}}
    web = holding(cpu_cores=CORES) | {"dependencies": [{"service": "job", "condition": "completed"}]}
    shop.write({"job": job, "web": web})
    shop.cli("deploy").ok()
    assert {name: each.cpu_cores for name, each in promises(shop.machine_dir).items()} == {"shop/web": CORES}


def test_a_renamed_service_needs_no_more_than_it_had(shop: ProjectFolder):
    write_program(shop)
    port = free_port()
    shop.write({"web": program(port, resources={"cpu_cores": CORES})})
    shop.cli("deploy").ok()
    shop.write({"api": program(port, resources={"cpu_cores": CORES})})
    shop.cli("deploy").ok()
    assert {name: each.cpu_cores for name, each in promises(shop.machine_dir).items()} == {"shop/api": CORES}
    shop.write({"last": program(port, "exit", 3, resources={"cpu_cores": CORES})})
    shop.cli("deploy").exits(1)
    assert {name: each.cpu_cores for name, each in promises(shop.machine_dir).items()} == {"shop/api": CORES}
    assert list(pids(shop)) == ["api"], "the way back fits, too"


def test_less_always_fits(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES + 2)})
    shop.cli("--force", "deploy").ok()
    shop.write({"web": holding(cpu_cores=CORES + 1)})
    shop.cli("deploy").ok()
    shop.cli("restart").ok()
    shop.cli("rollback").exits(1)  # back to more, which was forced and is no good deployment
    shop.cli("stop").ok()
    assert promises(shop.machine_dir) == {}


# --------------------------------------------------------------------------- on purpose


def test_with_force_it_is_a_warning_and_it_is_written_down(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES + 1)})
    done = shop.cli("--force", "deploy").ok()
    assert "E004 INSUFFICIENT_RESOURCES: cpu:" in done.stderr and "(forced)" in done.stderr
    assert promises(shop.machine_dir)["shop/web"].cpu_cores == CORES + 1


def test_without_its_phase_nothing_is_checked_and_all_is_written_down(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=CORES + 1)})
    assert "E004" not in shop.cli("deploy", "--skip-phases", "resources").ok().output
    assert promises(shop.machine_dir)["shop/web"].cpu_cores == CORES + 1


def test_overcommit_promises_more_than_there_is(shop: ProjectFolder):
    services = {"web": holding(cpu_cores=2 * CORES)}
    storage = {"data_dir": str(shop.data_dir), "log_dir": str(shop.log_dir)}
    shop.write(services, infrastructure={"storage": storage, "overcommit": {"cpu": 2.0}})
    shop.cli("deploy").ok()
    shop.write(services, infrastructure={"storage": storage, "overcommit": {"cpu": 1.5}})
    shop.cli("deploy").ok()  # what it holds is not taken from it


def test_a_project_that_asks_for_nothing_leaves_no_ledger(shop: ProjectFolder):
    shop.write({"web": sleeper(**QUICK)})
    shop.cli("deploy").ok()
    assert not Path(path_of(str(shop.machine_dir))).exists()


def imported(project: ProjectFolder, *command: str) -> set[str]:
    """Our modules that one command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deploy_code", *command],
        cwd=project.folder,
        env={**os.environ, **project.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    return {name for name in names if name.startswith("deploy_code.")}


def test_a_project_that_asks_for_nothing_does_not_pay_for_those_that_do(shop: ProjectFolder, blog: ProjectFolder):
    shop.write({"web": holding(cpu_cores=0.1)})
    shop.cli("deploy").ok()
    blog.write({"api": sleeper(**QUICK)})
    blog.cli("deploy").ok()
    blog.write({"api": sleeper(**QUICK, env={"V": "2"})})
    for command in ("deploy", "deploy", "status"):
        names = imported(blog, command)
        assert {name for name in names if name.startswith("deploy_code.resources.")} <= {"deploy_code.resources.place"}
        assert "deploy_code.drivers.cgroup" not in names


# --------------------------------------------------------------------------- exact again, whatever happened


@pytest.mark.parametrize("lost", ["deleted", "damaged and moved away"])
def test_a_ledger_that_was_lost_is_written_again_by_the_next_deploy(shop: ProjectFolder, lost: str):
    shop.write({"web": holding(cpu_cores=0.5)})
    shop.cli("deploy").ok()
    ledger = shop.machine_dir / FOLDER
    if lost == "deleted":
        shutil.rmtree(ledger)
    else:
        for each in ledger.iterdir():
            each.write_bytes(b"this is no database, and never was one")
        assert "damaged" in shop.cli("resources").exits(1).stderr
        ledger.rename(shop.machine_dir / "damaged")
    assert "Nothing to deploy" in shop.cli("deploy").ok().stdout
    assert {name: each.cpu_cores for name, each in promises(shop.machine_dir).items()} == {"shop/web": 0.5}


def test_two_projects_of_one_name_are_told_apart(shop: ProjectFolder, make_project: Callable[..., ProjectFolder]):
    other = make_project("shop", shop.folder.parent / "elsewhere")
    shop.write({"web": holding(cpu_cores=CORES)})
    shop.cli("deploy").ok()
    other.write({"web": holding(cpu_cores=CORES)})
    assert f"; {shop.state}/web holds {CORES:g} core" in other.cli("deploy").exits(1).stderr


def test_a_deployment_that_failed_gives_back_what_it_had_set_aside(shop: ProjectFolder):
    write_program(shop)
    shop.write({"web": holding(cpu_cores=0.5)})
    shop.cli("deploy").ok()
    broken = program(free_port(), "exit", 3, resources={"cpu_cores": 1, "memory_mb": 64})
    shop.write({"web": holding(cpu_cores=0.75), "api": broken})
    shop.cli("deploy").exits(1)
    assert {name: each.cpu_cores for name, each in promises(shop.machine_dir).items()} == {"shop/web": 0.5}


def test_a_one_shot_holds_its_own_only_while_it_runs(shop: ProjectFolder):
    job = one_shot("import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)")
    shop.write({"job": job | {"resources": {"cpu_cores": 1}}})
    running = shop.start("deploy")
    until(lambda: promises(shop.machine_dir).get("shop/job"), "it is promised its core")
    (shop.folder / "go").touch()
    assert running.communicate(timeout=30) and running.returncode == 0
    assert promises(shop.machine_dir) == {}


def test_a_killed_deployment_is_undone_and_the_ledger_with_it(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=0.5)})
    shop.cli("deploy").ok()
    stuck = one_shot("import time; time.sleep(1000)") | {"resources": {"cpu_cores": 0.25}}
    shop.write({"web": holding(cpu_cores=1), "job": stuck})
    with shop.start("deploy") as running:
        until(lambda: "job" in pids(shop), "the one-shot runs")
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
    assert promises(shop.machine_dir)["shop/web"].cpu_cores == 1, "whoever recovers it may need all of it"
    shop.cli("recover").exits(1)
    assert {name: each.cpu_cores for name, each in promises(shop.machine_dir).items()} == {"shop/web": 0.5}


def test_a_deployment_that_its_hook_refuses_holds_nothing(shop: ProjectFolder):
    shop.write({"web": holding(cpu_cores=1)}, hooks={"pre_deploy": ["/bin/false"]})
    shop.cli("deploy").exits(1)
    assert promises(shop.machine_dir) == {}


# --------------------------------------------------------------------------- GPUs


@pytest.fixture
def with_gpus(shop: ProjectFolder) -> ProjectFolder:
    folder = shop.folder / "nvml"
    folder.mkdir()
    (folder / "pynvml.py").write_text(NVML)
    shop.env["PYTHONPATH"] = str(folder)
    return shop


def visible(project: ProjectFolder, service: str) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each instance, from the process itself."""
    found = [env_of(pid) for pid in sorted(pids(project).get(service, ()))]
    return sorted(env.get("CUDA_VISIBLE_DEVICES", "not set") for env in found)


def test_each_instance_sees_its_own_gpus_and_no_other(with_gpus: ProjectFolder):
    with_gpus.write({"train": sleeper(resources={"gpu_count": 1}, replicas=3, **QUICK), "web": holding(cpu_cores=0.1)})
    with_gpus.cli("deploy").ok()
    assert visible(with_gpus, "train") == ["0", "1", "2"]
    assert visible(with_gpus, "web") == ["not set"]
    with_gpus.cli("scale", "train=1").ok()
    assert holders(with_gpus.machine_dir) == {"shop/train": tuple(map(int, visible(with_gpus, "train")))}


def test_an_instance_keeps_its_gpus_over_restarts(with_gpus: ProjectFolder):
    restart = {"backoff_seconds": 0.05}
    with_gpus.write({"train": sleeper(resources={"gpu_count": 2}, restart=restart, **QUICK)})
    with_gpus.cli("deploy").ok()
    assert visible(with_gpus, "train") == ["0,1"]
    first = pid_of(with_gpus, "train")
    kill_hard(first)
    until(lambda: pids(with_gpus).get("train") and pid_of(with_gpus, "train") != first, "it was restarted")
    assert visible(with_gpus, "train") == ["0,1"]


def test_a_new_agent_knows_whose_gpus_are_whose(with_gpus: ProjectFolder):
    with_gpus.write({"a": sleeper(resources={"gpu_count": 1}, **QUICK)})
    with_gpus.cli("deploy").ok()
    kill_hard(agent_pid(with_gpus))
    with_gpus.write(
        {"a": sleeper(resources={"gpu_count": 1}, **QUICK), "b": sleeper(resources={"gpu_count": 2}, **QUICK)}
    )
    with_gpus.cli("deploy").ok()
    assert visible(with_gpus, "a") == ["0"] and visible(with_gpus, "b") == ["1,2"]


def test_gpus_that_are_not_there_are_not_promised(with_gpus: ProjectFolder):
    with_gpus.write({"train": holding(gpu_count=4)})
    assert (
        "gpu: 4 GPUs are needed (train 4), 3 of 3 GPUs are free (1 GPU short)"
        in with_gpus.cli("deploy").exits(1).stderr
    )
    with_gpus.cli("--force", "deploy").ok()
    assert visible(with_gpus, "train") == ["0,1,2"]
    shown = with_gpus.cli("resources", "--format", "json").ok().json()
    assert [gpu["promised_to"] for gpu in shown["gpus"]] == ["shop/train"] * 3
    assert shown["free"]["gpus"] == []


# --------------------------------------------------------------------------- ports


def many(count: int) -> dict[str, Any]:
    """So many instances that each need a port of their own."""
    return {
        "command": "busybox",
        "args": ["httpd", "-f", "-p", "127.0.0.1:${PORT}"],
        "ports": [{"dynamic": True}],
        "replicas": count,
        "stop_timeout_seconds": 2,
    }


def ports_of(project: ProjectFolder, service: str) -> set[int]:
    return {number for each in instances(project, service) for number in each["ports"].values()}


def test_two_projects_never_choose_the_same_port(shop: ProjectFolder, blog: ProjectFolder, busybox: Path):
    first, last = free_range(16)
    network = {"network": {"port_range": {"start": first, "end": last}}}
    storage = {"storage": {"data_dir": str(shop.data_dir), "log_dir": str(shop.log_dir)}}
    shop.write({"web": many(8)}, infrastructure=storage | network)
    blog.write({"web": many(8)}, infrastructure=network)
    both = [shop.start("deploy"), blog.start("deploy")]
    for each in both:
        out, err = each.communicate(timeout=60)
        assert each.returncode == 0, out + err
    mine, theirs = ports_of(shop, "web"), ports_of(blog, "web")
    assert len(mine) == len(theirs) == 8 and not mine & theirs


def test_ports_are_free_for_others_when_nothing_runs_any_more(shop: ProjectFolder, blog: ProjectFolder, busybox: Path):
    shop.write({"web": many(3)})
    shop.cli("deploy").ok()
    assert shop.cli("resources", "--format", "json").ok().json()["ports"]["shop"] >= 3
    shop.cli("stop").ok()
    until_gone(shop)
    assert shop.cli("resources", "--format", "json").ok().json()["ports"] == {}


# --------------------------------------------------------------------------- the command


def test_resources_shows_machine_promises_what_is_free_and_what_is_used(shop: ProjectFolder, blog: ProjectFolder):
    shop.write({"web": holding(cpu_cores=0.5, memory_mb=256)})
    shop.cli("deploy").ok()
    blog.write({"api": holding(cpu_cores=0.25, storage_gb=1)})
    blog.cli("deploy").ok()
    shown = blog.cli("resources", "--format", "json").ok().json()
    there = read_capacity(str(shop.data_dir))
    assert shown["machine"]["cpu_cores"] == there.cpu_cores
    assert shown["machine"]["memory_mb"] == there.memory_mb
    assert shown["promised"] == {"cpu_cores": 0.75, "memory_mb": 256, "storage_gb": 1, "gpus": []}
    assert shown["free"]["cpu_cores"] == there.cpu_cores - 0.75
    assert shown["free"]["memory_mb"] == there.memory_mb - 256
    assert 0 < shown["used"]["memory_mb"] <= there.memory_mb
    assert {(each["owner"], each["service"], each["cpu_cores"]) for each in shown["promises"]} == {
        ("shop", "web", 0.5),
        ("blog", "api", 0.25),
    }
    text = shop.cli("resources").ok().stdout
    assert "promised  0.75" in text and "in use" in text
    assert any(line.split()[:5] == ["shop", "web", "0.5", "256", "MB"] for line in text.splitlines())


def test_resources_works_from_any_folder_and_creates_nothing(shop: ProjectFolder):
    shown = shop.cli("resources").ok().stdout
    assert "Nothing is promised." in shown or "PROJECT" in shown
    shop.write({"web": sleeper()})
    assert "Nothing is promised." in shop.cli("resources").ok().stdout
    assert not shop.data_dir.exists()


def test_resources_names_a_file_that_was_asked_for_and_is_not_there(shop: ProjectFolder):
    assert "E001" in shop.cli("-c", "nowhere.yaml", "resources").exits(2).stderr
